"""Handlers that fail, and what their clients get."""

import logging
from contextlib import AbstractAsyncContextManager
from functools import partial

import h11
import pytest
import trio
import trio.testing

from bridgepool.http import Exchange, LocalProtocolError, ResponseStream, UpstreamTimeout
from tests.http.support import GET, RawClient, cancelled_at, echo, serving

POST = b"POST /x HTTP/1.1\r\nHost: h\r\n"
EXPECT = POST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"


async def test_a_handler_that_raises_is_logged_and_counted_and_its_client_gets_a_status(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(exchange: Exchange) -> None:
        if exchange.request.target == b"/bad":
            raise ValueError("the secret reason")
        if exchange.request.target == b"/slow":
            raise UpstreamTimeout("hm")
        if exchange.request.target == b"/nothing":
            return
        await exchange.answer(200, ((b"content-type", b"text/plain"),), b"hello")

    with caplog.at_level(logging.ERROR):
        async with serving(handler) as server:
            client = server.connect()
            for target, status in ((b"bad", 500), (b"slow", 504), (b"nothing", 500), (b"", 200)):
                answer = await client.ask(GET.replace(b"/", b"/" + target, 1))
                assert answer.status == status
                assert b"secret" not in answer.body
    assert server.counters.handler_errors == 3
    assert [record.message for record in caplog.records] == ["handler failed"] * 3
    assert "target" not in vars(caplog.records[0])  # there may be a key in it


@pytest.mark.parametrize("headers", [(), ((b"content-length", b"9"),)])
async def test_an_exception_in_a_response_cuts_it_where_the_client_can_see(
    headers: tuple[tuple[bytes, bytes], ...],
) -> None:
    async def handler(exchange: Exchange) -> None:
        async with exchange.respond(200, headers, data=b"part") as stream:
            await stream.send_all(b"part")
            raise ValueError

    async with serving(handler) as server:
        with pytest.raises(h11.RemoteProtocolError):
            await server.connect().ask()
    assert (server.counters.handler_errors, server.counters.responses_cut) == (1, 1)


async def test_a_response_that_does_not_match_its_content_length_is_cut() -> None:
    async def handler(exchange: Exchange) -> None:
        async with exchange.respond(200, ((b"content-length", b"9"),), data=b"too") as stream:
            await stream.send_all(b" short")
            with pytest.raises(LocalProtocolError, match="longer"):
                await stream.send_all(b"er than that")
            if exchange.request.target == b"/short":
                return
            stream.trailers = ((b"bad name", b""),)

    async def short(exchange: Exchange) -> None:
        async with exchange.respond(200, ((b"content-length", b"9"),)) as stream:
            await stream.send_all(b"short")

    async with serving(handler) as server:
        assert (await server.connect().ask()).body == b"too short"
    async with serving(short) as server:
        with pytest.raises(h11.RemoteProtocolError):
            await server.connect().ask()
    assert server.counters.handler_errors == 1


async def test_a_bad_response_head_sends_nothing_and_another_may_follow() -> None:
    async def handler(exchange: Exchange) -> None:
        with pytest.raises(LocalProtocolError):
            await exchange.answer(200, ((b"x", b"a\r\nb: c"),))
        with pytest.raises(LocalProtocolError):
            await exchange.answer(99)
        assert not exchange.response_started
        await exchange.answer(200, body=b"fine")
        with pytest.raises(LocalProtocolError):
            await exchange.answer(200)

    async with serving(handler) as server:
        assert (await server.connect().ask()).body == b"fine"
    assert server.counters.handler_errors == 0


async def test_a_handler_that_cancels_a_read_loses_nothing_of_the_body() -> None:
    async def handler(exchange: Exchange) -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await exchange.body.receive_some()
        assert scope.cancelled_caught
        await echo(exchange)

    async with serving(handler) as server:
        assert (await server.connect().ask(POST + b"Content-Length: 3\r\n\r\nabc")).body == b"abc"


async def test_only_one_task_at_a_time_can_wait_for_the_body() -> None:
    async def handler(exchange: Exchange) -> None:
        async def read() -> None:
            await exchange.body.receive_some()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await read()
            ready.set()
        await exchange.answer(200)

    ready = trio.Event()
    async with serving(handler) as server:
        client = server.connect()
        await client.send(POST + b"Content-Length: 3\r\n\r\n")
        await ready.wait()
        assert (await client.ask(b"abc")).status == 200


async def test_bodies_can_go_both_ways_at_once_and_100_continue_does_not_get_between() -> None:
    async def handler(exchange: Exchange) -> None:
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                async for piece in exchange.body:
                    got.append(piece)

            nursery.start_soon(read)
            async with exchange.respond(200, data=b"a") as stream:
                await stream.send_all(b"b")

    got: list[bytes] = []
    async with serving(handler) as server:
        for raw in (POST + b"Content-Length: 5\r\n\r\n", EXPECT):
            client = server.connect()
            await client.send(raw + b"hello")
            assert (await client.answer()).body == b"ab"
    assert got == [b"hello", b"hello"]


async def test_wherever_a_handler_is_cancelled_its_client_is_answered_or_sees_a_cut(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The handler's own scope is cancelled at its n-th wait, for each n; it swallows that."""
    step, reached = 0, True
    outcomes: set[str] = set()

    async def whole(exchange: Exchange) -> None:
        await exchange.inform(103)
        body = b"".join([piece async for piece in exchange.body])
        async with exchange.respond(200) as stream:
            await stream.send_all(body)
            await trio.lowlevel.checkpoint()
            stream.trailers = ((b"x-t", b"1"),)

    async def handler(exchange: Exchange) -> None:
        nonlocal reached
        with trio.CancelScope() as scope:
            reached = await cancelled_at(step, scope, whole(exchange))

    request = POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
    async with serving(handler) as server:
        while reached:
            step, reached = step + 1, True
            client = server.connect()
            await client.send(request)
            await trio.testing.wait_all_tasks_blocked()
            try:
                answer = await client.ask(b"0\r\n\r\n")
            except (h11.RemoteProtocolError, trio.BrokenResourceError):
                outcomes.add("cut")
            else:
                assert answer.status == 500 or answer.body == b"abc"
                outcomes.add(str(answer.status))
        assert (await server.connect().ask(request + b"0\r\n\r\n")).status == 200
    assert step > 6
    assert {record.message for record in caplog.records} == {"handler failed"}
    assert outcomes == {"200", "500", "cut"}


async def test_only_one_task_at_a_time_can_send() -> None:
    async def handler(exchange: Exchange) -> None:
        async with exchange.respond(200) as stream, trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, b"abc")
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await stream.send_all(b"def")
            busy.set()

    busy = trio.Event()
    near, far = trio.testing.lockstep_stream_pair()
    async with serving(handler) as server:
        server.listener.accept_stream(far)
        await near.send_all(GET)
        client = RawClient(near)
        await client.read_until(b"\r\n\r\n")
        await busy.wait()
        await client.read_until(b"abc\r\n0\r\n\r\n")
        await near.aclose()


async def test_after_a_cancelled_send_nothing_more_is_sent_and_the_response_is_cut() -> None:
    """What part of it had gone out is not known: more bytes would be taken for its rest."""

    async def handler(exchange: Exchange) -> None:
        async with exchange.respond(200) as stream:
            with trio.CancelScope() as scope:
                scope.cancel()
                await stream.send_all(b"given up")
            assert scope.cancelled_caught
            with pytest.raises(trio.BrokenResourceError):
                await stream.send_all(b"too late")

    async with serving(handler) as server:
        client = server.connect()
        await client.send(GET)
        rest = await client.read_to_end()
        assert b"too late" not in rest
        assert not rest.endswith(b"0\r\n\r\n")
    assert server.counters.responses_cut == 1


async def test_a_task_left_over_cannot_touch_the_next_request_of_the_connection() -> None:
    """It would read that one's body, respond to it, or cut it; it may be another user's."""
    kept: list[Exchange] = []

    async def handler(exchange: Exchange) -> None:
        kept.append(exchange)
        if len(kept) == 1:
            async with exchange.respond(200) as stream:
                streams.append(stream)
            return
        first = kept[0]
        for use in (first.body.receive_some, partial(streams[0].send_all, b"x")):
            with pytest.raises(trio.ClosedResourceError, match="its handler has ended"):
                await use()
        with pytest.raises(trio.ClosedResourceError, match="its handler has ended"):
            first.body.take_buffered()
        for respond in (
            partial(first.answer, 200, body=b"injected"),
            partial(first.inform, 103),
            partial(first.upgrade, ((b"upgrade", b"x"),)),
        ):
            with pytest.raises(LocalProtocolError, match="was begun already"):
                await respond()
        with pytest.raises(LocalProtocolError, match="was begun already"):
            first.respond(200)
        assert first.response_started
        assert not first.disconnected
        first.authenticated()
        first.cancel()
        await trio.lowlevel.checkpoint()
        await exchange.answer(200, body=b"".join([piece async for piece in exchange.body]))

    streams: list[ResponseStream] = []
    async with serving(handler) as server:
        client = server.connect()
        # Its body is not read; the server discards it.
        assert (await client.ask(POST + b"Content-Length: 5\r\n\r\nfirst", "POST")).status == 200
        answer = await client.ask(POST + b"Content-Length: 6\r\n\r\nsecond", "POST")
        assert answer.body == b"second"
    assert server.counters.handler_errors == 0


async def test_a_response_that_goes_on_after_its_handler_is_not_continued() -> None:
    """Not even one whose block was entered, but not left, when the handler ended."""
    kept: list[AbstractAsyncContextManager[ResponseStream]] = []

    async def handler(exchange: Exchange) -> None:
        kept.append(exchange.respond(200))
        await kept[0].__aenter__()

    async with serving(handler) as server:
        client = server.connect()
        with pytest.raises(h11.RemoteProtocolError):
            await client.ask()
    with pytest.raises(trio.ClosedResourceError, match="its handler has ended"):
        await kept[0].__aexit__(None, None, None)
