"""What the log and the answers repeat of a request: the words of the APIs, and nothing else."""

from __future__ import annotations

import logging
import string
import timeit
from typing import Any
from urllib.parse import quote

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from bridgepool.gateway import AccessRecord, Outcome, console_line, json_line
from bridgepool.gateway.providers import PROVIDER_TYPES, Client, hash_key, new_client_key
from bridgepool.gateway.proxy._redaction import PathRedactor, redact_method

from .rig import anthropic, open_rig, openai, start_upstream

REDACTOR = PathRedactor(PROVIDER_TYPES)
WORDS = REDACTOR.words
KEY = "sk-hidden-" + "0123456789abcdef" * 2
MARK = KEY[3:12]  # of every form of it that is looked for here


@pytest.mark.parametrize(
    ("path", "provider", "shown"),
    [
        (b"/ai/v1/chat/completions", "ai", "/ai/v1/chat/completions"),
        (b"/ai/v1/responses/resp_68a1/cancel", "ai", "/ai/v1/responses/*/cancel"),
        (b"/ai/v1/responses/resp_68a1/input_items", "ai", "/ai/v1/responses/*/input_items"),
        (b"/ai/v1/models/gpt-4.1", "ai", "/ai/v1/models/*"),
        (b"/a/v1/messages/batches/b_1/results", "a", "/a/v1/messages/batches/*/results"),
        (b"/ai/v1/files", "ai", "/ai/v1/files"),
        (b"/ai/v1/" + KEY.encode() + b"/chat", "ai", "/ai/v1/*/chat"),
        (b"/ai/v1/chat/completions;key=x", "ai", "/ai/v1/chat/*"),
        (b"/ai/v1/chat%2Fcompletions", "ai", "/ai/v1/*"),
        (b"/ai/V1/Chat", "ai", "/ai/*/*"),
        (b"/ai", "ai", "/ai"),
        (b"/ai/", "ai", "/ai/"),
        (b"/ai//v1", "ai", "/ai//v1"),
        # Without a provider of that name, or before the client is known.
        (b"/" + KEY.encode() + b"/v1/models", "-", "/*/v1/models"),
        (b"/v1/chat/completions", "-", "/v1/chat/completions"),
        (b"/", "-", "/"),
        (b"//x", "-", "//*"),
        (b"*", "-", "*"),
        (b"", "-", ""),
        (b"/\xff\n\"", "-", "/*"),
        (b"/ai" + b"/v1" * 5000, "ai", "/ai" + "/v1" * 10 + "/*"),
    ],
)  # fmt: skip
def test_a_path_is_shown_by_the_words_of_the_apis(path: bytes, provider: str, shown: str) -> None:
    assert REDACTOR.redact(path, provider) == shown


@given(st.binary(max_size=80), st.sampled_from(["-", "ai"]))
def test_whatever_a_path_holds_only_words_are_shown(path: bytes, provider: str) -> None:
    shown = REDACTOR.redact(b"/ai/" + path, provider)
    assert set(shown.split("/")) <= WORDS | {"*", "ai"}
    assert len(shown) < 500


def test_the_words_are_none_that_a_key_could_be() -> None:
    """They are public, short, and in small letters; a random key of that form is not used."""
    small = set(string.ascii_lowercase + string.digits + "_")
    assert all(set(word) <= small and len(word) < 20 for word in WORDS)


def test_methods_that_nobody_knows_are_not_shown() -> None:
    assert redact_method(b"DELETE") == "DELETE"
    assert redact_method(KEY.encode()) == "*"
    assert redact_method(b"get") == "*"


def test_what_is_shown_of_a_path_costs_little() -> None:
    """At most 1 µs is the promise; the bound is loose because machines are shared."""
    path = b"/ai/v1/chat/completions"
    assert min(timeit.repeat(lambda: REDACTOR.redact(path, "ai"), number=1000, repeat=5)) < 10e-3


def _encoded(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode())


def _without_key(shown: str) -> bool:
    lower = shown.lower()
    return MARK not in lower and _encoded(MARK) not in lower


@pytest.mark.parametrize("form", [str, quote, _encoded, "Bearer%20{}".format])
async def test_a_key_in_a_path_comes_back_nowhere(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture, form: Any
) -> None:
    """Its own client is told that the path is wrong, but not what stood in it: SDKs put what
    they are told into exceptions, which are logged."""
    north = await start_upstream(nursery)
    key, text = new_client_key(), form(KEY)
    good = ((b"authorization", b"Bearer " + key.reveal().encode()),)
    targets = (
        *(f"/{text}", f"/{text}/ai/v1/models", f"/ai/{text}", f"/ai/v1/{text}/chat"),
        *(f"/ai/v1/chat/completions/../{text}", f"/ai/v1/chat/completions;{text}"),
        *(f"/ai/v1/files/{text}?key={text}", f"/claude/v1/{text}", f"//{text}", f"/v1/{text}"),
    )
    caplog.set_level(logging.DEBUG)
    clients = (Client(id="ada", key_hashes=(hash_key(key),)),)
    both = (openai(north), anthropic(north))
    async with open_rig(*both, nursery=nursery, clients=clients) as rig:
        for target in targets:
            for headers in (good, ()):
                answer = await rig.ask(target, {}, headers)
                assert answer.status in (401, 404)
                assert _without_key(answer.body.decode()), target
        answer = await rig.ask("/ai/v1/chat/completions", {}, good, method=KEY)
        assert answer.code == "unknown_route"
        assert _without_key(answer.body.decode())
        answer = await rig.ask(f"/ai/v1/models/{text}", None, good)  # that is open
        records = await rig.wait_records(2 * len(targets) + 2)
    assert north.received
    assert records[-1].path == "/ai/v1/models/*"
    for record in records:
        assert _without_key(repr(record))
        assert _without_key(json_line(record).decode())
        assert _without_key(console_line(record).decode())
    ours = [r for r in caplog.records if r.name.startswith("bridgepool")]
    assert _without_key(repr([vars(record) for record in ours]))


async def test_a_refusal_tells_enough_to_correct_the_path(nursery: trio.Nursery) -> None:
    north = await start_upstream(nursery)
    async with open_rig(openai(north), nursery=nursery) as rig:
        answer = await rig.ask("/ai/chat/completions", {})
        assert answer.json["error"]["message"] == (
            "Provider 'ai' has no route POST '/chat/completions' on this gateway. It has "
            "'/v1/chat/completions': correct the base URL."
        )
        answer = await rig.ask("/v1/chat/completions", {})
        assert answer.json["error"]["message"] == (
            "There is no provider of the name that the path begins with. The providers are: ai."
        )
    assert [record.path for record in rig.records] == [
        "/ai/chat/completions",
        "/v1/chat/completions",
    ]


async def test_a_request_that_fails_has_its_path_and_not_its_query(nursery: trio.Nursery) -> None:
    north = await start_upstream(nursery)
    async with open_rig(openai(north, "off", enabled=False), nursery=nursery) as rig:
        await rig.ask("/off/v1/responses/resp_1?key=x", {})
        [record] = await rig.wait_records(1)
    assert (record.path, record.outcome) == ("/off/v1/responses/*", Outcome.REFUSED)
    assert AccessRecord("GET").path == ""
