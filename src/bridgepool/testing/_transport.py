"""The contract of a message channel between two ends, to be run over any implementation."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NoReturn, Protocol, TypeAlias

import hypothesis
import hypothesis.strategies as st
import trio
import trio.testing

from ._groups import first_of

Channel: TypeAlias = trio.abc.Channel[bytes]

_SIZES = (0, 1, 125, 126, 65535, 65536, 300_000)  # around the limits of frame heads and buffers
# Seconds after which a send counts as held up, and after which a hang is one.
_PATIENCE = 0.5
_HANG = 20.0


class TransportPromiseBrokenError(AssertionError):
    """A transport does not keep the contract; the message tells which part."""


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
        """The largest message that is taken; None for no limit."""
        ...

    async def break_link(self) -> None:
        """Lose the connection as by a cut cable: neither end says goodbye, both find out."""
        ...


OpenRig: TypeAlias = Callable[[], AbstractAsyncContextManager[TransportRig]]
Check: TypeAlias = Callable[[TransportRig, Channel, Channel], Awaitable[None]]


def check_transport(
    open_rig: OpenRig,
    *,
    max_examples: int = 20,
    max_buffered_bytes: int = 64 << 20,
    close_within: float = 10.0,
    make_clock: Callable[[], trio.abc.Clock] = lambda: trio.testing.MockClock(autojump_threshold=0),
) -> None:
    """Hold a transport, a pair of `trio.abc.Channel[bytes]`, to the contract of transports.

    Messages arrive whole, once and in order, whatever their size and however many tasks send;
    what is too large is refused and harms nothing; a sender is held up when nobody receives; a
    cancelled receive loses nothing, a cancelled send sent all or nothing; `aclose` is bounded
    and may be repeated, gives the other end `trio.EndOfChannel` after what was sent, and this
    end `trio.ClosedResourceError`; a lost connection is `trio.BrokenResourceError`, never an
    end; everything is a checkpoint. First each promise by itself, for both ends, then scripts
    that Hypothesis makes.

    Args:
        open_rig: Opens a fresh pair, for one check or one script.
        max_examples: How many scripts.
        max_buffered_bytes: How much may be under way before a sender is held up.
        close_within: The longest that closing may take, in seconds.
        make_clock: Makes the clock of each run. The default jumps when all tasks are blocked;
            a rig of sockets needs one that does not, such as `trio.testing.MockClock(rate=1)`.

    Raises:
        TransportPromiseBrokenError: The transport breaks the contract.
    """
    from ._transport_checks import backpressure, checks, closing_is_bounded
    from ._transport_script import STEPS, play

    for check in (*checks, backpressure(max_buffered_bytes), closing_is_bounded(close_within)):
        for swap in (False, True):
            _run(open_rig, make_clock, check, swap)

    @hypothesis.settings(max_examples=max_examples, deadline=None)
    @hypothesis.given(st.lists(st.sampled_from(STEPS), max_size=20))
    def scripts_keep_the_contract(steps: Sequence[str]) -> None:
        async def check(rig: TransportRig, a: Channel, b: Channel) -> None:
            await play(rig, steps)

        _run(open_rig, make_clock, check, swap=False)

    scripts_keep_the_contract()


def _run(
    open_rig: OpenRig, make_clock: Callable[[], trio.abc.Clock], check: Check, swap: bool
) -> None:
    async def main() -> None:
        async with open_rig() as rig:
            a, b = (rig.right, rig.left) if swap else (rig.left, rig.right)
            with trio.move_on_after(6 * _HANG) as scope:
                await check(rig, a, b)
            must(not scope.cancelled_caught, f"{check.__name__} hangs")

    try:
        trio.run(main, clock=make_clock())
    except BaseExceptionGroup as group:
        raise first_of(TransportPromiseBrokenError, group) or group from None


def must(holds: bool, what: str) -> None:
    """Raise unless it holds."""
    if not holds:
        raise TransportPromiseBrokenError(what)


async def get(end: Channel, what: str) -> bytes:
    """Receive a message that must be there, or come soon."""
    with trio.move_on_after(_HANG):
        try:
            message = await end.receive()
        except Exception as error:
            wrong(f"{what}: receive() raised", error)
        must(type(message) is bytes, f"a message is bytes, not {type(message).__name__}")
        return message
    raise TransportPromiseBrokenError(f"{what}: nothing was received")


async def ends_with(
    kind: type[Exception], operation: Callable[[], Awaitable[object]], what: str
) -> None:
    """Perform an operation that must raise this, sooner or later than after some successes."""
    with trio.move_on_after(_HANG):
        for _ in range(10_000):
            try:
                await operation()
            except kind:
                return
            except Exception as error:
                wrong(f"{what} must raise {kind.__name__}, not", error)
    raise TransportPromiseBrokenError(f"{what} must raise {kind.__name__}")


def wrong(what: str, error: Exception) -> NoReturn:
    """Raise, with what was raised instead."""
    raise TransportPromiseBrokenError(f"{what} {error!r}") from error


async def cancel_after(scope: trio.CancelScope, ticks: int) -> None:
    """Cancel so many scheduler steps from now."""
    for _ in range(ticks):
        await trio.lowlevel.checkpoint()
    scope.cancel()
