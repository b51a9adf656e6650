"""Servers that close, gracefully or at once."""

import math
from functools import partial

import h11
import pytest
import trio
import trio.testing

from bridgepool.http import Exchange, GracefulClose, HttpLimits, ServerWire, serve_http
from bridgepool.http._h11_wires import H11ServerWire
from tests.http.support import GET, MemoryListener, RawClient, Waiting, echo, serving

POST = b"POST /x HTTP/1.1\r\nHost: h\r\n"


async def test_a_graceful_close_lets_exchanges_finish_and_closes_the_rest() -> None:
    handler = Waiting()
    async with serving(handler) as server:
        idle, busy = server.connect(), server.connect()
        handler.release.set()
        await idle.ask()
        handler.release = trio.Event()
        handler.started = trio.Event()
        await busy.send(GET)
        await handler.started.wait()
        server.graceful.begin(math.inf)
        assert server.graceful.begun
        assert await idle.read_to_end() == b""
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BrokenResourceError):
            server.connect()
        assert not server.done.is_set()
        handler.release.set()
        answer = await busy.answer()
        assert (answer.status, answer.headers[b"connection"]) == (200, b"close")
        await server.done.wait()


async def test_an_announced_close_serves_on_and_ends_each_connection_with_its_next_response() -> (
    None
):
    async with serving(echo) as server:
        idle = server.connect()
        await idle.ask()
        server.graceful.announce()
        assert not server.graceful.begun
        await trio.testing.wait_all_tasks_blocked()
        assert (await idle.ask()).headers[b"connection"] == b"close"
        assert await idle.read_to_end() == b""
        late = server.connect()
        assert (await late.ask()).headers[b"connection"] == b"close"
        assert await late.read_to_end() == b""
        server.graceful.begin(math.inf)
        await server.done.wait()


async def test_a_response_that_had_begun_when_the_close_began_is_finished_and_the_last() -> None:
    async def handler(exchange: Exchange) -> None:
        async with exchange.respond(200, data=b"a") as stream:
            begun.set()
            await release.wait()
            await stream.send_all(b"b")

    begun, release = trio.Event(), trio.Event()
    async with serving(handler) as server:
        client = server.connect()
        await client.send(GET)
        await begun.wait()
        server.graceful.begin(math.inf)
        await trio.testing.wait_all_tasks_blocked()
        release.set()
        assert (await client.answer()).body == b"ab"
        assert await client.read_to_end() == b""
        await server.done.wait()


async def test_a_request_that_is_on_its_way_when_the_close_begins_is_served(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(echo) as server:
        begun, fresh, silent = server.connect(), server.connect(), server.connect()
        kept = server.connect()
        await kept.ask()
        await begun.send(GET[:10])
        await trio.testing.wait_all_tasks_blocked()
        server.graceful.begin(60)
        assert (await fresh.ask()).headers[b"connection"] == b"close"
        assert (await kept.ask()).headers[b"connection"] == b"close"
        assert (await begun.ask(GET[10:])).headers[b"connection"] == b"close"
        assert await silent.read_to_end() == b""
        await server.done.wait()
        assert trio.current_time() < 5


async def test_what_runs_past_the_deadline_is_cut(autojump_clock: trio.testing.MockClock) -> None:
    async def handler(exchange: Exchange) -> None:
        async with exchange.respond(200, data=b"part"):
            await trio.sleep_forever()

    async with serving(handler) as server:
        client = server.connect()
        await client.send(GET)
        await trio.testing.wait_all_tasks_blocked()
        server.graceful.begin(30)
        with pytest.raises(h11.RemoteProtocolError):
            await client.answer()
        await server.done.wait()
        assert trio.current_time() == 30
    assert (server.counters.responses_cut, server.counters.clients_left) == (1, 0)


async def test_a_second_begin_can_only_shorten_the_time_and_zero_cuts_at_once() -> None:
    handler = Waiting()
    async with serving(handler) as server:
        client = server.connect()
        await client.send(GET)
        await handler.started.wait()
        server.graceful.begin(100)
        server.graceful.begin(math.inf)
        await trio.testing.wait_all_tasks_blocked()
        assert not handler.ended.is_set()
        server.graceful.begin(0)
        await server.done.wait()
    assert handler.cancelled


async def test_a_server_that_is_started_after_the_close_began_ends() -> None:
    graceful = GracefulClose()
    graceful.begin(math.inf)
    listener = MemoryListener()
    await serve_http(echo, [listener], graceful=graceful)
    with pytest.raises(trio.BrokenResourceError):
        listener.connect()


async def test_another_wire_can_replace_the_default_one() -> None:
    def new_wire(limits: HttpLimits) -> ServerWire:
        made.append(H11ServerWire(limits))
        return made[-1]

    made: list[ServerWire] = []
    listener, graceful = MemoryListener(), GracefulClose()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(serve_http, echo, [listener], graceful=graceful, new_wire=new_wire)
        )
        assert (await listener.connect().ask()).status == 200
        graceful.begin(0)
    assert len(made) == 1


async def test_cancelling_the_server_cuts_everything_and_leaves_no_task() -> None:
    handler = Waiting()
    before = trio.lowlevel.current_statistics().tasks_living
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:

        async def serve(
            task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED,
        ) -> None:
            await serve_http(handler, [listener], task_status=task_status)

        await nursery.start(serve)
        clients = [listener.connect() for _ in range(5)]
        for client in clients:
            await client.send(GET)
        await handler.started.wait()
        nursery.cancel_scope.cancel()
    assert trio.lowlevel.current_statistics().tasks_living == before
    for client in clients:
        assert await RawClient(client.stream).read_to_end() == b""


async def test_an_exchange_that_another_task_cancels_is_cut_where_the_client_can_see() -> None:
    exchanges: list[Exchange] = []

    async def handler(exchange: Exchange) -> None:
        async with exchange.respond(200, data=b"begun"):
            exchanges.append(exchange)
            await trio.sleep_forever()

    async with serving(handler) as server:
        client = server.connect()
        await client.send(GET)
        await trio.testing.wait_all_tasks_blocked()
        exchanges[0].cancel()
        data = await client.read_to_end()
        assert b"begun" in data
        assert not data.endswith(b"0\r\n\r\n"), "it looks complete"


@pytest.mark.parametrize("within", [-1, math.nan])
async def test_a_time_to_close_that_is_no_time_is_refused(within: float) -> None:
    graceful = GracefulClose()
    with pytest.raises(ValueError, match="within must be 0 or more seconds"):
        graceful.begin(within)
    assert not graceful.begun
