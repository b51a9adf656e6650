"""Streams through the gateway: both ways, cut, left, outlived and replaced."""

from __future__ import annotations

import attrs
import pytest
import trio

from bridgepool.gateway import GatewaySettings, Outcome
from bridgepool.gateway.demo._upstream import WORDS
from bridgepool.http import UpstreamCut, UpstreamLimits, open_upstream_client
from tests.gateway.proxy.raw import connect, post, raw_upstream, read_head, says, silence
from tests.gateway.proxy.rig import anthropic, open_rig, openai, start_upstream
from tests.simulated import Gate
from tests.waiting import wait_until

CHAT = "/ai/v1/chat/completions"
STREAM = b'{"model": "m", "stream": true}'
OPEN = GatewaySettings(allow_anonymous=True, min_reload_interval=0.001)


async def test_each_piece_arrives_before_the_next_is_said(nursery: trio.Nursery) -> None:
    north = await start_upstream(nursery)
    gate = Gate(north)
    async with open_rig(openai(north), nursery=nursery) as rig, connect(rig.address) as client:
        await client.send(post(CHAT, STREAM))
        await client.read_until(b'"pool "')
        assert b'"that "' not in client.data
        gate.opened.set()
        await client.read_until(b"[DONE]\n\n\r\n0\r\n\r\n")


async def test_the_head_comes_before_the_first_piece(nursery: trio.Nursery) -> None:
    north = await start_upstream(nursery)
    gate = Gate(north, at=0)
    async with open_rig(openai(north), nursery=nursery) as rig, connect(rig.address) as client:
        await client.send(post(CHAT, STREAM))
        await client.read_until(b"\r\n\r\n")
        assert client.data.startswith(b"HTTP/1.1 200 ")
        gate.opened.set()
        await client.read_until(b"[DONE]")


async def test_a_stream_ends_on_the_provider_it_began_on(nursery: trio.Nursery) -> None:
    north, south = await start_upstream(nursery), await start_upstream(nursery, "south")
    gate = Gate(north)
    async with open_rig(openai(north), nursery=nursery) as rig, connect(rig.address) as client:
        await client.send(post(CHAT, STREAM))
        await gate.reached.wait()
        await rig.replace(openai(south))
        assert (await rig.ask(CHAT, {"model": "m"})).json["model"] == "m@south"
        await rig.replace(openai(south, enabled=False))
        assert (await rig.ask(CHAT, {})).code == "provider_disabled"
        await rig.replace()
        assert (await rig.ask(CHAT, {})).code == "unknown_provider"
        assert rig.gateway.statistics().runtimes == 1, "the stream's own is still open"
        gate.opened.set()
        data = await client.read_until(b"[DONE]")
        assert data.count(b"m@north") == len(WORDS) + 1
        await rig.gateway.pool.wait_drained(rig.gateway.pool.generation - 1)
        await trio.testing.wait_all_tasks_blocked()
        assert rig.gateway.statistics().runtimes == 0
        records = await rig.wait_records(4)
    assert [record.generation for record in records] == [2, 3, 4, 1]
    assert records[3].outcome is Outcome.COMPLETE


async def test_an_unchanged_provider_keeps_its_connections_across_generations(
    nursery: trio.Nursery,
) -> None:
    connections = 0

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal connections
        connections += 1
        while True:
            try:
                await read_head(stream)
            except AssertionError:
                return
            await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")

    url = await raw_upstream(nursery, serve)
    async with open_rig(openai(url), nursery=nursery) as rig:
        for generation in range(2, 6):
            await rig.ask(CHAT, b"")
            await rig.replace(openai(url), openai(f"http://127.0.0.1:9/{generation}", "other"))
        await rig.ask(CHAT, b"")
        assert rig.gateway.pool.generation == 5
    assert connections == 1


async def test_a_client_that_leaves_ends_the_upstream_request(nursery: trio.Nursery) -> None:
    north = await start_upstream(nursery)
    gate = Gate(north)
    async with open_rig(openai(north), nursery=nursery) as rig:
        async with connect(rig.address) as client:
            await client.send(post(CHAT, STREAM))
            await gate.reached.wait()
            assert north.streaming == 1
        [record] = await rig.wait_records(1)
        assert record.outcome is Outcome.CLIENT_GONE
        await wait_until(lambda: north.abandoned)
        assert north.streaming == 0
        assert rig.gateway.pool.statistics().leased == 0


async def test_a_client_that_leaves_in_its_own_upload_ends_it_too(nursery: trio.Nursery) -> None:
    seen, ended = trio.Event(), trio.Event()

    async def take(stream: trio.SocketStream) -> None:
        await read_head(stream)
        seen.set()
        try:
            while await stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass
        ended.set()

    url = await raw_upstream(nursery, take)
    async with open_rig(openai(url), nursery=nursery) as rig:
        async with connect(rig.address) as client:
            await client.send(
                b"POST /ai/v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
                b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"
            )
            with trio.fail_after(60):
                await seen.wait()
        with trio.fail_after(60):
            await ended.wait()
        [record] = await rig.wait_records(1)
        assert record.outcome is Outcome.CLIENT_GONE


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
async def test_an_upstream_that_breaks_off_cuts_the_client_after_an_error_event(
    nursery: trio.Nursery, kind: str
) -> None:
    north = await start_upstream(nursery)
    north.cut_after = 2
    async with (
        open_rig(openai(north), anthropic(north), nursery=nursery) as rig,
        connect(rig.address) as client,
    ):
        target = CHAT if kind == "openai" else "/claude/v1/messages"
        await client.send(post(target, STREAM))
        data = await client.read_to_end()
        [record] = await rig.wait_records(1)
    assert b'"code":"upstream_cut"' in data
    assert (b"event: error\n" in data) == (kind == "anthropic")
    assert b"0\r\n\r\n" not in data, "it looks complete"
    assert (record.outcome, record.code) == (Outcome.UPSTREAM_CUT, "upstream_cut")


