"""Request bodies: how they are framed, sent, stopped and refused."""

import pytest
import trio
from trio.testing import lockstep_stream_pair, wait_all_tasks_blocked

from bridgepool.http import LocalProtocolError, UpstreamCut, UpstreamLimits
from tests.http_client.support import OK, Peer, Pieces, answer_all, client_of, read_all


async def test_a_body_of_unknown_length_is_sent_in_chunks_with_its_trailers() -> None:
    async def script(peer: Peer) -> None:
        head = await peer.read_head()
        assert b"transfer-encoding: chunked\r\n" in head
        assert await peer.read_until(b"0\r\nx-sum: 3\r\n\r\n") == (
            b"1\r\na\r\n2\r\nbc\r\n0\r\nx-sum: 3\r\n\r\n"
        )
        await peer.send(OK)

    body = Pieces(b"a", b"bc")
    body.trailers = ((b"x-sum", b"3"), (b"authorization", b"not here"))
    async with client_of(script) as (client, _):
        async with client.request(b"POST", b"/", (), body) as response:
            assert await response.receive_some() == b"ok"
        assert client.statistics().idle == 0  # simple servers do not read chunks


async def test_a_short_body_of_known_length_is_sent_together_with_the_head() -> None:
    sent: list[bytes] = []

    async def script(peer: Peer) -> None:
        sent.append(bytes(await peer.stream.receive_some()))
        await peer.send(OK)

    async with client_of(script) as (client, _):
        headers = ((b"content-length", b"3"),)
        async with client.request(b"POST", b"/", headers, Pieces(b"a", b"bc")) as response:
            assert await response.receive_some() == b"ok"
    assert sent[0].endswith(b"\r\n\r\nabc")


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
async def test_a_long_body_of_known_length_is_streamed(kind: str) -> None:
    length = 1_000_000

    async def script(peer: Peer) -> None:
        head = await peer.read_head()
        assert b"content-length: 1000000\r\n" in head
        assert await peer.read_exactly(length) == b"x" * length
        await peer.send(OK)

    pieces = Pieces(*[b"x" * 100_000] * 10)
    async with client_of(script) as (client, _):
        headers = () if kind == "bytes" else ((b"content-length", b"1000000"),)
        body = b"x" * length if kind == "bytes" else pieces
        async with client.request(b"PUT", b"/", headers, body) as response:
            assert await response.receive_some() == b"ok"
        assert client.statistics().idle == 1


async def test_the_user_is_called_when_all_of_a_request_was_sent() -> None:
    sent: list[str] = []

    async def script(peer: Peer) -> None:
        await peer.read_head()
        sent.append("the head")
        await peer.read_exactly(100_000)
        await peer.send(OK)
        await answer_all(peer)

    def note() -> None:
        sent.append("all of it")

    async with client_of(script) as (client, _):
        body = Pieces(b"x" * 50_000, b"x" * 50_000)
        headers = ((b"content-length", b"100000"),)
        request = client.request(b"PUT", b"/", headers, body, on_sent=note)
        async with request as response:
            assert await response.receive_some() == b"ok"
        assert sent == ["the head", "all of it"]
        async with client.request(b"POST", b"/", (), b"short", on_sent=note):
            assert sent.count("all of it") == 2


async def test_answer_and_body_may_flow_at_the_same_time() -> None:
    """An upstream that echoes while the request is still being sent."""

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while await peer.read_until(b"\r\n") != b"0\r\n":
            piece = await peer.read_until(b"\r\n")
            await peer.send(b"%x\r\n%b\r\n" % (len(piece) - 2, piece[:-2]))
        await peer.send(b"0\r\n\r\n")

    send, receive = trio.testing.memory_stream_one_way_pair()
    async with client_of(script) as (client, _):
        async with client.request(b"POST", b"/", (), receive) as response:
            for word in (b"ping", b"pong"):
                await send.send_all(word)
                assert await response.receive_some() == word
            await send.aclose()
            assert await response.receive_some() == b""
        assert client.statistics().idle == 0  # the answer came before the end of the request


