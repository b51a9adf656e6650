"""What a handler sees and what its client gets."""

import pytest
import trio
import trio.testing

from bridgepool.http import Exchange, Handler, HttpLimits, LocalProtocolError
from tests.http.support import GET, RawClient, echo, serving

POST = b"POST /x HTTP/1.1\r\nHost: h\r\n"


async def hello(exchange: Exchange) -> None:
    await exchange.answer(200, ((b"content-type", b"text/plain"),), b"hello")


async def stream_hello(exchange: Exchange) -> None:
    async with exchange.respond(200, data=b"hel") as stream:
        await stream.send_all(b"")
        await stream.send_all(b"lo")


async def test_a_request_reaches_the_handler_and_its_response_the_client() -> None:
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


async def test_what_was_received_of_a_body_can_be_taken_without_waiting() -> None:
    async def handler(exchange: Exchange) -> None:
        body = exchange.body
        with trio.testing.assert_no_checkpoints():
            taken = [body.take_buffered(), body.take_buffered()]
        taken.append(await body.receive_some())
        with trio.testing.assert_no_checkpoints():
            taken.append(body.take_buffered())
        await exchange.answer(200, (), b"|".join(taken))

    five = POST + b"Content-Length: 5\r\n\r\n"
    chunks = POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n"
    async with serving(handler) as server:
        client = server.connect()
        assert (await client.ask(GET)).body == b"|||"
        assert (await client.ask(five + b"hello")).body == b"hello|||"  # its end with it
        await client.send(five + b"hel")
        await trio.testing.wait_all_tasks_blocked()
        assert (await client.ask(b"lo")).body == b"hel||lo|"
        await client.send(chunks)
        await trio.testing.wait_all_tasks_blocked()
        assert (await client.ask(b"0\r\n\r\n")).body == b"hello|||"
        await client.send(EXPECT)
        assert await client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert (await client.ask(b"hello")).body == b"||hello|"  # taking asked for nothing
        assert (await client.ask(chunks.replace(b"\n2", b"\nx"))).status == 400


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


async def test_100_continue_is_sent_when_the_handler_reads() -> None:
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


async def test_a_response_without_reading_sends_no_100_continue_and_ends_the_connection() -> None:
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


async def test_a_handler_that_does_not_read_applies_back_pressure_to_its_client() -> None:
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


async def test_a_client_that_does_not_read_applies_back_pressure_to_its_handler() -> None:
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
