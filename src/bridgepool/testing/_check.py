"""Property checks for users: give them your part, they run scripts against it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import hypothesis
import hypothesis.strategies as st
import trio
import trio.testing

from ._bridges import InnerOpen, PoolPromiseBrokenError
from ._driver import Choices, Driver
from ._groups import first_of


def pool_scripts(max_steps: int = 40) -> st.SearchStrategy[tuple[int, ...]]:
    """Generate scripts for `run_pool_script`: numbers, each of which stands for a choice.

    Args:
        max_steps: About how many steps a script has at most.
    """
    # The length first: lists of their own accord are mostly short, and races need a history.
    sizes = st.integers(1, max_steps).map(lambda steps: 12 + 4 * steps)
    return sizes.flatmap(lambda size: st.binary(min_size=size, max_size=size)).map(tuple)


def run_pool_script(script: tuple[int, ...], open_bridge: InnerOpen | None = None) -> None:
    """Run one script against a pool, on a mock clock, and hold the pool to its invariants.

    Args:
        script: Made by `pool_scripts`.
        open_bridge: Your own, called with a `str` key and a snapshot of one `int`; None to
            test the pool alone.

    Raises:
        PoolPromiseBrokenError: An invariant does not hold. The message tells its number in
            `docs/invariants.md`, and the steps that led there.
    """
    choices = Choices(script)
    clock = trio.testing.MockClock()

    async def main() -> None:
        await Driver(choices, open_bridge).run(clock)

    with _quiet_pool_log():
        try:
            trio.run(main, clock=clock)
        except BaseExceptionGroup as group:
            broken = first_of(PoolPromiseBrokenError, group) or group
            broken.add_note("steps: " + "; ".join(choices.trace))
            raise broken from None


def check_pool(
    open_bridge: InnerOpen | None = None,
    *,
    max_examples: int = 100,
    max_steps: int = 40,
    settings: hypothesis.settings | None = None,
) -> None:
    """Hold a pool that builds your bridges to all its invariants, under generated scripts.

    Each script acquires, releases, cancels, replaces, lets builds succeed, fail or time out,
    crashes bridges, moves the clock, leaves the block or cancels it; in any order, and within
    one tick. Your `open_bridge` is entered when the script lets a build succeed, and left when
    the pool closes the bridge. It must not wait for real time or real input.

    Args:
        open_bridge: As `open_bridge_pool` takes it; the key is a `str`, a provider an `int`.
        max_examples: How many scripts.
        max_steps: How long the longest.
        settings: Hypothesis settings to start from, a profile of yours for example.

    Raises:
        PoolPromiseBrokenError: With the shortest script found that breaks an invariant.
    """

    @hypothesis.settings(
        settings or hypothesis.settings(), max_examples=max_examples, deadline=None
    )
    @hypothesis.given(script=pool_scripts(max_steps), schedule=st.random_module())
    def scripts_keep_the_invariants(script: tuple[int, ...], schedule: object) -> None:
        run_pool_script(script, open_bridge)

    scripts_keep_the_invariants()


@contextmanager
def _quiet_pool_log() -> Iterator[None]:
    """Scripts crash bridges by the thousand; what the pool logs of that is no news."""
    log = logging.getLogger("bridgepool.pool")
    was_disabled, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = was_disabled
