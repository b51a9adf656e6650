"""Peers that send as many frames as they can."""

from __future__ import annotations

import attrs
import trio
import trio.testing

from bridgepool.transports.websocket import Handshake, serve_websockets
from tests.transports.support import Channel, admit_all

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@attrs.frozen
class OneConnection(trio.abc.Listener[trio.abc.Stream]):
    """Accepts a stream in memory, of which one read returns all that was sent."""

    streams: list[trio.abc.Stream]

    async def accept(self) -> trio.abc.Stream:
        if not self.streams:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        return self.streams.pop()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


@attrs.define(eq=False)
class ReaderSteps(trio.abc.Instrument):
    """Counts how often the reader of a websocket runs."""

    count: int = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += task.name.endswith("_reader_task")


async def test_a_server_takes_many_empty_fragments_a_few_at_a_time() -> None:
    """All of one read were handled in one turn: 64 kB of them held the loop for 0.3 s."""
    fragments = 10_000
    messages = list[bytes]()

    async def receive(channel: Channel, _: Handshake) -> None:
        messages.append(await channel.receive())

    ours, theirs = trio.testing.memory_stream_pair()
    steps = ReaderSteps()
    async with trio.open_nursery() as nursery:
        listener = OneConnection([theirs])
        nursery.start_soon(lambda: serve_websockets(receive, [listener], admit=admit_all))
        await ours.send_all(HANDSHAKE)
        assert b" 101 " in await ours.receive_some()
        trio.lowlevel.add_instrument(steps)
        empty = b"\x00\x80mask" * fragments
        await ours.send_all(b"\x02\x80mask" + empty + b"\x80\x81\x00\x00\x00\x00x")
        with trio.fail_after(60):
            while not messages:  # noqa: ASYNC110 -- counts turns
                await trio.lowlevel.checkpoint()
        trio.lowlevel.remove_instrument(steps)
        nursery.cancel_scope.cancel()
    assert messages == [b"x"]
    assert fragments / steps.count < 500
