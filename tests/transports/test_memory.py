import pytest
import trio

from bridgepool.transports import ChannelBrokenError, MessageTooLargeError
from bridgepool.transports.memory import open_memory_channel_pair


async def test_messages_go_both_ways_in_order() -> None:
    left, right = open_memory_channel_pair()
    await left.send(b"1")
    await left.send(b"")
    await right.send(b"2")
    assert [await right.receive(), await right.receive(), await left.receive()] == [b"1", b"", b"2"]


async def test_a_closed_end_is_the_end_of_the_other_after_what_was_sent() -> None:
    left, right = open_memory_channel_pair()
    await left.send(b"last")
    await left.aclose()
    assert await right.receive() == b"last"
    with pytest.raises(trio.EndOfChannel):
        await right.receive()
    with pytest.raises(ChannelBrokenError):
        await right.send(b"")
    with pytest.raises(trio.ClosedResourceError):
        await left.receive()


async def test_a_broken_pair_does_not_end_the_channel() -> None:
    left, right = open_memory_channel_pair()
    left.break_link()
    for end in (left, right):
        with pytest.raises(ChannelBrokenError):
            await end.receive()
        with pytest.raises(ChannelBrokenError):
            await end.send(b"")


async def test_large_messages_and_values_other_than_bytes_are_refused() -> None:
    left, right = open_memory_channel_pair(max_message_bytes=2)
    with pytest.raises(MessageTooLargeError, match="the message has 3 bytes; the limit is 2"):
        await left.send(b"123")
    with pytest.raises(TypeError, match="not str"):
        await left.send("1")  # type: ignore[arg-type] # that is the point
    await left.send(b"12")
    assert await right.receive() == b"12"
