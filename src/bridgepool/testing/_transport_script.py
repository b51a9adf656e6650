"""Scripts over both ends of a transport: sends, receives, cancellations, closes, losses."""

from collections.abc import Sequence

import attrs
import trio

from ._transport_promises import Channel, TransportRig, cancel_after, ends_with, get, must, wrong

_STEPS = ("send", "send large", "receive", "cancelled receive", "rest")
STEPS = (*(f"{end} {step}" for end in ("left", "right") for step in _STEPS),) * 2 + (
    "left close",
    "right close",
    "left break",
)


@attrs.define(eq=False)
class _End:
    """One end, and what its own task has sent."""

    channel: Channel
    work: trio.MemorySendChannel[bytes]
    # in order; and how many of them `send` has returned from
    offered: list[bytes] = attrs.field(factory=list)
    sent: int = 0
    received: int = 0

    async def run(self, work: trio.MemoryReceiveChannel[bytes]) -> None:
        async for message in work:
            try:
                await self.channel.send(message)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            self.sent += 1


async def play(rig: TransportRig, steps: Sequence[str]) -> None:
    """Play one script to its end: the first loss or close, or a close by the right end."""
    ends: dict[str, _End] = {}
    async with trio.open_nursery() as nursery:
        for name, channel in (("left", rig.left), ("right", rig.right)):
            give, take = trio.open_memory_channel[bytes](100)
            ends[name] = _End(channel, give)
            nursery.start_soon(ends[name].run, take)
        for step in (*steps, "right close"):
            name, _, act = step.partition(" ")
            end, other = ends[name], ends["right" if name == "left" else "left"]
            if act == "close":
                await _finish(other, closing=end)
                break
            if act == "break":
                await rig.break_link()
                for end in ends.values():
                    what = "receive() after a lost connection"
                    await ends_with(trio.BrokenResourceError, end.channel.receive, what)
                break
            await _perform(rig, end, other, act)
        nursery.cancel_scope.cancel()


async def _perform(rig: TransportRig, end: _End, other: _End, act: str) -> None:
    if act.startswith("send"):
        size = 100_000 if act == "send large" else 10
        size = min(size, rig.max_message_bytes or size)
        message = (b"%d:" % len(end.offered)).ljust(size, b".")
        end.offered.append(message)
        await end.work.send(message)
    elif act == "receive":
        if end.received < other.sent:
            _take(end, other, await get(end.channel, "what was sent"))
    elif act == "cancelled receive":
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_after, scope, len(end.offered))
                _take(end, other, await end.channel.receive())
                nursery.cancel_scope.cancel()
    else:
        await trio.sleep(0.001)


def _take(end: _End, other: _End, message: bytes) -> None:
    must(end.received < len(other.offered), "a message was received that nobody sent")
    must(message == other.offered[end.received], "messages must arrive whole and in order")
    end.received += 1


async def _finish(end: _End, closing: _End) -> None:
    """Close one end while the other receives all that was sent to it."""
    sent = closing.sent  # more may be sent meanwhile; that much was
    ended = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(closing.channel.aclose)
        with trio.move_on_after(20):
            while not ended:
                try:
                    _take(end, closing, await end.channel.receive())
                except trio.EndOfChannel:
                    ended = True
                except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                    wrong("the other end closed; receive() must end the channel, not raise", error)
    must(ended, "the other end closed; receive() must end the channel")
    missing = sent - end.received
    must(missing <= 0, f"{missing} messages sent before aclose() did not arrive")
