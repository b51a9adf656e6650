"""What a handler sees and what its client gets."""

import logging

import h11
import pytest
import trio
import trio.testing

from bridgepool.http import Exchange, Handler, HttpLimits
from bridgepool.http.errors import LocalProtocolError, UpstreamTimeout
from tests.http.support import GET, RawClient, cancelled_at, echo, serving

POST = b"POST /x HTTP/1.1\r\nHost: h\r\n"


async def hello(exchange: Exchange) -> None:
    await exchange.answer(200, ((b"content-type", b"text/plain"),), b"hello")


async def stream_hello(exchange: Exchange) -> None:
    async with exchange.respond(200, data=b"hel") as stream:
        await stream.send_all(b"")
        await stream.send_all(b"lo")


async def test_a_request_is_handed_over_and_answered() -> None:
    seen: list[Exchange] = []

    async def handler(exchange: Exchange) -> None:
        seen.append(exchange)
        assert not exchange.response_started
        await exchange.answer(201, ((b"x-a", b"1"),), b"body")
        assert exchange.response_started

    async with serving(handler) as server:
        answer = await server.connect().ask(b"PUT /a?b=c HTTP/1.1\r\nHost: h\r\nX-Y: z\r\n\r\n")
    assert (answer.status, answer.body) == (201, b"body")
    assert answer.headers.keys() == {b"x-a", b"content-length", b"date"}
    request = seen[0].request
    assert (request.method, request.target, request.http_version) == (b"PUT", b"/a?b=c", b"1.1")
    assert request.headers == ((b"host", b"h"), (b"x-y", b"z"))
    assert (seen[0].client, seen[0].scheme) == ("", "http")


