"""Usage records of a served gateway: read from answers as they pass, which stay as they were."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import pytest
import trio

from bridgepool.gateway import AccessRecord, UsageRecord, usage_line
from bridgepool.gateway.limits._prices import PriceTable, parse_prices
from bridgepool.gateway.providers import Provider
from bridgepool.gateway.proxy._usage import note_client, usage_record
from bridgepool.gateway.usage._tokens import Tokens, Usage
from bridgepool.http import Exchange, Headers, serve_http
from tests.gateway.proxy.raw import connect, post
from tests.gateway.proxy.rig import Answer as Got
from tests.gateway.proxy.rig import Rig, anthropic, open_rig, openai, start_upstream
from tests.gateway.usage.answers import (
    ANSWERS,
    MESSAGE_EVENTS,
    MESSAGE_TOKENS,
    Answer,
    events,
)

_PATHS = {"openai": "/ai/v1/chat/completions", "anthropic": "/claude/v1/messages"}
_BY_NAME = {answer.name: answer for answer in ANSWERS}


@attrs.define(eq=False)
class Upstream:
    """Answers with one body, in pieces of some size."""

    body: bytes = b""
    headers: Headers = ()
    status: int = 200
    size: int = 1 << 20
    stays: bool = False
    """It does not end its answers."""
    cuts: bool = False
    asked: list[Headers] = attrs.field(factory=list)

    async def handle(self, exchange: Exchange) -> None:
        async for _ in exchange.body:
            pass
        self.asked.append(exchange.request.headers)
        async with exchange.respond(self.status, self.headers) as stream:
            for at in range(0, len(self.body), self.size):
                await stream.send_all(self.body[at : at + self.size])
            if self.stays:
                await trio.sleep_forever()
            if self.cuts:
                raise ConnectionError

    def answer(self, answer: Answer, *, size: int = 1 << 20) -> None:
        """Answer like this from now on."""
        self.headers = ((b"content-type", answer.content_type),)
        self.body, self.size = answer.body, size


@attrs.frozen
class Setup:
    """A gateway that reports usage, in front of one upstream."""

    rig: Rig
    upstream: Upstream
    usage: list[UsageRecord]

    async def ask(self, path: str, *headers: tuple[bytes, bytes]) -> tuple[Got, UsageRecord]:
        """Ask; return the answer and its record."""
        ended = len(self.rig.records)
        got = await self.rig.ask(path, {"model": "asked"}, headers)
        await self.rig.wait_records(ended + 1)
        return got, self.usage[-1]


@asynccontextmanager
async def open_setup(
    nursery: trio.Nursery, *others: Provider, on: bool = True, prices: PriceTable | None = None
) -> AsyncIterator[Setup]:
    upstream, usage = Upstream(), list[UsageRecord]()
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    await nursery.start(partial(serve_http, upstream.handle, listeners))
    providers = *others, openai(f"{address}/v1"), anthropic(address)
    on_usage = usage.append if on else None
    async with open_rig(*providers, nursery=nursery, on_usage=on_usage, prices=prices) as rig:
        yield Setup(rig, upstream, usage)


async def test_every_answer_makes_one_record_and_comes_out_unchanged(
    nursery: trio.Nursery,
) -> None:
    async with open_setup(nursery) as setup:
        for number, answer in enumerate(ANSWERS, 1):
            setup.upstream.answer(answer, size=(7 * number) if number % 2 else 1 << 20)
            got, record = await setup.ask(_PATHS[answer.kind.name])
            assert got.body == answer.body
            usage = answer.usage
            tokens = Tokens(
                record.input_tokens,
                record.output_tokens,
                record.cached_read_tokens,
                record.cached_write_tokens,
                record.reasoning_tokens,
            )
            assert (tokens, record.complete) == (usage.tokens, usage.complete), answer.name
            assert (record.answered_model, record.response_id) == (usage.model, usage.response_id)
            assert (record.finish, record.tools) == (usage.finish, usage.tools)
            assert (record.status, record.outcome, record.attempts) == (200, "complete", 1)
            assert record.request_id == got.headers[b"x-request-id"].decode()
            assert len(setup.usage) == number
        assert len({record.id for record in setup.usage}) == len(ANSWERS)
        assert sorted(record.id for record in setup.usage)[0][:9] == setup.usage[0].id[:9]


async def test_a_compressed_answer_is_read_and_others_are_not_asked_for(
    nursery: trio.Nursery,
) -> None:
    answer = _BY_NAME["chat stream"]
    packed = attrs.evolve(answer, body=gzip.compress(answer.body))
    accepts = (b"accept-encoding", b"gzip, deflate, br, zstd")
    async with open_setup(nursery) as setup:
        setup.upstream.answer(packed, size=20)
        setup.upstream.headers += ((b"content-encoding", b"gzip"),)
        got, record = await setup.ask(_PATHS["openai"], accepts)
        assert got.body == packed.body
        assert (record.input_tokens, record.complete) == (120, True)
        assert dict(setup.upstream.asked[-1])[b"accept-encoding"] == b"gzip"
        many = b"".join(b": %b %d\n\n" % (b"x" * 200, number) for number in range(20_000))
        packed = attrs.evolve(answer, body=gzip.compress(many + answer.body))
        setup.upstream.body, setup.upstream.size = packed.body, 1 << 20
        got, record = await setup.ask(_PATHS["openai"], accepts)
        assert got.body == packed.body
        assert (record.input_tokens, record.complete) == (120, True)
        await setup.ask("/ai/v1/responses/resp_1/cancel", accepts)  # it is not read
        assert dict(setup.upstream.asked[-1])[b"accept-encoding"] == accepts[1]
    async with open_setup(nursery, on=False) as setup:
        setup.upstream.answer(answer)
        await setup.rig.ask(_PATHS["openai"], {}, (accepts,))
        assert dict(setup.upstream.asked[-1])[b"accept-encoding"] == accepts[1]
        [access] = await setup.rig.wait_records(1)
        assert (access.usage.model, access.client_kind) == ("", "")


async def test_a_cut_stream_and_a_client_that_leaves_record_what_was_seen(
    nursery: trio.Nursery,
) -> None:
    cut = attrs.evolve(_BY_NAME["messages stream"], body=events(MESSAGE_EVENTS[:4], named=True))
    async with open_setup(nursery) as setup:
        setup.upstream.answer(cut)
        setup.upstream.cuts = True
        async with connect(setup.rig.address) as client:
            await client.send(post(_PATHS["anthropic"]))
            await client.read_to_end()
            await setup.rig.wait_records(1)
        setup.upstream.cuts, setup.upstream.stays = False, True
        async with connect(setup.rig.address) as client:
            await client.send(post(_PATHS["anthropic"]))
            await client.read_until(b"content_block_delta")
        await setup.rig.wait_records(2)
        setup.upstream.answer(_BY_NAME["messages stream"])
        async with connect(setup.rig.address) as client:
            await client.send(post(_PATHS["anthropic"]))
            await client.read_until(b"message_stop")
        await setup.rig.wait_records(3)
    seen = [(one.outcome, one.input_tokens, one.output_tokens, one.complete) for one in setup.usage]
    assert seen == [
        ("upstream_cut", 3210, 1, False),
        ("client_gone", 3210, 1, False),
        ("client_gone", 3210, MESSAGE_TOKENS.output, True),  # all tokens were made, and told
    ]


async def test_refused_requests_have_records_and_those_to_no_provider_have_none(
    nursery: trio.Nursery,
) -> None:
    async with open_setup(nursery) as setup:
        setup.upstream.answer(_BY_NAME["chat completion"])
        setup.upstream.status = 429
        _, record = await setup.ask(_PATHS["openai"])
        assert (record.status, record.input_tokens, record.complete) == (429, None, False)
        _, record = await setup.ask("/ai/v1/files")
        assert (record.outcome, record.code, record.attempts) == ("refused", "unknown_route", 0)
        await setup.rig.ask("/nobody/v1/files", {})
        await setup.rig.ask("/healthz")
        assert len(await setup.rig.wait_records(3)) == 3
        assert len(setup.usage) == 2


async def test_requests_are_refused_while_their_records_could_not_be_kept(
    nursery: trio.Nursery,
) -> None:
    is_full = False
    usage: list[UsageRecord] = []
    upstream = await start_upstream(nursery)
    async with open_rig(
        openai(upstream), nursery=nursery, on_usage=usage.append, usage_full=lambda: is_full
    ) as rig:
        assert (await rig.ask(_PATHS["openai"], {})).status == 200
        is_full = True
        refused = await rig.ask(_PATHS["openai"], {})
        assert (refused.status, refused.code) == (503, "usage_unavailable")
        assert b"retry-after" in refused.headers
        is_full = False
        assert (await rig.ask(_PATHS["openai"], {})).status == 200
        await rig.wait_records(3)
    assert [one.code for one in usage] == ["", "usage_unavailable", ""]
    assert len(upstream.received) == 2


async def test_an_answer_is_not_delayed_by_what_reads_it(nursery: trio.Nursery) -> None:
    """The reader of a piece is called once the piece has been sent, and its error is ours."""
    async with open_setup(nursery) as setup:
        setup.upstream.answer(_BY_NAME["messages stream"])
        setup.upstream.stays = True
        setup.upstream.body = setup.upstream.body[:-1]  # the last event has no end
        async with connect(setup.rig.address) as client:
            await client.send(post(_PATHS["anthropic"]))
            await client.read_until(b'{"type": "message_stop"}\n')


@pytest.mark.parametrize(
    ("headers", "kind", "session"),
    [
        (
            {"user-agent": "claude-cli/2.1.0 (external, cli)", "x-claude-code-session-id": "a-1"},
            "claude-code",
            "a-1",
        ),
        ({"user-agent": "codex_cli_rs/0.90 (Linux)", "session-id": "0199-ab"}, "codex", "0199-ab"),
        ({"user-agent": "codex_exec/0.80", "session_id": "0199-ab"}, "codex", "0199-ab"),
        ({"user-agent": "opencode/1.18.33 ai-sdk/4", "x-session-id": "ses_a"}, "opencode", "ses_a"),
        ({"user-agent": "QwenCode/0.24.4 (linux; x64)"}, "qwen-code", ""),
        ({"user-agent": "AsyncOpenAI/Python 3.52.0", "session-id": "a b"}, "openai-python", ""),
        ({"user-agent": "Anthropic/JS 1.11", "session-id": "x" * 129}, "anthropic-node", ""),
        ({"user-agent": "ai/6 ai-sdk/openai/2", "session-id": ""}, "ai-sdk", ""),
        ({"user-agent": "something", "session-id": "bp_" + "a" * 50}, "", None),
        ({}, "", ""),
    ],
)
def test_the_client_is_known_by_its_user_agent_and_session_header(
    headers: dict[str, str], kind: str, session: str | None
) -> None:
    record = AccessRecord("POST")
    note_client(record, tuple((k.encode(), v.encode()) for k, v in headers.items()))
    assert record.client_kind == kind
    if session is not None:
        assert record.session == session


def test_a_line_of_the_usage_log_has_every_field_in_order() -> None:
    record = UsageRecord(id="1", time="2026-11-29T00:00:00.000Z", client="ada", provider="ai")
    line = usage_line(record)
    assert line.count(b"\n") == 1
    assert list(json.loads(line)) == [field.name for field in attrs.fields(UsageRecord)]
    assert re.fullmatch("[0-9a-f]{32}", UsageRecord(time="", client="ada", provider="ai").id)


async def test_a_record_has_the_model_asked_for_by_a_short_and_a_long_request(
    nursery: trio.Nursery,
) -> None:
    """Without a rule that reads it; a long one is read as it passes, and sent as it came."""
    upstream = await start_upstream(nursery)
    usage: list[UsageRecord] = []
    long = {"messages": [{"content": "x\n" * 5_000}] * 100, "model": "long"}
    async with open_rig(openai(upstream), nursery=nursery, on_usage=usage.append) as rig:
        bodies: list[dict[str, Any]] = [{"model": "short"}, long, {"messages": []}]
        for body in bodies:
            assert (await rig.ask(_PATHS["openai"], body)).status == 200
            assert json.loads(upstream.received[-1].body) == body
        records = await rig.wait_records(3)
    assert [one.model for one in usage] == ["short", "long", ""]
    assert [one.model for one in records] == ["short", "long", ""]


def ended(**fields: Any) -> AccessRecord:
    """Make the record of a request that a provider has answered."""
    values = {"provider": "ai", "attempts": 1, "upstream_status": 200, **fields}
    return AccessRecord("POST", **values)


def test_a_request_has_a_cost_if_it_is_known_and_else_none() -> None:
    """What is unknown is not taken for free; what used no tokens costs nothing."""
    prices = parse_prices(
        'currency = "EUR"\n[[models]]\nmodel = "m"\ninput = 2\noutput = 8\ncached_read = 0.5\n'
        "[unknown]\ninput = 1\noutput = 1"
    )
    usage = Usage(Tokens(1000, 100, cached_read=400), complete=True, model="m")
    embedded = Usage(Tokens(1000), complete=True, model="m")
    cut, other = usage._replace(complete=False), usage._replace(model="m-2")
    for record, cost in (
        (ended(usage=usage), (600 * 2 + 400 * 0.5 + 100 * 8) / 1e6),
        (ended(usage=usage, upstream_status=101, websocket=True), 0.0022),
        (ended(usage=embedded), 0.002),
        (ended(usage=embedded._replace(model=""), model="m"), 0.002),
        (ended(usage=other), 0.0011),  # by [unknown], as a budget is charged
        (ended(usage=other, model="m"), 0.0011),
        (ended(usage=cut), None),
        (ended(), None),
        (ended(upstream_status=0), None),
        (ended(upstream_status=0, code="upstream_cut"), None),
        (ended(upstream_status=0, code="upstream_unreachable"), 0.0),
        (ended(upstream_status=0, code="upstream_busy"), 0.0),
        (ended(upstream_status=500), 0.0),
        (ended(upstream_status=0, attempts=0), 0.0),
        (attrs.evolve(ended(), method="GET"), 0.0),
    ):
        made = usage_record(record, prices)
        assert (made.cost, made.currency) == (cost, "" if cost is None else "EUR")
        assert usage_record(record).cost is None


async def test_a_record_names_the_provider_asked_for_and_what_its_fallback_cost(
    nursery: trio.Nursery,
) -> None:
    first = openai("http://127.0.0.1:9/v1", "first", fallback=("ai",))
    prices = parse_prices('[[models]]\nmodel = "*"\ninput = 1\noutput = 2')
    async with open_setup(nursery, first, prices=prices) as setup:
        setup.upstream.answer(_BY_NAME["chat completion"])
        _, record = await setup.ask("/first/v1/chat/completions")
    assert (record.provider, record.fallback_from) == ("ai", "first")
    tokens = (record.input_tokens or 0, record.output_tokens or 0)
    assert (record.cost, record.currency) == ((tokens[0] + 2 * tokens[1]) / 1e6, "USD")
    assert record.cost
