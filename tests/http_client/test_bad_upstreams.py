import socket

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from bridgepool.http import (
    ConnectFailed,
    UpstreamCut,
    UpstreamError,
    UpstreamLimits,
    UpstreamProtocolError,
    UpstreamTimeout,
    open_upstream_client,
)
from tests.http_client.support import OK, Peer, answer_all, client_of, client_of_sockets, read_all

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


async def fails_with(error: type[UpstreamError], answer: bytes, *, closes: bool) -> None:
    """Assert how a request ends that gets this answer, over a real socket."""

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(answer)
        if not closes:
            await peer.wait_closed()

    async with client_of_sockets(script) as client:
        with pytest.raises(error):
            await read_all(client)
        assert client.statistics().in_use == client.statistics().idle == 0


@pytest.mark.parametrize(
    "answer",
    [
        b"220 mail.example ESMTP\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        b"<html>no head at all</html>\n\n",
        b"HTTP/1.1 200 OK\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length:\r\n 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length : 0\r\n\r\n",
        b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 0200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
        CHUNKED + b"zz\r\n",
        CHUNKED + b"2\r\nokay\r\n",
        CHUNKED + b"2\nok\n0\n\n",
        CHUNKED + b"-2\r\nok\r\n",
        CHUNKED + b"2\r\nok\r\n0\r\nbad trailer\r\n\r\n",
    ],
    ids=lambda answer: repr(answer[:40]),
)
async def test_an_upstream_that_sends_garbage_gets_a_protocol_error(answer: bytes) -> None:
    await fails_with(UpstreamProtocolError, answer, closes=False)


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"x: " + b"a" * 100_000 + b"\r\ncontent-length: 0\r\n\r\n",
        HEAD + b"x: a\r\n" * 1000 + b"content-length: 0\r\n\r\n",
        HEAD + b"x: " + b"a" * 100_000,
    ],
    ids=["one huge field", "a thousand fields", "a head without end"],
)
async def test_an_upstream_with_an_oversized_head_gets_a_protocol_error(head: bytes) -> None:
    await fails_with(UpstreamProtocolError, head, closes=False)


async def test_an_upstream_that_sends_interim_answers_without_end_gets_a_protocol_error() -> None:
    await fails_with(UpstreamProtocolError, b"HTTP/1.1 102 Processing\r\n\r\n" * 100, closes=False)


@pytest.mark.parametrize(
    "part",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        HEAD + b"content-length: 10\r\n\r\n",
        HEAD + b"content-length: 10\r\n\r\nhalf",
        CHUNKED,
        CHUNKED + b"4\r\nha",
        CHUNKED + b"4\r\nhalf\r\n",
        CHUNKED + b"4\r\nhalf\r\n0\r\n",
    ],
)
async def test_an_upstream_that_closes_in_the_middle_is_never_taken_for_complete(
    part: bytes,
) -> None:
    await fails_with(UpstreamCut, part, closes=True)


async def test_an_upstream_that_resets_in_the_middle_is_never_taken_for_complete() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(CHUNKED + b"4\r\nhalf\r\n")
        await half_read.wait()
        assert isinstance(peer.stream, trio.SocketStream)
        peer.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    half_read = trio.Event()
    async with client_of_sockets(script) as client:
        async with client.request(b"GET", b"/") as response:
            assert await response.receive_some() == b"half"
            half_read.set()
            with pytest.raises(UpstreamCut):
                await response.receive_some()
        assert client.statistics().in_use == client.statistics().idle == 0


async def test_data_before_garbage_is_returned_first() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(CHUNKED + b"2\r\nok\r\ngarbage\r\n")
        await peer.wait_closed()

    async with client_of(script) as (client, _), client.request(b"GET", b"/") as response:
        assert response.take_buffered() == b"ok"
        for _ in range(2):
            with pytest.raises(UpstreamProtocolError):
                await response.receive_some()


