"""Frames of the gateway's own between those that a websocket relays."""

from __future__ import annotations

import pytest
import trio
from trio.testing import (
    MockClock,
    assert_checkpoints,
    lockstep_stream_pair,
    memory_stream_pair,
    wait_all_tasks_blocked,
)

from bridgepool.gateway.proxy.websockets._peer import Peer
from bridgepool.http import ControlFrame, DataPiece, FrameScanner, Opcode, encode_frame


def piece(opcode: Opcode, payload: bytes, *, ends: bool) -> DataPiece:
    """A frame of a message, as the relay takes it from the provider."""
    frame = encode_frame(opcode, payload)
    found = FrameScanner(False, 1000)
    if opcode is Opcode.CONTINUATION:
        found.feed(bytes([Opcode.TEXT, 1]) + b"x")
    [only] = found.feed(frame if ends else bytes([frame[0] & 0x7F]) + frame[1:])
    assert isinstance(only, DataPiece)
    assert only.ends is ends
    return only


async def test_a_frame_that_comes_while_another_is_written_follows_it(
    autojump_clock: MockClock,
) -> None:
    """It waited for the next message of the provider: pongs came late, and errors never."""
    ours, theirs = lockstep_stream_pair()
    peer = Peer(ours, FrameScanner(True, 1000), False, trio.current_time())
    scanner = FrameScanner(False, 1000)

    async def read(count: int) -> list[tuple[Opcode | str, bytes]]:
        found: list[tuple[Opcode | str, bytes]] = []
        with trio.fail_after(1):
            while len(found) < count:
                for item in scanner.feed(bytes(await theirs.receive_some())):
                    if isinstance(item, ControlFrame):
                        found.append((item.opcode, item.payload))
                    else:
                        found.append(("message", item.payload))
        return found

    async with trio.open_nursery() as nursery:
        first = piece(Opcode.TEXT, b"one", ends=False)
        nursery.start_soon(peer.send, first.raw, first)
        await wait_all_tasks_blocked()
        await peer.send_own(Opcode.TEXT, b"error")
        await peer.send_own(Opcode.PONG, b"1")
        assert await read(2) == [("message", b"one"), (Opcode.PONG, b"1")]

        last = piece(Opcode.CONTINUATION, b" message", ends=True)
        nursery.start_soon(peer.send, last.raw, last)
        await wait_all_tasks_blocked()
        await peer.send_own(Opcode.TEXT, b"another error")
        await peer.send_own(Opcode.PONG, b"2")
        assert await read(4) == [
            ("message", b" message"),
            ("message", b"error"),
            (Opcode.PONG, b"2"),
            ("message", b"another error"),
        ]

        nursery.start_soon(peer.send_own, Opcode.PING, b"3")
        await wait_all_tasks_blocked()
        await peer.send_own(Opcode.TEXT, b"last error")
        assert await read(2) == [(Opcode.PING, b"3"), ("message", b"last error")]
    assert not peer.busy


@pytest.mark.parametrize(("is_client", "most"), [(False, 100), (True, 10)])
async def test_tens_of_thousands_of_frames_in_one_read_are_taken_a_few_at_a_time(
    is_client: bool, most: int
) -> None:
    """All were judged and passed on in one turn: 64 kB of empty messages held the loop for 1 s.

    Of a client's, 64 were judged in one turn, or refused: on thirty websockets of one client, that
    made others wait six times as long as thirty connections with refused requests.
    """
    ours, theirs = memory_stream_pair()
    peer = Peer(ours, FrameScanner(is_client, 1000), not is_client, trio.current_time())
    mask = bytes(4) if is_client else b""
    frames = encode_frame(Opcode.TEXT, b"", mask=mask) * 30_000
    frames += encode_frame(Opcode.PING, b"x", mask=mask)
    await theirs.send_all(frames)
    await theirs.aclose()
    found: list[DataPiece | ControlFrame] = []
    while True:
        with assert_checkpoints():
            items = await peer.receive()
        if items is None:
            break
        assert 0 < len(items) <= most
        found += items
    assert peer.has_closed
    assert len(found) == 30_001
    assert found[-1] == ControlFrame(Opcode.PING, b"x")


async def test_of_our_own_frames_few_wait_and_none_is_sent_within_a_frame(
    autojump_clock: MockClock,
) -> None:
    ours, theirs = memory_stream_pair()
    peer = Peer(ours, FrameScanner(True, 1000), False, trio.current_time())
    frame, scanner = encode_frame(Opcode.TEXT, b"message"), FrameScanner(False, 1000)
    for part in (frame[:4], frame[4:6], frame[6:]):
        [one] = scanner.feed(part)
        assert isinstance(one, DataPiece)
        await peer.send(one.raw, one)
        for _ in range(50 if not one.ends_frame else 0):
            await peer.send_own(Opcode.PONG, b"")
            await peer.send_own(Opcode.TEXT, b"error")
    pong, error = encode_frame(Opcode.PONG, b""), encode_frame(Opcode.TEXT, b"error")
    assert await theirs.receive_some() == frame + 4 * pong + 16 * error
