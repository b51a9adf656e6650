"""Forms of clients with a rule on models: the model is found, and the form arrives unchanged."""

from __future__ import annotations

import trio

from tests.gateway.proxy.test_client_use import CHAT, opened

SPEECH = "/ai/v1/audio/transcriptions"
FORM = ((b"content-type", b"multipart/form-data; boundary=boundary-1"),)


def form(*models: str) -> bytes:
    """Return a form with a file larger than what is read at once, then the models."""
    parts = [b'name="file"; filename="a.mp3"\r\nContent-Type: a/b\r\n\r\n' + b"\0" * 200_000]
    parts += [f'name="model"\r\n\r\n{model}'.encode() for model in models]
    begin = b"--boundary-1\r\nContent-Disposition: form-data; "
    return b"".join(begin + part + b"\r\n" for part in parts) + b"--boundary-1--\r\n"


async def test_a_rule_on_models_holds_for_the_model_of_a_form(nursery: trio.Nursery) -> None:
    async with opened(nursery) as both:
        both.rules({"models": ("gpt-5",)})
        for target, body, status, code in (
            (SPEECH, form("gpt-4"), 403, "model_not_allowed"),
            (SPEECH, form("gpt-5", "gpt-4"), 400, "model_not_readable"),
            (SPEECH, form(), 403, "model_not_allowed"),
            (CHAT, form("gpt-5"), 400, "model_not_readable"),  # which takes no forms
        ):
            refused = await both.ask(target, body, headers=FORM)
            assert (refused.status, refused.code) == (status, code)
            assert both.upstream.asked == []
        assert (await both.ask(SPEECH, form("gpt-5"), headers=FORM)).status == 200
        assert [body for _, body in both.upstream.asked] == [form("gpt-5")]
        records = await both.rig.wait_records(5)
        assert records[-1].model == "gpt-5"
        assert both.rig.gateway._uses.bodies.used == 0
