import socket

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from bridgepool.http._sockets import receive_some, send_all, send_now


async def connected() -> tuple[trio.SocketStream, trio.SocketStream]:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    async with listener:
        port = listener.socket.getsockname()[1]
        ours = await trio.open_tcp_stream("127.0.0.1", port)
        return ours, await listener.accept()


async def test_what_is_sent_arrives_and_both_calls_are_checkpoints() -> None:
    ours, theirs = await connected()
    async with ours, theirs:
        with assert_checkpoints():
            await send_all(ours, b"ping")
        with assert_checkpoints():
            assert await receive_some(theirs) == b"ping"
        assert send_now(theirs, b"pong") == 4
        assert await receive_some(ours) == b"pong"
        await theirs.send_eof()
        assert await receive_some(ours) == b""


async def test_more_data_than_the_kernel_buffers_is_sent_completely() -> None:
    ours, theirs = await connected()
    data = bytes(range(256)) * 100_000
    got = bytearray()
    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(send_all, ours, data)
        await wait_all_tasks_blocked()
        assert send_now(ours, b"x") == 0
        while len(got) < len(data):
            got += await receive_some(theirs)
    assert got == data


async def test_other_streams_are_used_through_their_own_methods() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await send_all(ours, b"ping")
    got = await receive_some(theirs)
    assert got == b"ping"
    assert type(got) is bytes


async def test_a_closed_stream_and_a_broken_one_raise_different_errors() -> None:
    ours, theirs = await connected()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    await theirs.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await receive_some(ours)
    with pytest.raises(trio.BrokenResourceError):
        await send_all(ours, b"x")
    await ours.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await receive_some(ours)
    with pytest.raises(trio.ClosedResourceError):
        await send_all(ours, b"x")


async def test_closing_wakes_a_receiver_and_two_cannot_receive_at_once() -> None:
    ours, theirs = await connected()

    async def receive() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await receive_some(ours)

    async with theirs, trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await receive_some(ours)
        await ours.aclose()


async def test_a_cancelled_send_sends_nothing() -> None:
    ours, theirs = await connected()
    async with ours, theirs:
        with trio.CancelScope() as scope:
            scope.cancel()
            await send_all(ours, b"secret")
        assert scope.cancelled_caught
        await send_all(ours, b"open")
        assert await receive_some(theirs) == b"open"
