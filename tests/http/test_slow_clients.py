"""Slow and silent clients, and their timeouts."""

from contextlib import suppress

import trio
import trio.testing

from bridgepool.http import Exchange, HttpLimits
from bridgepool.http._h11_wires import H11ServerWire
from tests.http.support import GET, RawClient, echo, serving


class CountingWire(H11ServerWire):
    """Counts the pieces that it is fed."""

    pieces = 0

    def receive_data(self, data: bytes) -> None:
        CountingWire.pieces += 1
        super().receive_data(data)


POST = b"POST /x HTTP/1.1\r\nHost: h\r\n"


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


async def test_a_client_that_accepts_no_bytes_is_disconnected(
    autojump_clock: trio.testing.MockClock,
) -> None:
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


async def test_a_long_response_to_a_slow_client_does_not_time_out(
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


async def drip(client: RawClient, data: bytes, seconds: float) -> None:
    """Send a byte every so many seconds, until the server has enough."""
    with suppress(trio.BrokenResourceError):
        for byte in data:
            await client.send(bytes([byte]))
            await trio.sleep(seconds)


async def test_a_head_below_the_least_rate_is_answered_with_408(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = HttpLimits(header_timeout=1000, min_receive_rate=10)
    async with serving(echo, limits=limits) as server:
        slow, fast = server.connect(), server.connect()
        head = b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 200 + b"\r\n\r\n"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip, slow, head, 0.2)  # five bytes a second
            nursery.start_soon(drip, fast, head, 0.09)
            assert (await slow.answer()).status == 408
            # five seconds, and ten bytes for each second after: 5 + 5 t / 10 = t
            assert 10 <= trio.current_time() < 12
            assert (await fast.answer()).status == 200


async def test_a_body_below_the_least_rate_is_answered_with_408(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A byte now and then held a connection, here and upstream, for as long as its client liked."""
    limits = HttpLimits(body_timeout=20, min_receive_rate=10)
    async with serving(echo, limits=limits) as server:
        slow, fast = server.connect(), server.connect()
        body = b"x" * 300
        for client in (slow, fast):
            await client.send(POST + b"Content-Length: 300\r\n\r\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip, slow, body, 0.2)
            nursery.start_soon(drip, fast, body, 0.09)
            assert (await slow.answer()).status == 408
            assert 10 <= trio.current_time() < 12
            assert (await fast.answer()).body == body


async def test_a_body_that_never_ends_is_answered_with_408_after_the_whole_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = HttpLimits(body_timeout=20, max_body_time=100)
    async with serving(echo, limits=limits) as server:
        client = server.connect()
        await client.send(POST + b"Content-Length: 1000\r\n\r\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip, client, b"x" * 1000, 10)
            assert (await client.answer()).status == 408
            assert 100 <= trio.current_time() < 102
            nursery.cancel_scope.cancel()


async def test_a_client_is_not_slow_because_the_handler_is(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def read_slowly(exchange: Exchange) -> None:
        length = 0
        async for piece in exchange.body:
            length += len(piece)
            await trio.sleep(100)
        await exchange.answer(200, body=b"%d" % length)

    limits = HttpLimits(max_body_time=10, min_receive_rate=1000, read_ahead_bytes=100)
    async with serving(read_slowly, limits=limits) as server:
        client = server.connect()
        async with trio.open_nursery() as nursery:
            await client.send(POST + b"Content-Length: 600\r\n\r\n")
            nursery.start_soon(drip, client, b"x" * 600, 0)
            assert (await client.answer()).body == b"600"


async def test_a_head_in_pieces_of_one_byte_costs_few_reads(
    autojump_clock: trio.testing.MockClock,
) -> None:
    CountingWire.pieces = 0
    head = b"GET / HTTP/1.1\r\nHost: h\r\nX-Long: " + b"a" * 20_000 + b"\r\n\r\n"
    async with serving(echo, new_wire=CountingWire) as server:
        client = server.connect()
        for byte in head:
            await client.send(bytes([byte]))
        assert (await client.answer()).status == 200
        assert CountingWire.pieces < 200
        before = CountingWire.pieces
        for _ in range(100):
            assert (await client.ask()).status == 200
        assert CountingWire.pieces - before <= 101, "requests on a kept connection wait for nothing"
        assert trio.current_time() < 0.1
