"""Streams that are asked for their usage, of which the client sees nothing (`include_usage`)."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from bridgepool.gateway import UsageRecord
from bridgepool.http import Exchange, Headers, serve_http
from tests.gateway.proxy.raw import connect, post, raw_upstream, read_head, says
from tests.gateway.proxy.rig import open_rig, openai, start_upstream
from tests.gateway.usage.answers import CHAT_CHUNKS, events
from tests.http_client.support import Pieces

CHAT = b"/ai/v1/chat/completions"
STREAM, WITHOUT = events(CHAT_CHUNKS, done=True), events(CHAT_CHUNKS[:-1], done=True)


async def test_streams_are_asked_for_usage_that_the_client_does_not_get(
    nursery: trio.Nursery,
) -> None:
    """Of a short and of a long request, over a change of keys, and only while usage is read."""
    upstream = await start_upstream(nursery)
    usage: list[UsageRecord] = []
    asking, path = openai(upstream, include_usage=True), "/ai/v1/chat/completions"
    stream: dict[str, Any] = {"model": "m", "stream": True, "messages": [{"content": "é"}]}
    long = stream | {"messages": [{"content": "x" * 200_000}]}
    async with open_rig(openai(upstream), nursery=nursery, on_usage=usage.append) as rig:
        plain = (await rig.ask(path, stream)).body
        await rig.replace(asking)
        for body in (stream, long):
            assert (await rig.ask(path, body)).body == plain
            options = {"stream_options": {"include_usage": True}}
            assert json.loads(upstream.received[-1].body) == body | options
        own = stream | {"stream_options": {"include_usage": True}}
        answer = await rig.ask(path, own)
        assert b'"prompt_tokens"' in answer.body  # it asked for it
        assert json.loads(upstream.received[-1].body) == own
        for body in (stream | {"stream": False}, {"input": "x"}):
            await rig.ask(path.replace("chat/completions", "embeddings"), body)
            assert json.loads(upstream.received[-1].body) == body
        await rig.wait_records(6)
        assert rig.gateway._replay_budget.used == 0
    assert [one.output_tokens for one in usage[:4]] == [None, 7, 7, 7]
    assert [one.complete for one in usage[:4]] == [False, True, True, True]
    async with open_rig(asking, nursery=nursery) as rig:
        assert (await rig.ask(path, stream)).body == plain
        assert json.loads(upstream.received[-1].body) == stream  # nothing reads it


@pytest.mark.parametrize("status", [b"200 OK", b"400 Bad Request"])
async def test_an_answer_that_is_no_stream_comes_as_it_is_also_if_usage_was_asked_for(
    nursery: trio.Nursery, status: bytes
) -> None:
    """It lost its length, and if it was cut, what had come of it."""
    head = b"HTTP/1.1 %b\r\ncontent-type: application/json; charset=utf-8\r\n" % status
    part = b'{"object": "chat.completion", "choices": ['
    url = await raw_upstream(nursery, says(head + b"content-length: 999\r\n\r\n" + part))
    usage, body = list[UsageRecord](), b'{"stream":true}'
    async with (
        open_rig(openai(url, include_usage=True), nursery=nursery, on_usage=usage.append) as rig,
        connect(rig.address) as client,
    ):
        await client.send(post("/ai/v1/chat/completions", body))
        got = await client.read_until(b"\r\n\r\n" + part)
        await rig.wait_records(1)
    assert b"content-length: 999\r\n" in got


async def test_a_request_that_asks_for_usage_is_sent_again_with_another_key(
    nursery: trio.Nursery,
) -> None:
    bodies: list[bytes] = []

    async def handle(exchange: Exchange) -> None:
        bodies.append(b"".join([piece async for piece in exchange.body]))
        if len(bodies) == 1:
            await exchange.answer(429, ((b"retry-after", b"9"),), b"{}")
            return
        headers = ((b"content-type", b"text/event-stream"),)
        async with exchange.respond(200, headers) as stream:
            await stream.send_all(events(CHAT_CHUNKS, done=True)[:-7])
            await stream.send_all(events(CHAT_CHUNKS, done=True)[-7:])

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    await nursery.start(partial(serve_http, handle, listeners))
    url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/v1"
    usage: list[UsageRecord] = []
    provider = openai(url, include_usage=True, keys=["one", "two"])
    async with open_rig(provider, nursery=nursery, on_usage=usage.append) as rig:
        answer = await rig.ask("/ai/v1/chat/completions", {"stream": True})
        assert answer.body == events(CHAT_CHUNKS[:-1], done=True)
        await rig.wait_records(1)
        assert rig.gateway._replay_budget.used == 0
    assert bodies[0] == bodies[1]
    assert b"include_usage" in bodies[1]
    [record] = usage
    assert (record.attempts, record.output_tokens, record.complete) == (2, 45, True)
    assert record.upstream_key


@pytest.mark.parametrize("why", ["chunked", "long", "encoded", "expected"])
async def test_a_request_that_cannot_be_read_whole_is_sent_as_it_is(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    monkeypatch.setattr("bridgepool.gateway.proxy._include_usage.MAX_BODY_BYTES", 1000)
    upstream = await start_upstream(nursery)
    filler = "x" * (1000 if why == "long" else 10)
    body = json.dumps({"model": "m", "stream": True, "user": filler}).encode()
    fields: dict[str, Headers] = {
        "encoded": ((b"content-encoding", b"br"),),
        "expected": ((b"expect", b"100-continue"),),
    }
    headers = fields.get(why, ())
    if why != "chunked":
        headers += ((b"content-length", b"%d" % len(body)),)
    async with open_rig(
        openai(upstream, include_usage=True), nursery=nursery, on_usage=lambda _: None
    ) as rig:
        async with rig.client.request(b"POST", CHAT, headers, Pieces(body)) as response:
            while await response.receive_some():
                pass
        assert rig.gateway._replay_budget.used == 0
    assert upstream.received[-1].body == body


async def test_a_request_that_finds_no_memory_is_sent_as_it_is(nursery: trio.Nursery) -> None:
    upstream = await start_upstream(nursery)
    body = {"model": "m", "stream": True, "user": "x" * 200_000}
    async with open_rig(
        openai(upstream, include_usage=True), nursery=nursery, on_usage=lambda _: None
    ) as rig:
        rig.gateway._replay_budget.limit = 150_000
        assert (await rig.ask("/ai/v1/chat/completions", body)).status == 200
        assert rig.gateway._replay_budget.used == 0
    assert json.loads(upstream.received[-1].body) == body


async def test_a_request_whose_client_leaves_within_its_body_holds_no_memory(
    nursery: trio.Nursery,
) -> None:
    upstream = await start_upstream(nursery)
    async with open_rig(
        openai(upstream, include_usage=True), nursery=nursery, on_usage=lambda _: None
    ) as rig:
        async with connect(rig.address) as client:
            whole = post("/ai/v1/chat/completions", b"x" * 300_000)
            await client.send(whole[:200_000])
            with trio.fail_after(60):
                while not rig.gateway._replay_budget.used:  # noqa: ASYNC110 -- no event tells
                    await trio.sleep(0.001)
        await rig.wait_records(1)
        assert rig.gateway._replay_budget.used == 0


@pytest.mark.parametrize(
    ("fields", "sent", "comes"),
    [
        (b"", STREAM, WITHOUT),
        (b"", STREAM[:-2], WITHOUT[:-2]),
        (b"content-length: %d\r\n" % len(STREAM), STREAM, WITHOUT),
        (b"content-encoding: br\r\ncontent-length: 5\r\n", b"\1\2\3\4\5", b"\1\2\3\4\5"),
    ],
    ids=["plain", "no end", "length", "encoded"],
)
async def test_what_comes_of_a_stream_is_all_but_the_usage(
    nursery: trio.Nursery, fields: bytes, sent: bytes, comes: bytes
) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n%b" % fields

    async def speak(stream: trio.SocketStream) -> None:
        await read_head(stream)
        await stream.send_all(head + b"connection: close\r\n\r\n" + sent[:3])
        await trio.testing.wait_all_tasks_blocked()
        await stream.send_all(sent[3:])

    url = await raw_upstream(nursery, speak)
    async with open_rig(
        openai(url, include_usage=True), nursery=nursery, on_usage=lambda _: None
    ) as rig:
        answer = await rig.ask("/ai/v1/chat/completions", {"stream": True})
    assert answer.body == comes
    if b"encoding" in fields:
        assert answer.headers[b"content-length"] == b"5"