@pytest.mark.parametrize(
    "answer",
    [
        b"content-type: text/event-stream\r\n\r\nC\r\ndata: {1}\n\nda\r\n",
        b"content-type: text/event-stream\r\ncontent-encoding: gzip\r\n\r\n4\r\n\x1f\x8b\n\n\r\n",
        b"content-type: application/json\r\n\r\n2\r\n\n\n\r\n",
    ],
)
async def test_nothing_is_added_to_a_cut_answer_where_it_would_not_be_understood(
    nursery: trio.Nursery, answer: bytes
) -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n"
    url = await raw_upstream(nursery, says(head + answer))
    async with open_rig(openai(url), nursery=nursery) as rig, connect(rig.address) as client:
        await client.send(post(CHAT))
        data = await client.read_to_end()
    assert b"upstream_cut" not in data
    assert b"0\r\n\r\n" not in data, "it looks complete"


async def test_an_answer_shorter_than_its_length_is_cut(nursery: trio.Nursery) -> None:
    url = await raw_upstream(nursery, says(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello"))
    async with open_rig(openai(url), nursery=nursery) as rig:
        with pytest.raises(UpstreamCut):
            await rig.ask(CHAT, {})
        [record] = await rig.wait_records(1)
    assert record.outcome is Outcome.UPSTREAM_CUT


async def test_an_upstream_that_falls_silent_is_cut_after_its_timeout(
    nursery: trio.Nursery,
) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
    start = head + b"\r\n9\r\ndata: 1\n\n\r\n"
    url = await raw_upstream(nursery, says(start, then=silence))
    settings = attrs.evolve(OPEN, upstream_limits=UpstreamLimits(read_timeout=0.05))
    async with (
        open_rig(openai(url), nursery=nursery, settings=settings) as rig,
        connect(rig.address) as client,
    ):
        await client.send(post(CHAT))
        data = await client.read_to_end()
        [record] = await rig.wait_records(1)
    assert b'"code":"upstream_timeout"' in data
    assert (record.outcome, record.code) == (Outcome.UPSTREAM_CUT, "upstream_timeout")


async def test_the_drain_deadline_of_a_replacement_ends_its_streams_visibly(
    nursery: trio.Nursery,
) -> None:
    north = await start_upstream(nursery)
    gate = Gate(north)
    settings = attrs.evolve(OPEN, drain_timeout=0.05)
    async with (
        open_rig(openai(north), nursery=nursery, settings=settings) as rig,
        connect(rig.address) as client,
    ):
        await client.send(post(CHAT, STREAM))
        await gate.reached.wait()
        await rig.replace()
        data = await client.read_to_end()
        assert b"0\r\n\r\n" not in data, "it looks complete"
        [record] = await rig.wait_records(1)
        assert record.outcome is Outcome.DRAIN_DEADLINE
        assert rig.gateway.pool.statistics().forced_closes == 1
        assert rig.gateway.pool.statistics().close_overruns == 0


async def test_the_drain_deadline_before_any_answer_is_a_503(nursery: trio.Nursery) -> None:
    url = await raw_upstream(nursery, says(b"", then=silence))
    settings = attrs.evolve(OPEN, drain_timeout=0.05)
    async with (
        open_rig(openai(url), nursery=nursery, settings=settings) as rig,
        connect(rig.address) as client,
    ):
        await client.send(post(CHAT))
        await rig.wait_requests(1)
        await rig.replace()
        data = await client.read_until(b"drain_deadline")
        assert data.startswith(b"HTTP/1.1 503 ")


async def test_bodies_of_many_megabytes_pass_both_ways_without_being_gathered(
    nursery: trio.Nursery,
) -> None:
    size, piece = 32 * 2**20, b"x" * 65536
    taken = 0

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal taken
        data = await read_head(stream)
        taken = len(data.partition(b"\r\n\r\n")[2])
        while taken < size:
            taken += len(await stream.receive_some())
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        for _ in range(size // len(piece)):
            await stream.send_all(piece)

    class Upload:
        left = size

        async def receive_some(self) -> bytes:
            await trio.lowlevel.checkpoint()
            data = piece[: min(len(piece), self.left)]
            self.left -= len(data)
            return data

    url = await raw_upstream(nursery, serve)
    async with (
        open_rig(openai(url), nursery=nursery) as rig,
        open_upstream_client(f"http://{rig.address}") as client,
    ):
        headers = ((b"content-length", b"%d" % size),)
        async with client.request(b"POST", CHAT.encode(), headers, Upload()) as response:
            received = 0
            while data := await response.receive_some():
                received += len(data)
        [record] = await rig.wait_records(1)
    assert (taken, received, record.bytes_sent) == (size, size, size)


async def test_a_client_that_does_not_read_holds_its_upstream_back(nursery: trio.Nursery) -> None:
    sent = 0
    stalled = trio.Event()

    async def pour(stream: trio.SocketStream) -> None:
        nonlocal sent
        await read_head(stream)
        await stream.send_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        try:
            while sent < 200 * 2**20:
                with trio.move_on_after(0.5) as waiting:
                    await stream.send_all(chunk)
                if waiting.cancelled_caught:
                    return
                sent += len(chunk)
        except trio.BrokenResourceError:
            pass
        finally:
            stalled.set()

    url = await raw_upstream(nursery, pour)
    async with open_rig(openai(url), nursery=nursery) as rig, connect(rig.address) as client:
        await client.send(post(CHAT))
        with trio.fail_after(60):
            await stalled.wait()
        assert sent < 100 * 2**20