async def test_a_connection_with_a_response_before_its_request_is_not_reused() -> None:
    async def script(peer: Peer) -> None:
        await peer.send(OK)
        spoken.set()
        await peer.wait_closed()

    spoken = trio.Event()
    dialled = 0

    async with trio.open_nursery() as nursery:

        async def serve(stream: trio.SocketStream) -> None:
            async with stream:
                await script(Peer(stream))

        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        port = listeners[0].socket.getsockname()[1]

        async def dial() -> trio.abc.Stream:
            nonlocal dialled, spoken
            dialled, spoken = dialled + 1, trio.Event()
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await spoken.wait()
            return stream

        async with open_upstream_client("http://upstream", dial=dial) as client:
            assert [await read_all(client) for _ in range(2)] == [b"ok", b"ok"]
        assert dialled == 2
        nursery.cancel_scope.cancel()


async def test_a_response_on_an_idle_connection_is_never_used() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(OK)
        await idle.wait()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
        spoken.set()
        await peer.wait_closed()

    idle, spoken = trio.Event(), trio.Event()
    async with client_of_sockets(script, answer_all) as client:
        assert await read_all(client) == b"ok"
        idle.set()
        await spoken.wait()
        assert await read_all(client) == b"ok"
        assert client.statistics().found_dead == 1


@pytest.mark.parametrize("silent_after", [b"", b"HTTP/1.1 200 OK\r\n"])
async def test_an_upstream_that_never_answers_times_out(
    silent_after: bytes, autojump_clock: MockClock
) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(silent_after)
        await peer.wait_closed()

    limits = UpstreamLimits(head_timeout=20)
    async with client_of(script, limits=limits) as (client, _):
        with pytest.raises(UpstreamTimeout):
            await read_all(client)
        assert 20 <= trio.current_time() <= 21
        assert client.statistics().timed_out == 1
        assert client.statistics().in_use == client.statistics().idle == 0


async def test_an_upstream_that_never_answers_a_streamed_body_times_out_after_its_end(
    autojump_clock: MockClock,
) -> None:
    class Slow:
        def __init__(self) -> None:
            self.left = 3

        async def receive_some(self) -> bytes:
            await trio.sleep(100)
            self.left -= 1
            return b"x" if self.left else b""

    async with client_of(Peer.wait_closed, limits=UpstreamLimits(head_timeout=20)) as (client, _):
        with pytest.raises(UpstreamTimeout):
            async with client.request(b"POST", b"/", (), Slow()):
                raise AssertionError
        assert 320 <= trio.current_time() <= 321


