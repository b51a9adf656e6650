"""The checks of a transport's contract, one per promise, with the rig and helpers.

Each check runs for both ends.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import NoReturn, Protocol, TypeAlias

import trio
import trio.testing

from ._running import cancel_after

Channel: TypeAlias = trio.abc.Channel[bytes]

# Seconds after which an operation counts as hanging.
HANG_TIMEOUT = 20.0
_SIZES = (0, 1, 125, 126, 65535, 65536, 300_000)  # around the limits of frame heads and buffers
_BLOCKED_AFTER = 0.5  # seconds after which a send counts as blocked


class TransportPromiseBrokenError(AssertionError):
    """A transport breaks its contract; the message names the part."""


class TransportRig(Protocol):
    """Two connected ends of a transport under test."""

    @property
    def left(self) -> Channel:
        """One end."""
        ...

    @property
    def right(self) -> Channel:
        """The other end."""
        ...

    @property
    def max_message_bytes(self) -> int | None:
        """The largest message that can be sent; None if there is no limit."""
        ...

    async def break_link(self) -> None:
        """Lose the connection as by a cut cable: neither end closes it, both detect it."""
        ...


Check: TypeAlias = Callable[[TransportRig, Channel, Channel], Awaitable[None]]


def must(holds: bool, what: str) -> None:
    """Raise unless it holds."""
    if not holds:
        raise TransportPromiseBrokenError(what)


async def get(end: Channel, what: str) -> bytes:
    """Receive a message that must have arrived, or arrive soon."""
    with trio.move_on_after(HANG_TIMEOUT):
        try:
            message = await end.receive()
        except Exception as error:
            fail_with(f"{what}: receive() raised", error)
        must(type(message) is bytes, f"a message is bytes, not {type(message).__name__}")
        return message
    raise TransportPromiseBrokenError(f"{what}: nothing was received")


async def must_raise(
    kind: type[Exception], operation: Callable[[], Awaitable[object]], what: str
) -> None:
    """Repeat an operation, which may succeed at first, until it raises `kind`; otherwise fail."""
    with trio.move_on_after(HANG_TIMEOUT):
        for _ in range(10_000):
            try:
                await operation()
            except kind:
                return
            except Exception as error:
                fail_with(f"{what} must raise {kind.__name__}, not", error)
    raise TransportPromiseBrokenError(f"{what} must raise {kind.__name__}")


def fail_with(what: str, error: Exception) -> NoReturn:
    """Fail, and add the error that was raised."""
    raise TransportPromiseBrokenError(f"{what} {error!r}") from error


def _message(number: int, size: int) -> bytes:
    """Make a message that contains its number and reveals damage."""
    return (b"%d:" % number + bytes(i % 251 for i in range(min(size, 1000))) * (size // 1000 + 1))[
        :size
    ]


async def _whole_and_in_order(rig: TransportRig, a: Channel, b: Channel) -> None:
    limit = rig.max_message_bytes
    sizes = [size for size in _SIZES if limit is None or size <= limit]
    if limit is not None and limit <= 64 << 20:
        sizes.append(limit)
    async with trio.open_nursery() as nursery:

        async def send_all() -> None:
            for number, size in enumerate(sizes):
                await a.send(_message(number, size))

        nursery.start_soon(send_all)
        for number, size in enumerate(sizes):
            got = await get(b, f"a message of {size} bytes")
            must(got == _message(number, size), f"a message of {size} bytes must arrive whole")


async def _both_ways_and_many_senders(rig: TransportRig, a: Channel, b: Channel) -> None:
    senders, each = 5, 8

    async def send_some(end: Channel, sender: int) -> None:
        for number in range(each):
            await end.send(b"%d %d " % (sender, number) + bytes(20_000))

    async def receive_all(end: Channel) -> None:
        next_of = [0] * senders
        for _ in range(senders * each):
            got = await get(end, "messages of several senders")
            sender, number, rest = got.split(b" ", 2)
            must(rest == bytes(20_000), "messages of several senders must not be mixed")
            must(int(number) == next_of[int(sender)], "each task's messages must keep their order")
            next_of[int(sender)] += 1

    async with trio.open_nursery() as nursery:
        for sender in range(senders):
            nursery.start_soon(send_some, a, sender)
            nursery.start_soon(send_some, b, sender)
        nursery.start_soon(receive_all, a)
        nursery.start_soon(receive_all, b)


async def _everything_is_a_checkpoint(rig: TransportRig, a: Channel, b: Channel) -> None:
    async def send() -> None:
        with trio.testing.assert_checkpoints():
            await a.send(b"1")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.sleep(0.05)  # so that there is something to receive
        with trio.testing.assert_checkpoints():
            await b.receive()
    for _ in range(2):
        with trio.testing.assert_checkpoints():
            await a.aclose()


async def _too_large_is_refused(rig: TransportRig, a: Channel, b: Channel) -> None:
    if rig.max_message_bytes is None:
        return
    try:
        with trio.move_on_after(_BLOCKED_AFTER):
            await a.send(bytes(rig.max_message_bytes + 1))
            must(False, "a message that is too large must be refused")
    except ValueError:
        pass
    except Exception as error:
        fail_with("a message that is too large must be refused by a ValueError, not", error)
    await _pass_one(a, b, "a message after one that was refused")


async def _pass_one(a: Channel, b: Channel, what: str) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(a.send, b"sound")
        must(await get(b, what) == b"sound", f"{what} must arrive whole")


async def _closing_is_an_end(rig: TransportRig, a: Channel, b: Channel) -> None:
    async def send_and_close() -> None:
        for number in range(3):
            await a.send(b"%d" % number)
        await a.aclose()
        await a.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_and_close)
        for number in range(3):
            got = await get(b, "what was sent before aclose()")
            must(got == b"%d" % number, "what was sent before aclose() must arrive")
        await must_raise(trio.EndOfChannel, b.receive, "receive() from an end that closed")
        await must_raise(trio.EndOfChannel, b.receive, "receive() once more")
    await must_raise(trio.BrokenResourceError, partial(b.send, b""), "send() to an end that closed")
    await must_raise(trio.ClosedResourceError, a.receive, "receive() after aclose()")
    await must_raise(trio.ClosedResourceError, partial(a.send, b""), "send() after aclose()")
    await b.aclose()
    await must_raise(trio.ClosedResourceError, b.receive, "receive() after aclose() of both")


async def _closing_wakes_who_receives(rig: TransportRig, a: Channel, b: Channel) -> None:
    async with trio.open_nursery() as nursery:
        what = "receive() that waits while another task closes the channel"
        nursery.start_soon(must_raise, trio.ClosedResourceError, a.receive, what)
        await trio.sleep(0.05)
        await a.aclose()


async def _a_cancelled_close_closes(rig: TransportRig, a: Channel, b: Channel) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await a.aclose()
    await must_raise(trio.ClosedResourceError, partial(a.send, b""), "send() after aclose()")
    try:
        await must_raise(trio.EndOfChannel, b.receive, "")
    except AssertionError:
        await must_raise(
            trio.BrokenResourceError, b.receive, "receive() after a cancelled aclose()"
        )


async def _two_receivers(rig: TransportRig, a: Channel, b: Channel) -> None:
    got: list[bytes] = []

    async def receive() -> None:
        got.append(await b.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.sleep(0.05)
        nursery.start_soon(a.send, b"1")
        try:
            nursery.start_soon(a.send, b"2")
            await receive()
        except trio.BusyResourceError:
            await trio.sleep(0.05)
            await receive()
    must(sorted(got) == [b"1", b"2"], "each message must go to one receiver, once")


async def _cancelled_receives(rig: TransportRig, a: Channel, b: Channel) -> None:
    count = 40

    # A long message comes in pieces: what was received of it must not be lost.
    large = 100_000 if rig.max_message_bytes is None else min(100_000, rig.max_message_bytes)
    messages = [_message(number, (10, large)[number % 2]) for number in range(count)]

    async def send() -> None:
        for number, message in enumerate(messages):
            await a.send(message)
            for _ in range(number % 5):
                await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        got: list[bytes] = []
        for attempt in range(5_000):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as inner:
                    inner.start_soon(cancel_after, scope, attempt % 7)
                    got.append(await b.receive())  # noqa: ASYNC913 -- cancelled soon
                    inner.cancel_scope.cancel()
            if len(got) == count:
                break
            if attempt % 50 == 49:
                await trio.sleep(0.001)  # sockets need the loop
        must(got == messages, "a cancelled receive() must lose nothing")


async def _cancelled_sends(rig: TransportRig, a: Channel, b: Channel) -> None:
    count, sent = 60, []
    got: list[int] = []
    size = 100_000 if rig.max_message_bytes is None else min(100_000, rig.max_message_bytes)

    async def send() -> None:
        for number in range(count):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as inner:
                    inner.start_soon(cancel_after, scope, number % 9)
                    await a.send(_message(number, size))
                    sent.append(number)
                    inner.cancel_scope.cancel()
            await trio.lowlevel.checkpoint()
        await a.send(_message(count, size))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        while not got or got[-1] != count:
            message = await get(b, "messages after a cancelled send()")
            number = int(message.partition(b":")[0])
            must(message == _message(number, size), "a cancelled send() must send all or nothing")
            got.append(number)
    must(got == sorted(set(got)), "messages must keep their order, and come once")
    must(set(sent) <= set(got), "a message must arrive once its send() has returned")


async def _a_lost_connection_is_no_end(rig: TransportRig, a: Channel, b: Channel) -> None:
    broken = trio.BrokenResourceError
    async with trio.open_nursery() as nursery:
        what = "receive() that waits while the connection is lost"
        nursery.start_soon(must_raise, broken, a.receive, what)
        nursery.start_soon(must_raise, broken, b.receive, what)
        await trio.sleep(0.05)
        await rig.break_link()
    for end in (a, b):
        await must_raise(broken, end.receive, "receive() after a lost connection")
        await must_raise(broken, partial(end.send, b"x"), "send() after a lost connection")
        await end.aclose()
        await must_raise(trio.ClosedResourceError, end.receive, "receive() after aclose()")


checks: tuple[Check, ...] = (
    _whole_and_in_order,
    _both_ways_and_many_senders,
    _everything_is_a_checkpoint,
    _too_large_is_refused,
    _closing_is_an_end,
    _closing_wakes_who_receives,
    _a_cancelled_close_closes,
    _two_receivers,
    _cancelled_receives,
    _cancelled_sends,
    _a_lost_connection_is_no_end,
)


async def _fill(rig: TransportRig, a: Channel, limit: int) -> int:
    """Send until `send` blocks; return how many messages were sent."""
    size = 64 << 10 if rig.max_message_bytes is None else min(64 << 10, rig.max_message_bytes)
    sent = 0
    while sent * size <= limit:
        with trio.move_on_after(_BLOCKED_AFTER) as scope:
            await a.send(_message(sent, size))
            sent += 1
        if scope.cancelled_caught:
            return sent
    must(False, f"{limit} bytes were sent but not received; a sender must wait")
    return sent


def backpressure(limit: int) -> Check:
    """Make the check that a sender waits while nothing is received, and nothing is lost."""

    async def a_sender_blocks(rig: TransportRig, a: Channel, b: Channel) -> None:
        sent = await _fill(rig, a, limit)
        for number in range(sent):
            got = await get(b, "a queued message")
            must(got.startswith(b"%d:" % number), "messages must keep their order")
        with trio.move_on_after(_BLOCKED_AFTER):  # the send that blocked and was cancelled
            await b.receive()
        await _pass_one(a, b, "a message after a sender blocked")

    return a_sender_blocks


def closing_is_bounded(seconds: float) -> Check:
    """Check that a peer that does not receive cannot hold up a close."""

    async def closing_ends(rig: TransportRig, a: Channel, b: Channel) -> None:
        await _fill(rig, a, 1 << 40)
        with trio.move_on_after(seconds) as scope:
            await a.aclose()
        must(not scope.cancelled_caught, f"aclose() must end within {seconds} s")
        with trio.move_on_after(seconds) as scope:
            await b.aclose()
        must(not scope.cancelled_caught, f"aclose() must end within {seconds} s")

    return closing_ends
