"""The proxy between an echo server and a client, on loopback."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from bridgepool.testing import FaultProxy, Toward, open_fault_proxy

_streams: list[trio.SocketStream] = []  # of the test that runs, to be closed at its end


@asynccontextmanager
async def proxied() -> AsyncIterator[FaultProxy]:
    async def echo(stream: trio.SocketStream) -> None:
        try:
            async for data in stream:
                await stream.send_all(data)
            await stream.send_all(b"end")
            await stream.aclose()
        except trio.BrokenResourceError:
            pass

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, echo, listeners)
            with trio.fail_after(60):
                async with open_fault_proxy("127.0.0.1", port) as proxy:
                    yield proxy
            nursery.cancel_scope.cancel()
    finally:
        while _streams:
            _streams.pop().socket.close()  # without an await, which a cancellation would end


async def dialled(proxy: FaultProxy) -> trio.SocketStream:
    stream = await trio.open_tcp_stream("127.0.0.1", proxy.port)
    _streams.append(stream)
    return stream


async def connected(proxy: FaultProxy) -> trio.SocketStream:
    stream = await dialled(proxy)
    await exchange(stream, b"hello")
    return stream


async def exchange(stream: trio.SocketStream, data: bytes) -> None:
    await stream.send_all(data)
    assert await read(stream, len(data)) == data


async def read(stream: trio.SocketStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = await stream.receive_some(count - len(data))
        assert piece, data
        data += piece
    return data


async def hears_nothing(stream: trio.SocketStream, seconds: float = 0.05) -> bool:
    with trio.move_on_after(seconds):
        await stream.receive_some()
        return False
    return True


async def test_without_a_fault_it_passes_everything_and_counts_it() -> None:
    async with proxied() as proxy:
        stream = await connected(proxy)
        await stream.send_eof()
        assert await read(stream, 3) == b"end"
        assert await stream.receive_some() == b""
        seen = proxy.statistics()
        assert (seen.accepted, seen.refused, seen.cut) == (1, 0, 0)
        assert (seen.bytes_to_target, seen.bytes_to_client) == (5, 8)


async def test_a_cut_resets_live_connections_and_no_later_ones() -> None:
    async with proxied() as proxy:
        stream = await connected(proxy)
        proxy.cut()
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        await connected(proxy)
        assert proxy.statistics().cut == 1


async def test_a_cut_after_so_many_bytes_passes_just_these() -> None:
    async with proxied() as proxy:
        stream = await connected(proxy)
        proxy.cut_after(3, Toward.TARGET)
        await stream.send_all(b"12345")
        with pytest.raises(trio.BrokenResourceError):
            await read(stream, 5)
        assert proxy.statistics().bytes_to_target == 8
        await connected(proxy)


async def test_a_half_open_connection_is_found_out_when_healed() -> None:
    async with proxied() as proxy:
        stream = await connected(proxy)
        proxy.cut(Toward.TARGET)
        await stream.send_all(b"are you there?")
        assert await hears_nothing(stream)
        proxy.heal()
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()


async def test_one_direction_can_be_closed_while_the_other_goes_on() -> None:
    async with proxied() as proxy:
        stream = await connected(proxy)
        proxy.close_half(Toward.CLIENT)
        assert await stream.receive_some() == b""
        await stream.send_all(b"still")
        while proxy.statistics().bytes_to_target < 10:  # noqa: ASYNC110 -- it has no event
            await trio.sleep(0.001)


async def test_a_black_hole_holds_everything_until_it_is_healed() -> None:
    async with proxied() as proxy:
        old = await connected(proxy)
        proxy.black_hole()
        await old.send_all(b"old")
        new = await dialled(proxy)
        await new.send_all(b"new")
        assert await hears_nothing(old)
        assert await hears_nothing(new)
        proxy.heal()
        assert await read(old, 3) == b"old"
        assert await read(new, 3) == b"new"


@pytest.mark.parametrize("toward", [Toward.TARGET, Toward.CLIENT])
async def test_a_black_hole_can_be_of_one_direction(toward: Toward) -> None:
    async with proxied() as proxy:
        stream = await connected(proxy)
        proxy.black_hole(toward)
        await stream.send_all(b"123")
        assert await hears_nothing(stream)
        arrived = proxy.statistics().bytes_to_target - 5
        assert arrived == (3 if toward is Toward.CLIENT else 0)


async def test_bytes_are_inverted_where_it_was_asked_for() -> None:
    async with proxied() as proxy:
        stream = await connected(proxy)
        proxy.corrupt(2, skip=1, toward=Toward.CLIENT)
        await stream.send_all(b"\x00\x00\x00\x00")
        assert await read(stream, 4) == b"\x00\xff\xff\x00"
        await exchange(stream, b"sound again")


async def test_connections_are_refused_until_it_is_healed_and_live_ones_are_kept() -> None:
    async with proxied() as proxy:
        stream = await connected(proxy)
        proxy.refuse()
        with pytest.raises((trio.BrokenResourceError, OSError)):
            await connected(proxy)
        await exchange(stream, b"still here")
        assert proxy.statistics().refused == 1
        proxy.heal()
        await connected(proxy)


async def test_a_target_that_is_not_there_is_a_refusal() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    await listeners[0].aclose()
    async with open_fault_proxy("127.0.0.1", port) as proxy:
        with pytest.raises((trio.BrokenResourceError, OSError)):
            await connected(proxy)
        assert proxy.statistics().refused == 1
        await _streams.pop().aclose()


async def test_delays_and_throttles_take_their_time_and_end_at_once_when_healed() -> None:
    async with proxied() as proxy:
        stream = await connected(proxy)
        proxy.delay(0.05)
        began = trio.current_time()
        await exchange(stream, b"slow")
        assert trio.current_time() - began >= 0.1
        proxy.heal()
        proxy.throttle(1000, Toward.CLIENT)
        began = trio.current_time()
        await exchange(stream, bytes(100))
        assert trio.current_time() - began >= 0.05
        proxy.throttle(1)
        proxy.delay(1000)
        await stream.send_all(b"fast")
        assert await hears_nothing(stream)
        proxy.heal()
        assert await read(stream, 4) == b"fast"


async def test_connections_can_be_waited_for() -> None:
    async with proxied() as proxy, trio.open_nursery() as nursery:
        await proxy.wait_accepted(0)
        nursery.start_soon(proxy.wait_accepted, 2)
        await connected(proxy)
        await connected(proxy)


async def test_a_reset_by_the_client_reaches_the_target() -> None:
    async with proxied() as proxy:
        stream = await connected(proxy)
        stream.socket.setsockopt(1, 13, b"\x01\x00\x00\x00\x00\x00\x00\x00")  # SO_LINGER 0
        await stream.aclose()
        while proxy.statistics().open:  # noqa: ASYNC110 -- it has no event
            await trio.sleep(0.001)


async def test_the_body_s_own_exception_comes_out_as_it_went_in() -> None:
    with pytest.raises(ValueError, match="mine"):
        async with open_fault_proxy("127.0.0.1", 9):
            raise ValueError("mine")
