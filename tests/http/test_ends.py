"""How connections end: clients that leave or dawdle, and servers that close."""

import math
from functools import partial

import h11
import pytest
import trio
import trio.testing

from bridgepool.http import Exchange, GracefulClose, HttpLimits, serve_http
from bridgepool.http.h11server import H11ServerWire
from bridgepool.http.wire import ServerWire
from tests.http.support import GET, MemoryListener, RawClient, echo, serving

POST = b"POST /x HTTP/1.1\r\nHost: h\r\n"


class Waiting:
    """A handler that waits in silence until released, and notes how it ended."""

    def __init__(self) -> None:
        self.started = trio.Event()
        self.release = trio.Event()
        self.ended = trio.Event()
        self.cancelled = False

    async def __call__(self, exchange: Exchange) -> None:
        self.started.set()
        try:
            await self.release.wait()
            await exchange.answer(200, body=exchange.request.target)
        except trio.Cancelled:
            self.cancelled = True
            raise
        finally:
            self.ended.set()


# Clients that leave


async def test_a_client_that_leaves_cancels_a_handler_that_waits_on_something_silent() -> None:
    handler = Waiting()
    async with serving(handler) as server:
        client = server.connect()
        await client.send(GET)
        await handler.started.wait()
        await client.stream.aclose()
        await handler.ended.wait()
    assert handler.cancelled
    assert (server.counters.clients_left, server.counters.handler_errors) == (1, 0)


