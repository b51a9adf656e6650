"""Streams that are asked for their usage, of which the client sees nothing (`include_usage`)."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
import trio

from bridgepool.gateway import UsageRecord
from bridgepool.http import Exchange, serve_http
from tests.gateway.proxy.raw import connect, post, raw_upstream, says
from tests.gateway.proxy.rig import open_rig, openai, start_upstream
from tests.gateway.usage.answers import CHAT_CHUNKS, events


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