async def test_an_upstream_that_falls_silent_in_a_body_times_out(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(HEAD + b"content-length: 100\r\n\r\n")
        for _ in range(5):
            await trio.sleep(9)
            await peer.send(b"x")
        await peer.wait_closed()

    limits = UpstreamLimits(read_timeout=10)
    async with client_of(script, limits=limits) as (client, _):
        with pytest.raises(UpstreamTimeout):
            await read_all(client)
        assert 55 <= trio.current_time() <= 56


async def test_no_read_timeout_runs_while_the_reader_is_busy(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(HEAD + b"content-length: 4\r\n\r\n")
        await trio.sleep(1)
        await peer.send(b"ok")
        await trio.sleep(6000)
        await peer.send(b"ok")

    limits = UpstreamLimits(read_timeout=10)
    async with client_of(script, limits=limits) as (client, _):
        async with client.request(b"GET", b"/") as response:
            for _ in range(2):
                await trio.sleep(5000)
                assert await response.receive_some() == b"ok"
        assert client.statistics().timed_out == 0


async def test_an_upstream_that_accepts_no_more_of_a_body_times_out(
    autojump_clock: MockClock,
) -> None:
    class Endless:
        async def receive_some(self) -> bytes:
            return b"x" * 10000

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await trio.sleep_forever()

    limits = UpstreamLimits(write_timeout=30)
    pair = trio.testing.lockstep_stream_pair
    async with client_of(script, limits=limits, pair=pair) as (client, _):
        with pytest.raises(UpstreamTimeout):
            async with client.request(b"POST", b"/", (), Endless()):
                raise AssertionError
        assert 30 <= trio.current_time() <= 32


async def test_a_slow_sender_of_a_body_causes_no_timeout(autojump_clock: MockClock) -> None:
    class Slow:
        def __init__(self) -> None:
            self.left = 5

        async def receive_some(self) -> bytes:
            await trio.sleep(1000)
            self.left -= 1
            return b"x" if self.left else b""

    async def script(peer: Peer) -> None:
        await peer.read_until(b"0\r\n\r\n")
        await trio.sleep(5)
        await peer.send(OK)

    limits = UpstreamLimits(head_timeout=10, write_timeout=10, read_timeout=10, idle_expiry=10)
    async with client_of(script, limits=limits) as (client, _):
        async with client.request(b"POST", b"/", (), Slow()) as response:
            assert await response.receive_some() == b"ok"
        assert client.statistics().timed_out == 0


async def test_an_idle_connection_is_closed_after_its_time(autojump_clock: MockClock) -> None:
    limits = UpstreamLimits(idle_expiry=60)
    async with client_of(answer_all, limits=limits) as (client, upstream):
        await read_all(client)
        await trio.sleep(50)
        await read_all(client)
        await trio.sleep(55)
        assert upstream.open == 1
        await trio.sleep(10)
        assert upstream.open == 0
        statistics = client.statistics()
        assert (statistics.idle, statistics.expired, statistics.timed_out) == (0, 1, 0)
        assert await read_all(client) == b"ok"


async def test_without_any_timeout_nothing_is_closed(autojump_clock: MockClock) -> None:
    inf = float("inf")
    limits = UpstreamLimits(head_timeout=inf, read_timeout=inf, write_timeout=inf, idle_expiry=inf)
    async with client_of(answer_all, limits=limits) as (client, upstream):
        await read_all(client)
        await trio.sleep(80_000)
        assert upstream.open == 1


async def test_a_refused_connection_and_a_broken_one_raise_different_errors() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        async with open_upstream_client(f"http://127.0.0.1:{port}") as client:
            with pytest.raises(ConnectFailed, match=f"127.0.0.1:{port}: Connection refused"):
                await read_all(client)
            assert client.statistics().in_use == 0


async def test_an_upstream_whose_name_is_unknown_cannot_be_connected() -> None:
    async with open_upstream_client("http://no-such-host.invalid") as client:
        with pytest.raises(ConnectFailed, match=r"no-such-host\.invalid"):
            await read_all(client)


async def test_an_upstream_that_does_not_finish_connecting_times_out(
    autojump_clock: MockClock,
) -> None:
    async def dial() -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError

    limits = UpstreamLimits(connect_timeout=3)
    async with open_upstream_client("http://upstream", limits=limits, dial=dial) as client:
        with pytest.raises(UpstreamTimeout, match="within 3 s"):
            await read_all(client)
        assert client.statistics().in_use == 0
        assert trio.current_time() == pytest.approx(3)


async def test_an_early_answer_is_read_even_when_the_rest_of_the_request_breaks() -> None:
    """An upstream that refuses a short body and closes at once, before all of it was sent."""

    class Refusing(trio.abc.Stream):
        """Breaks what is sent, and has an answer already."""

        def __init__(self) -> None:
            self.left = [b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n"]

        async def send_all(self, data: object) -> None:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError

        async def wait_send_all_might_not_block(self) -> None:
            raise AssertionError

        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            await trio.lowlevel.checkpoint()
            return self.left.pop()

        async def aclose(self) -> None:
            await trio.lowlevel.checkpoint()

    async def dial() -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return Refusing()

    async with open_upstream_client("http://upstream", dial=dial) as client:
        async with client.request(b"POST", b"/", (), b"body") as response:
            assert response.status == 413
            assert await response.receive_some() == b""
        assert client.statistics().idle == 0


async def test_a_broken_upstream_ends_a_streaming_sender() -> None:
    """The upload notices the broken connection first; the reader raises the error."""

    class Endless:
        async def receive_some(self) -> bytes:
            await trio.lowlevel.checkpoint()
            return b"x"

    async def script(peer: Peer) -> None:
        await peer.read_head()

    async with client_of(script) as (client, _):
        with pytest.raises(UpstreamCut):
            async with client.request(b"POST", b"/", (), Endless()):
                raise AssertionError
        await wait_all_tasks_blocked()
        assert client.statistics().in_use == 0