@pytest.mark.parametrize("early", [False, True])
async def test_after_an_answer_to_a_request_that_was_not_yet_sent_the_connection_is_closed(
    early: bool,
) -> None:
    """The upstream may have answered without reading the rest, and take it for a request."""

    async def script(peer: Peer) -> None:
        await peer.read_head()
        if early:
            await peer.send(OK[:-2])
        await peer.read_exactly(100_000)
        await peer.send(OK[-2:] if early else OK)
        await peer.wait_closed()

    send, receive = trio.testing.memory_stream_one_way_pair()
    length = ((b"content-length", b"100000"),)
    async with client_of(script) as (client, _), trio.open_nursery() as nursery:

        async def upload() -> None:
            await send.send_all(b"x" * 50_000)
            if early:
                await answered.wait()
            await send.send_all(b"x" * 50_000)
            await send.aclose()

        answered = trio.Event()
        nursery.start_soon(upload)
        async with client.request(b"POST", b"/", length, receive) as response:
            answered.set()
            body = b""
            while not response.ended:
                body += await response.receive_some()
            assert body == b"ok"
        assert client.statistics().idle == (0 if early else 1)


class Endless:
    """A body without end that counts its pieces and its readers."""

    def __init__(self) -> None:
        self.given = 0
        self.readers = 0

    async def receive_some(self) -> bytes:
        self.readers += 1
        try:
            await trio.lowlevel.checkpoint()
            self.given += 1
            return b"x" * 1000
        finally:
            self.readers -= 1