async def test_bytes_of_the_next_request_do_not_look_like_leaving_and_are_kept() -> None:
    handler = Waiting()
    async with serving(handler) as server:
        client = server.connect()
        await client.send(GET)
        await handler.started.wait()
        for byte in GET.replace(b"/ ", b"/next "):
            await client.send(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked()
        assert not handler.ended.is_set()
        handler.release.set()
        assert [(await client.answer()).body for _ in range(2)] == [b"/", b"/next"]


async def test_a_client_gone_in_the_middle_of_its_body_cancels_the_handler() -> None:
    async def handler(exchange: Exchange) -> None:
        try:
            await echo(exchange)
        except trio.Cancelled:
            ended.set()
            raise

    ended = trio.Event()
    async with serving(handler) as server:
        client = server.connect()
        await client.send(POST + b"Content-Length: 10\r\n\r\nabc")
        await trio.testing.wait_all_tasks_blocked()
        await client.stream.aclose()
        await ended.wait()
    assert (server.counters.clients_left, server.counters.handler_errors) == (1, 0)


async def test_a_client_gone_in_the_middle_of_a_response_cancels_the_handler() -> None:
    async def handler(exchange: Exchange) -> None:
        try:
            async with exchange.respond(200) as stream:
                while True:
                    await stream.send_all(b"x" * 100_000)
        except trio.Cancelled:
            ended.set()
            raise

    ended = trio.Event()
    async with serving(handler) as server:
        client = server.connect()
        await client.send(GET)
        await client.stream.receive_some()
        await client.stream.aclose()
        await ended.wait()
    assert (server.counters.clients_left, server.counters.handler_errors) == (1, 0)


async def test_a_shielded_handler_gets_an_error_instead_and_nothing_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(exchange: Exchange) -> None:
        with trio.CancelScope(shield=True):
            await release.wait()
            await exchange.answer(200)

    release = trio.Event()
    async with serving(handler) as server:
        client = server.connect()
        await client.send(GET)
        await client.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        release.set()
        await trio.testing.wait_all_tasks_blocked()
    assert (server.counters.clients_left, server.counters.handler_errors) == (1, 0)
    assert not caplog.records


async def test_the_end_of_a_pipelining_clients_stream_is_its_leaving() -> None:
    handler = Waiting()
    async with serving(handler) as server:
        client = server.connect()
        await client.send(GET + GET)
        assert isinstance(client.stream, trio.StapledStream)
        await client.stream.send_eof()
        assert await client.read_to_end() == b""
    assert server.counters.requests <= 1


async def test_half_closed_clients_are_answered_if_the_server_is_told_to() -> None:
    handler = Waiting()
    async with serving(handler, half_close=True) as server:
        client = server.connect()
        await client.send(GET + GET)
        assert isinstance(client.stream, trio.StapledStream)
        await client.stream.send_eof()
        await trio.testing.wait_all_tasks_blocked()
        handler.release.set()
        assert [(await client.answer()).status for _ in range(2)] == [200, 200]
        assert await client.read_to_end() == b""


async def test_where_clients_may_half_close_one_that_left_is_noticed_by_the_next_send() -> None:
    async def handler(exchange: Exchange) -> None:
        async with exchange.respond(200, data=b"x") as stream:
            await left.wait()
            try:
                await stream.send_all(b"y")
            except trio.Cancelled:
                cancelled.set()
                raise

    left, cancelled = trio.Event(), trio.Event()
    async with serving(handler, half_close=True) as server:
        client = server.connect()
        await client.send(GET)
        await client.stream.receive_some()
        await client.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        left.set()
        await cancelled.wait()
    assert (server.counters.clients_left, server.counters.handler_errors) == (1, 0)


async def test_a_client_is_watched_again_once_its_read_ahead_was_used() -> None:
    async def handler(exchange: Exchange) -> None:
        await full.wait()
        async for _ in exchange.body:
            pass
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    full, ended = trio.Event(), trio.Event()
    async with serving(handler, limits=HttpLimits(read_ahead_bytes=100)) as server:
        client = server.connect()
        await client.send(POST + b"Content-Length: 200\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        await client.send(b"x" * 200)
        await trio.testing.wait_all_tasks_blocked()
        full.set()
        await trio.testing.wait_all_tasks_blocked()
        await client.stream.aclose()
        await ended.wait()


async def test_a_half_closed_client_with_half_a_body_is_told_so() -> None:
    async with serving(echo, half_close=True) as server:
        client = server.connect()
        await client.send(POST + b"Content-Length: 10\r\n\r\nabc")
        assert isinstance(client.stream, trio.StapledStream)
        await client.stream.send_eof()
        assert (await client.answer()).status == 400


async def test_a_client_that_leaves_with_its_answer_leaves_the_handler_to_its_work() -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(200)
        await left.wait()
        await trio.testing.wait_all_tasks_blocked()
        done.set()

    left, done = trio.Event(), trio.Event()
    async with serving(handler) as server:
        client = server.connect()
        await client.ask()
        await client.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        left.set()
        await done.wait()
    assert (server.counters.clients_left, server.counters.responses_cut) == (0, 0)


async def test_a_handler_whose_clean_up_fails_while_it_is_cancelled_harms_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail_at_the_end() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError

    async def handler(exchange: Exchange) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_at_the_end)
            await trio.sleep_forever()

    async with serving(handler) as server:
        client, other = server.connect(), server.connect()
        await client.send(GET)
        await other.send(GET)
        await trio.testing.wait_all_tasks_blocked()
        await client.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert (server.counters.handler_errors, server.counters.clients_left) == (1, 1)
        server.graceful.begin(0)
        await server.done.wait()
    assert server.counters.handler_errors == 2
    assert [record.message for record in caplog.records] == ["handler failed"] * 2


# Clients that dawdle


async def test_a_head_that_comes_too_slowly_is_answered_with_408(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(echo, limits=HttpLimits(header_timeout=10)) as server:
        client = server.connect()
        async with trio.open_nursery() as nursery:

            async def drip() -> None:
                for byte in GET[:-1]:
                    await client.send(bytes([byte]))
                    await trio.sleep(1)

            nursery.start_soon(drip)
            assert (await client.answer()).status == 408
            assert 10 <= trio.current_time() < 12
            nursery.cancel_scope.cancel()


async def test_the_time_for_a_head_counts_from_its_first_byte_on_a_kept_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = HttpLimits(header_timeout=10, idle_timeout=100)
    async with serving(echo, limits=limits) as server:
        client = server.connect()
        assert (await client.ask()).status == 200
        await trio.sleep(50)
        await client.send(GET[:5])
        await trio.sleep(5)
        assert (await client.ask(GET[5:])).status == 200
        await client.send(GET[:5])
        assert (await client.answer()).status == 408


async def test_connections_that_stay_silent_are_closed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = HttpLimits(header_timeout=10, idle_timeout=100)
    async with serving(echo, limits=limits) as server:
        fresh, kept = server.connect(), server.connect()
        await kept.ask()
        assert await fresh.read_to_end() == b""
        assert 10 <= trio.current_time() < 12
        assert await kept.read_to_end() == b""
        assert 100 <= trio.current_time() < 102


async def test_a_body_that_stops_coming_is_answered_with_408(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(echo, limits=HttpLimits(body_timeout=20)) as server:
        client = server.connect()
        await client.send(POST + b"Content-Length: 10\r\n\r\nabc")
        await trio.sleep(15)
        await client.send(b"d")
        assert (await client.answer()).status == 408
        assert 35 <= trio.current_time() < 38


async def test_a_client_that_takes_nothing_is_left(autojump_clock: trio.testing.MockClock) -> None:
    async def handler(exchange: Exchange) -> None:
        async with exchange.respond(200) as stream:
            await stream.send_all(b"x")
            await trio.sleep(1000)
            await stream.send_all(b"y")

    near, far = trio.testing.lockstep_stream_pair()
    async with serving(handler, limits=HttpLimits(send_timeout=30)) as server:
        server.listener.accept_stream(far)
        await near.send_all(GET)
        assert await near.receive_some()
        assert await near.receive_some()
        await trio.sleep(1000)
        assert server.counters.clients_left == 0
        await trio.sleep(40)
        assert server.counters.clients_left == 1
        await near.aclose()


async def test_a_long_answer_to_a_slow_client_is_no_dawdling(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(200, body=b"x" * 2_000_000)

    near, far = trio.testing.lockstep_stream_pair()
    async with serving(handler, limits=HttpLimits(send_timeout=30)) as server:
        server.listener.accept_stream(far)
        await near.send_all(GET)
        received = 0
        while received < 2_000_000:
            received += len(await near.receive_some(200_000))
            await trio.sleep(10)


# Servers that close


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
        await begun.send(GET[:10])
        await trio.testing.wait_all_tasks_blocked()
        server.graceful.begin(60)
        assert (await fresh.ask()).headers[b"connection"] == b"close"
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


async def test_a_second_demand_can_only_shorten_and_zero_cuts_at_once() -> None:
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


async def test_another_wire_can_take_the_place_of_the_usual_one() -> None:
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