async def test_bodies_and_trailers_go_both_ways_in_chunks() -> None:
    chunks = b"3\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\n\r\n"
    async with serving(echo) as server:
        client = server.connect()
        for _ in range(2):
            answer = await client.ask(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
            assert (answer.body, answer.trailers) == (b"abcde", {b"x-t": b"1"})


async def test_a_body_of_known_length_is_streamed_in_pieces() -> None:
    pieces: list[bytes] = []

    async def handler(exchange: Exchange) -> None:
        while piece := await exchange.body.receive_some():
            pieces.append(piece)
            got.set()
        assert await exchange.body.receive_some() == b""
        await exchange.answer(200)

    got = trio.Event()
    async with serving(handler) as server:
        client = server.connect()
        await client.send(POST + b"Content-Length: 6\r\n\r\nabc")
        await got.wait()
        assert (await client.ask(b"def")).status == 200
    assert pieces == [b"abc", b"def"]


@pytest.mark.parametrize("handler", [hello, stream_hello])
async def test_head_is_answered_like_get_without_the_body(handler: Handler) -> None:
    async with serving(handler) as server:
        client = server.connect()
        full = await client.ask()
        answer = await client.ask(GET.replace(b"GET", b"HEAD"), "HEAD")
        assert answer.body == b""
        assert answer.headers.get(b"content-length") == full.headers.get(b"content-length")
        assert (await client.ask()).body == b"hello"


@pytest.mark.parametrize("status", [204, 304])
async def test_responses_that_have_no_body_have_none_whatever_the_handler_says(status: int) -> None:
    async def handler(exchange: Exchange) -> None:
        headers = ((b"content-length", b"5"),)
        async with exchange.respond(status, headers, data=b"hello") as stream:
            await stream.send_all(b"more")

    async with serving(handler) as server:
        client = server.connect()
        answer = await client.ask()
        assert (answer.status, answer.body) == (status, b"")
        assert (b"content-length" in answer.headers) is (status == 304)
        assert b"transfer-encoding" not in answer.headers
        assert (await client.ask()).status == status


async def test_a_client_of_http_1_0_gets_a_body_that_the_end_of_the_connection_ends() -> None:
    async with serving(stream_hello) as server:
        client = server.connect()
        await client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        head, body = (await client.read_to_end()).split(b"\r\n\r\n")
        assert body == b"hello"
        assert b"chunked" not in head
        assert b"connection: close" in head


async def test_a_client_of_http_1_0_keeps_its_connection_if_it_asks_and_the_length_is_known() -> (
    None
):
    async with serving(hello) as server:
        client = server.connect()
        for _ in range(2):
            answer = await client.ask(b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
            assert answer.headers[b"connection"] == b"keep-alive"
        answer = await client.ask(b"GET / HTTP/1.0\r\n\r\n")
        assert answer.headers[b"connection"] == b"close"
        assert await client.read_to_end() == b""


async def test_connection_close_is_kept_to_by_either_side() -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(200, ((b"connection", b"close"),))

    for serve, raw in ((hello, GET[:-2] + b"Connection: x, Close\r\n\r\n"), (handler, GET)):
        async with serving(serve) as server:
            client = server.connect()
            assert (await client.ask(raw)).headers[b"connection"] == b"close"
            assert await client.read_to_end() == b""


async def test_pipelined_requests_are_answered_in_their_order_one_at_a_time() -> None:
    running = 0

    async def handler(exchange: Exchange) -> None:
        nonlocal running
        running += 1
        assert running == 1
        await trio.testing.wait_all_tasks_blocked()
        await exchange.answer(200, body=exchange.request.target)
        running -= 1

    async with serving(handler) as server:
        client = server.connect()
        await client.send(b"".join(GET.replace(b"/ ", b"/%d " % n) for n in range(20)))
        assert [(await client.answer()).body for _ in range(20)] == [b"/%d" % n for n in range(20)]


async def test_an_absolute_target_names_its_own_host() -> None:
    async def handler(exchange: Exchange) -> None:
        assert exchange.request.headers == ((b"host", b"real:1"), (b"x", b"y"))
        await exchange.answer(200, body=exchange.request.target)

    async with serving(handler) as server:
        client = server.connect()
        raw = b"GET http://real:1%b HTTP/1.1\r\nHost: other\r\nX: y\r\n\r\n"
        for sent, seen in ((b"/a?b", b"/a?b"), (b"", b"/"), (b"?q", b"/?q")):
            assert (await client.ask(raw % sent)).body == seen


async def test_interim_responses_come_before_the_final_one() -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.inform(103, ((b"link", b"</a>"),))
        await exchange.answer(200)
        with pytest.raises(LocalProtocolError):
            await exchange.inform(103)

    async with serving(handler) as server:
        client = server.connect()
        await client.send(GET)
        interim = await client.read_until(b"\r\n\r\n")
        assert interim == b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
        assert (await client.answer()).status == 200
        assert (await client.ask(b"GET / HTTP/1.0\r\n\r\n")).status == 200


EXPECT = POST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"


async def test_a_client_that_expects_to_be_asked_is_asked_when_the_handler_reads() -> None:
    async def handler(exchange: Exchange) -> None:
        may_read.set()
        await read.wait()
        await echo(exchange)

    may_read, read = trio.Event(), trio.Event()
    async with serving(handler) as server:
        client = server.connect()
        await client.send(EXPECT)
        await may_read.wait()
        await trio.testing.wait_all_tasks_blocked()
        read.set()
        assert await client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert (await client.ask(b"hello")).body == b"hello"
        await client.send(EXPECT + b"world")  # it did not wait, and need not be asked
        assert (await client.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_an_answer_without_reading_spares_the_client_its_body_and_ends_the_connection() -> (
    None
):
    async with serving(hello) as server:
        client = server.connect()
        answer = await client.ask(EXPECT)
        assert (answer.status, answer.headers[b"connection"]) == (200, b"close")
        assert await client.read_to_end() == b""


async def test_a_body_that_was_not_read_is_discarded_and_the_next_request_served() -> None:
    async with serving(hello) as server:
        client = server.connect()
        await client.send(POST + b"Content-Length: 5\r\n\r\nhe")
        assert (await client.answer()).status == 200
        await client.send(
            b"llo" + POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        )
        assert (await client.answer()).status == 200
        assert (await client.ask()).status == 200


async def test_a_large_body_that_was_not_read_ends_the_connection_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(hello, limits=HttpLimits(read_ahead_bytes=1000)) as server:
        client = server.connect()
        await client.send(POST + b"Content-Length: 100000\r\n\r\n" + b"x" * 50_000)
        assert (await client.answer()).status == 200
        assert await client.read_to_end() == b""
        assert trio.current_time() < 1


async def test_a_handler_that_does_not_read_holds_its_client_back() -> None:
    near, far = trio.testing.lockstep_stream_pair()
    sent = 0

    async def handler(exchange: Exchange) -> None:
        await go_on.wait()
        await echo(exchange)

    async def upload() -> None:
        nonlocal sent
        await near.send_all(POST + b"Content-Length: 1000000\r\n\r\n")
        for _ in range(100):
            await near.send_all(b"x" * 10_000)
            sent += 1

    go_on = trio.Event()
    async with serving(handler, limits=HttpLimits(read_ahead_bytes=30_000)) as server:
        server.listener.accept_stream(far)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(upload)
            await trio.testing.wait_all_tasks_blocked()
            assert 3 <= sent <= 4
            go_on.set()
            assert len((await RawClient(near).answer()).body) == 1_000_000
    assert sent == 100


async def test_a_client_that_does_not_read_holds_its_handler_back() -> None:
    near, far = trio.testing.lockstep_stream_pair()
    sent = 0

    async def handler(exchange: Exchange) -> None:
        nonlocal sent
        async with exchange.respond(200) as stream:
            for _ in range(10):
                await stream.send_all(b"x" * 10)
                sent += 1

    async with serving(handler) as server:
        server.listener.accept_stream(far)
        await near.send_all(GET)
        await near.receive_some()
        await trio.testing.wait_all_tasks_blocked()
        assert sent <= 1
        rest = await RawClient(near).read_until(b"0\r\n\r\n")
        assert rest.count(b"x") >= 90
    assert sent == 10


# What handlers do wrong


async def test_a_handler_that_raises_is_logged_and_counted_and_its_client_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(exchange: Exchange) -> None:
        if exchange.request.target == b"/bad":
            raise ValueError("the secret reason")
        if exchange.request.target == b"/slow":
            raise UpstreamTimeout("hm")
        if exchange.request.target == b"/nothing":
            return
        await hello(exchange)

    with caplog.at_level(logging.ERROR):
        async with serving(handler) as server:
            client = server.connect()
            for target, status in ((b"bad", 500), (b"slow", 504), (b"nothing", 500), (b"", 200)):
                answer = await client.ask(GET.replace(b"/", b"/" + target, 1))
                assert answer.status == status
                assert b"secret" not in answer.body
    assert server.counters.handler_errors == 3
    assert [record.message for record in caplog.records] == ["handler failed"] * 3


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


async def test_a_message_that_breaks_its_own_promises_is_cut() -> None:
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


async def test_a_handler_that_gives_up_a_read_loses_nothing_of_the_body() -> None:
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


async def test_bodies_can_go_both_ways_at_once_and_the_question_for_one_does_not_get_between() -> (
    None
):
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


async def test_after_a_send_that_was_given_up_nothing_more_is_sent_and_the_response_is_cut() -> (
    None
):
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
