"""The OpenAI Python SDK, unmodified, against the real gateway process."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import openai
import pytest
import trio
from openai.types.chat import ChatCompletionUserMessageParam

from bridgepool.gateway.demo._upstream import WORDS, SimulatedUpstream
from tests.e2e.files import client_row_and_key, provider, write
from tests.e2e.process import GatewayProcess, run_gateway

# The SDK and its HTTP library leave their async generators unfinished at [DONE]; Trio tells.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")

TEXT = "".join(WORDS)
HELLO: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "Hello."}]


def sdk(gateway: GatewayProcess, name: str = "ai", key: str = "anything") -> openai.AsyncOpenAI:
    """The SDK as a user makes it: only the base URL and a key are given."""
    return openai.AsyncOpenAI(base_url=f"{gateway.url}/{name}/v1", api_key=key)


async def test_calls_are_answered_and_streams_come_whole(
    north: SimulatedUpstream, tmp_path: Path
) -> None:
    file = tmp_path / "providers.toml"
    write(file, provider("ai", "openai", north.openai_url))

    def call_sync(url: str) -> tuple[str | None, str]:
        with openai.OpenAI(base_url=url, api_key="anything") as client:
            whole = client.chat.completions.create(model="m", messages=HELLO)
            stream = client.chat.completions.create(model="m", messages=HELLO, stream=True)
            return whole.choices[0].message.content, "".join(
                chunk.choices[0].delta.content or "" for chunk in stream
            )

    async with run_gateway(file) as gateway, sdk(gateway) as client:
        answer = await client.chat.completions.create(model="m", messages=HELLO)
        assert answer.choices[0].message.content == TEXT
        assert answer.model == "m@north"
        models = await client.models.list()
        assert [model.id for model in models.data] == ["model@north"]
        response = await client.responses.create(model="m", input="Hello.")
        assert response.output_text == TEXT
        stream = await client.chat.completions.create(model="m", messages=HELLO, stream=True)
        words = [chunk.choices[0].delta.content async for chunk in stream]
        assert "".join(word or "" for word in words) == TEXT
        events = await client.responses.create(model="m", input="Hello.", stream=True)
        kinds = [event.type async for event in events]
        assert kinds[0] == "response.created"
        assert kinds[-1] == "response.completed"
        url = f"{gateway.url}/ai/v1"
        assert await trio.to_thread.run_sync(call_sync, url) == (TEXT, TEXT), "the sync SDK, too"


async def test_a_rate_limited_or_refused_key_is_not_noticed_and_when_all_are_out_it_waits(
    north: SimulatedUpstream, tmp_path: Path
) -> None:
    file = tmp_path / "providers.toml"
    keys = ["sk-first", "sk-second", "sk-third"]
    write(file, provider("ai", "openai", north.openai_url, keys=keys, client_keys="prefer"))
    limited = (429, ((b"x-ratelimit-reset-tokens", b"6m0s"), (b"retry-after", b"0")))
    north.key_answers = {b"sk-first": limited, b"sk-second": (401, ())}
    row, key = client_row_and_key("ada")
    with file.open("a") as more:
        more.write("\n" + row + "\n")
    async with run_gateway(file) as gateway, sdk(gateway, key=key) as client:
        once = client.with_options(max_retries=0)
        answer = await once.chat.completions.create(model="m", messages=HELLO)
        assert answer.choices[0].message.content == TEXT
        stream = await once.chat.completions.create(model="m", messages=HELLO, stream=True)
        words = [chunk.choices[0].delta.content async for chunk in stream]
        assert "".join(word or "" for word in words) == TEXT
        assert [seen.header(b"authorization") for seen in north.received] == [
            f"Bearer {name}".encode() for name in (*keys, "sk-third")
        ]
        north.key_answers[b"sk-third"] = (429, ((b"retry-after-ms", b"90000"),))
        with pytest.raises(openai.RateLimitError) as refused:
            await once.chat.completions.create(model="m", messages=HELLO)
        assert refused.value.code == "provider_keys_exhausted"
        assert refused.value.response.headers["retry-after"] == "90"
        own = once.with_options(
            api_key="sk-own", default_headers={"X-Bridgepool-Key": key}
        )  # a client that brings a key of its own is not concerned
        answer = await own.chat.completions.create(model="m", messages=HELLO)
        assert answer.choices[0].message.content == TEXT
    assert "sk-first" not in gateway.everything


async def test_it_knows_what_a_client_may_not_and_when_a_budget_or_a_rate_is_used_up(
    north: SimulatedUpstream, tmp_path: Path
) -> None:
    file = tmp_path / "providers.toml"
    (ada, ada_key), (eve, eve_key) = client_row_and_key("ada"), client_row_and_key("eve")
    ada += '\nmodels = ["m*"]\nrequests_per_minute = 5'
    write(file, provider("ai", "openai", north.openai_url), ada, f"{eve}\ntokens_per_day = 1")
    async with run_gateway(file) as gateway, sdk(gateway, key=ada_key) as client:
        raw = await client.chat.completions.with_raw_response.create(model="m", messages=HELLO)
        assert raw.headers["x-ratelimit-limit-requests"] == "5"
        assert raw.headers["x-ratelimit-remaining-requests"] == "4"
        assert [model.id for model in (await client.models.list()).data] == ["model@north"]
        with pytest.raises(openai.PermissionDeniedError) as denied:
            await client.chat.completions.create(model="other", messages=HELLO)
        assert denied.value.code == "model_not_allowed"
        once = client.with_options(max_retries=0)
        for _ in range(3):
            await once.chat.completions.create(model="m", messages=HELLO)
        with pytest.raises(openai.RateLimitError) as limited:
            await once.chat.completions.create(model="m", messages=HELLO)
        assert limited.value.code == "rate_limited"
        assert 1 <= int(limited.value.response.headers["retry-after"]) <= 12
        spender = client.with_options(api_key=eve_key)  # it would retry twice
        await spender.chat.completions.create(model="m", messages=HELLO)
        asked = len(north.received)
        with pytest.raises(openai.RateLimitError) as spent:
            await spender.chat.completions.create(model="m", messages=HELLO)
        assert spent.value.code == "budget_exceeded"
        assert len(north.received) == asked
        codes = [line["code"] for line in await gateway.stop()]
    assert codes.count("budget_exceeded") == 1  # it was not retried


async def test_it_knows_the_errors_of_providers_that_cannot_be_used(
    north: SimulatedUpstream, tmp_path: Path
) -> None:
    file = tmp_path / "providers.toml"
    write(
        file,
        provider("off", "openai", north.openai_url, enabled=False),
        provider("broken", "openai", north.openai_url, key_env="BRIDGEPOOL_TEST_NOT_SET"),
        provider("ai", "openai", north.openai_url),
    )
    async with run_gateway(file) as gateway:
        ask = partial(_ask, gateway)
        disabled = await ask("off", openai.InternalServerError)
        assert (disabled.status_code, disabled.code) == (503, "provider_disabled")
        broken = await ask("broken", openai.InternalServerError)
        assert (broken.status_code, broken.code) == (503, "provider_misconfigured")
        unknown = await ask("nobody", openai.NotFoundError)
        assert (unknown.status_code, unknown.code) == (404, "unknown_provider")
        north.scope.cancel()  # its port is closed from here on
        async with openai.AsyncOpenAI(
            base_url=f"{gateway.url}/ai/v1", api_key="anything", max_retries=1
        ) as client:
            with pytest.raises(openai.InternalServerError) as caught:
                await client.chat.completions.create(model="m", messages=HELLO)
        assert (caught.value.status_code, caught.value.code) == (502, "upstream_unreachable")
        codes = [request["code"] for request in await gateway.stop()]
        assert len(codes[:-2]) == 3, "the SDK retried although that is useless"
        assert codes[-2:] == ["upstream_unreachable"] * 2, "that is worth a retry"
    assert not north.received


async def _ask(
    gateway: GatewayProcess, name: str, kind: type[openai.APIStatusError], key: str = "anything"
) -> openai.APIStatusError:
    async with sdk(gateway, name, key) as client:
        with pytest.raises(kind) as caught:
            await client.chat.completions.create(model="m", messages=HELLO)
    return caught.value


async def test_a_stream_cut_by_the_upstream_raises_its_api_error(
    north: SimulatedUpstream, tmp_path: Path
) -> None:
    file = tmp_path / "providers.toml"
    write(file, provider("ai", "openai", north.openai_url))
    north.cut_after = 3
    async with run_gateway(file) as gateway, sdk(gateway) as client:
        stream = await client.chat.completions.create(model="m", messages=HELLO, stream=True)
        words: list[str | None] = []
        with pytest.raises(openai.APIError) as caught:  # noqa: PT012 -- the words before it count
            async for chunk in stream:
                words.append(chunk.choices[0].delta.content)
        assert words == list(WORDS[:3])
        assert caught.value.code == "upstream_cut"
        await gateway.wait_request(outcome="upstream_cut")


async def test_a_wrong_client_key_is_an_authentication_error(
    north: SimulatedUpstream, tmp_path: Path
) -> None:
    file = tmp_path / "providers.toml"
    client_row, _ = client_row_and_key("ada")
    write(file, provider("ai", "openai", north.openai_url), client_row)
    async with run_gateway(file) as gateway:
        error = await _ask(gateway, "ai", openai.AuthenticationError, key="bp_wrong")
        assert (error.status_code, error.code) == (401, "invalid_api_key")
    assert not north.received
