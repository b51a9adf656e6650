"""The contract of a message channel between two ends, to be run over any implementation."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

import hypothesis
import hypothesis.strategies as st
import trio
import trio.testing

from ._groups import first_of
from ._transport_checks import backpressure, checks, closing_is_bounded
from ._transport_promises import (
    HANG,
    Channel,
    Check,
    TransportPromiseBrokenError,
    TransportRig,
    must,
)
from ._transport_script import STEPS, play

OpenRig: TypeAlias = Callable[[], AbstractAsyncContextManager[TransportRig]]


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
    end; everything is a checkpoint. First each promise by itself, for both ends, then scripts that
    Hypothesis makes.

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
            with trio.move_on_after(6 * HANG) as scope:
                await check(rig, a, b)
            must(not scope.cancelled_caught, f"{check.__name__} hangs")

    try:
        trio.run(main, clock=make_clock())
    except BaseExceptionGroup as group:
        raise first_of(TransportPromiseBrokenError, group) or group from None