@pytest.mark.parametrize(
    "answer", [b"300 Multiple Choices", b"401 Unauthorized", b"413 Content Too Large"]
)
async def test_an_early_refusal_is_seen_at_once_and_ends_the_upload(answer: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(b"HTTP/1.1 %b\r\ncontent-length: 2\r\n\r\nno" % answer)
        await peer.wait_closed()

    body = Endless()
    async with client_of(script) as (client, upstream):
        async with client.request(b"POST", b"/", (), body) as response:
            assert response.status == int(answer[:3])
            await wait_all_tasks_blocked()
            given = body.given
            assert await response.receive_some() == b"no"
            await wait_all_tasks_blocked()
        assert body.given == given
        assert client.statistics().idle == client.statistics().in_use == 0
        assert await read_all(client) == b"no"
        assert upstream.dialled == 2


async def test_a_complete_answer_ends_an_upload_that_still_goes_on() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(OK)
        await peer.wait_closed()

    body = Endless()
    async with client_of(script) as (client, _):
        async with client.request(b"POST", b"/", (), body) as response:
            assert await response.receive_some() == b"ok"
            assert response.ended
            given = body.given
            await wait_all_tasks_blocked()
            assert (body.given, body.readers) == (given, 0)
        assert client.statistics().idle == 0


async def test_a_connection_whose_upload_was_stopped_is_not_reused() -> None:
    """The wire has framed the whole request, but the last bytes of it were never taken."""

    async def script(peer: Peer) -> None:
        assert await peer.read_until(b"body\r\n")
        await peer.send(OK)
        await trio.sleep_forever()

    async with client_of(script, pair=lockstep_stream_pair) as (client, _):
        async with client.request(b"POST", b"/", (), Pieces(b"body")) as response:
            await wait_all_tasks_blocked()  # the last chunk is being written, and never read
            assert await response.receive_some() == b"ok"
        assert client.statistics().idle == client.statistics().in_use == 0


async def test_with_expect_the_body_is_sent_after_100_continue() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await wait_all_tasks_blocked()
        assert body.pieces == [b"abc"]
        assert peer.buffer == b""
        await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await peer.read_exactly(3) == b"abc"
        await peer.send(OK)

    body = Pieces(b"abc")
    headers = ((b"content-length", b"3"), (b"expect", b"100-continue"))
    async with client_of(script) as (client, _):
        async with client.request(b"POST", b"/", headers, body) as response:
            assert await response.receive_some() == b"ok"
        assert client.statistics().idle == 1


async def test_with_expect_a_refused_body_is_never_read() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(b"HTTP/1.1 417 Expectation Failed\r\ncontent-length: 0\r\n\r\n")

    body = Pieces(b"abc")
    headers = ((b"content-length", b"3"), (b"expect", b"100-continue"))
    async with client_of(script) as (client, _):
        async with client.request(b"POST", b"/", headers, body) as response:
            assert response.status == 417
        assert body.pieces == [b"abc"]
        assert client.statistics().in_use == 0


async def test_with_expect_the_body_is_sent_after_a_timeout_without_100_continue(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        began = trio.current_time()
        assert await peer.read_exactly(3) == b"abc"
        assert trio.current_time() - began == pytest.approx(1)
        await peer.send(OK)

    headers = ((b"content-length", b"3"), (b"expect", b"100-continue"))
    async with (
        client_of(script) as (client, _),
        client.request(b"POST", b"/", headers, b"abc") as response,
    ):
        assert await response.receive_some() == b"ok"


@pytest.mark.parametrize("error", [ValueError, UpstreamCut])
async def test_an_exception_of_the_body_is_raised_by_the_request(error: type[Exception]) -> None:
    """That of a body from another upstream was dropped: an answer was waited for without end."""

    class Bad:
        async def receive_some(self) -> bytes:
            await trio.lowlevel.checkpoint()
            raise error("the sender left")

    async with client_of(answer_all) as (client, upstream):
        for headers in ((), ((b"content-length", b"100"),), ((b"content-length", b"100000"),)):
            with trio.fail_after(60), pytest.raises(error, match="the sender left"):
                async with client.request(b"POST", b"/", headers, Bad()):
                    raise AssertionError
        await wait_all_tasks_blocked()
        assert upstream.open == 0
        assert client.statistics().in_use == client.statistics().idle == 0


async def test_the_end_of_a_body_is_no_beginning_of_a_wait_for_a_head_that_has_come(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A reader that was busy then had its response cut after the timeout for heads."""

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nok")
        await peer.read_until(b"0\r\n\r\n")
        await peer.send(b"ok")

    send, receive = trio.testing.memory_stream_one_way_pair()
    async with client_of(script, limits=UpstreamLimits(head_timeout=10)) as (client, _):
        async with client.request(b"POST", b"/", (), receive) as response:
            assert await response.receive_some() == b"ok"
            await send.aclose()
            await trio.sleep(1000)
            assert await response.receive_some() == b"ok"
        assert client.statistics().timed_out == 0


async def test_a_request_that_is_cancelled_ends_when_its_body_is_read_no_longer() -> None:
    """A body that was still read after it could break what came next on its connection."""

    class Tidy(Endless):
        async def receive_some(self) -> bytes:
            self.readers += 1
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    for _ in range(30):
                        await trio.lowlevel.checkpoint()
                self.readers -= 1
            raise AssertionError

    body = Tidy()
    async with client_of(Peer.wait_closed) as (client, _), trio.open_nursery() as nursery:

        async def ask() -> None:
            try:
                async with client.request(b"POST", b"/", (), body):
                    raise AssertionError
            finally:
                assert body.readers == 0

        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        assert body.readers == 1
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("length", "pieces"),
    [
        *((length, [b"abc"]) for length in (b"5", b"2", b"100000", b"many")),
        (b"70000", [b"a" * 70001]),
    ],
)
async def test_a_body_that_does_not_match_its_content_length_is_never_sent_as_complete(
    length: bytes, pieces: list[bytes]
) -> None:
    async with client_of(Peer.wait_closed) as (client, _):
        headers = ((b"content-length", length),)
        with pytest.raises(LocalProtocolError):
            async with client.request(b"POST", b"/", headers, Pieces(*pieces)):
                raise AssertionError
        assert client.statistics().in_use == client.statistics().idle == 0


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        (b"GET", b"/a b", ()),
        (b"G T", b"/", ()),
        (b"GET", b"/", ((b"x", b"a\r\nb: c"),)),
        (b"GET", b"/", ((b"x y", b"a"),)),
        (b"GET", b"/", ((b"transfer-encoding", b"chunked"),)),
    ],
)
async def test_an_invalid_request_is_not_sent(
    method: bytes, target: bytes, headers: tuple[tuple[bytes, bytes], ...]
) -> None:
    async with client_of(answer_all) as (client, _):
        with pytest.raises(LocalProtocolError):
            async with client.request(method, target, headers):
                raise AssertionError
        assert client.statistics().in_use == client.statistics().idle == 0
