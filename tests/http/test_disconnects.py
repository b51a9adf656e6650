"""Clients that disconnect, at any point of an exchange."""

import pytest
import trio
import trio.testing

from bridgepool.http import Exchange, HttpLimits
from tests.http.support import GET, Waiting, echo, serving

POST = b"POST /x HTTP/1.1\r\nHost: h\r\n"


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


async def test_bytes_of_the_next_request_are_kept_and_not_taken_for_a_disconnect() -> None:
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


async def test_a_disconnect_during_the_request_body_cancels_the_handler() -> None:
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


async def test_a_disconnect_during_a_response_cancels_the_handler() -> None:
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


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_client_that_leaves_with_the_whole_response_does_not_cancel_the_handler(
    method: str,
) -> None:
    """Such as nginx, which closes when it has as much as the content-length says."""
    cancelled = True
    left, ended = trio.Event(), trio.Event()

    async def handler(exchange: Exchange) -> None:
        nonlocal cancelled
        try:
            async with exchange.respond(200, ((b"content-length", b"4"),)) as stream:
                await stream.send_all(b"body")
                await left.wait()
                await trio.testing.wait_all_tasks_blocked()
            cancelled = False
        finally:
            ended.set()

    async with serving(handler) as server:
        client = server.connect()
        await client.ask(GET.replace(b"GET", method.encode()), method)
        await client.stream.aclose()
        left.set()
        await ended.wait()
    assert not cancelled
    assert (server.counters.clients_left, server.counters.responses_cut) == (0, 0)


async def test_a_client_that_leaves_after_a_response_without_length_cancels_nothing() -> None:
    cancelled = True
    sent, left, ended = trio.Event(), trio.Event(), trio.Event()

    async def handler(exchange: Exchange) -> None:
        nonlocal cancelled
        try:
            async with exchange.respond(200) as stream:
                await stream.send_all(b"body")
            sent.set()
            await left.wait()
            await trio.testing.wait_all_tasks_blocked()
            cancelled = False
        finally:
            ended.set()

    async with serving(handler) as server:
        client = server.connect()
        await client.stream.send_all(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
        await sent.wait()
        await client.stream.aclose()
        left.set()
        await ended.wait()
    assert not cancelled


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


async def test_the_end_of_a_pipelining_clients_stream_is_a_disconnect() -> None:
    handler = Waiting()
    async with serving(handler) as server:
        client = server.connect()
        await client.send(GET + GET)
        assert isinstance(client.stream, trio.StapledStream)
        await client.stream.send_eof()
        assert await client.read_to_end() == b""
    assert server.counters.requests <= 1


async def test_half_closed_clients_get_responses_with_the_option_half_close() -> None:
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


async def test_with_half_close_a_disconnect_is_noticed_by_the_next_send() -> None:
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


async def test_a_half_closed_client_with_an_incomplete_body_gets_an_error() -> None:
    async with serving(echo, half_close=True) as server:
        client = server.connect()
        await client.send(POST + b"Content-Length: 10\r\n\r\nabc")
        assert isinstance(client.stream, trio.StapledStream)
        await client.stream.send_eof()
        assert (await client.answer()).status == 400


async def test_a_disconnect_after_the_response_does_not_cancel_the_handler() -> None:
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


async def test_a_handler_whose_cleanup_fails_while_cancelled_ends_only_its_connection(
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
