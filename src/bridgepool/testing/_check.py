"""Property checks of a user's bridges: they run generated scripts."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import hypothesis
import hypothesis.strategies as st
import trio
import trio.testing

from .._errors import BuildError, BuildTimeoutError
from .._pool import open_bridge_pool
from .._snapshot import ProviderSnapshot
from ._bridges import InnerOpen, PoolPromiseBrokenError
from ._driver import Choices, Driver
from ._running import naming, run_check


def pool_scripts(max_steps: int = 40) -> st.SearchStrategy[tuple[int, ...]]:
    """Generate scripts for `run_pool_script`: numbers, each of which stands for a choice.

    Args:
        max_steps: About how many steps a script has at most.
    """
    # The length first: lists of their own accord are mostly short, and races need a history.
    sizes = st.integers(1, max_steps).map(lambda steps: 12 + 4 * steps)
    return sizes.flatmap(lambda size: st.binary(min_size=size, max_size=size)).map(tuple)


def run_pool_script(script: tuple[int, ...], open_bridge: InnerOpen | None = None) -> None:
    """Run one script against a pool, on a mock clock, and check the pool's invariants.

    Args:
        script: Made by `pool_scripts`.
        open_bridge: Your own, called with a `str` key and a snapshot of one `int`; None to
            test the pool alone.

    Raises:
        PoolPromiseBrokenError: An invariant is broken. The message has its number in
            `docs/invariants.md`, and the steps that led to it.
    """
    choices = Choices(script)
    clock = trio.testing.MockClock()

    async def main() -> None:
        await Driver(choices, open_bridge).run(clock)

    with _quiet_pool_log():
        try:
            run_check(main, clock, PoolPromiseBrokenError)
        except (PoolPromiseBrokenError, BaseExceptionGroup) as broken:
            broken.add_note("steps: " + "; ".join(choices.trace))
            raise


def check_pool(
    open_bridge: InnerOpen | None = None,
    *,
    close_timeout: float = 5.0,
    max_examples: int = 100,
    max_steps: int = 40,
    settings: hypothesis.settings | None = None,
) -> None:
    """Check all invariants of a pool that builds your bridges, under generated scripts.

    Each script acquires, releases, cancels, replaces, lets builds succeed, fail or time out,
    crashes bridges, advances the clock, leaves the block or cancels it; in any order, and within
    one tick. Your `open_bridge` is entered when the script lets a build succeed, and exited when
    the pool closes the bridge. It must not wait for real time or real input. Before the scripts,
    one of your bridges is opened and closed alone, to check that it opens, and closes in time:
    builds that always fail would keep every invariant.

    Args:
        open_bridge: As `open_bridge_pool` takes it. The key is a `str`, a provider an `int`: a
            function can make your own providers of it, and return your context manager.
        close_timeout: Seconds that a bridge may take to close, as in your pool.
        max_examples: Number of scripts.
        max_steps: Maximum number of steps of a script.
        settings: Hypothesis settings to start from, for example a profile of yours.

    Raises:
        PoolPromiseBrokenError: An invariant is broken (with the shortest script found), or your
            bridge could not be opened, or its close took too long.
    """
    if open_bridge is not None:
        _check_alone(open_bridge, close_timeout)

    @hypothesis.settings(
        settings or hypothesis.settings(), max_examples=max_examples, deadline=None
    )
    @hypothesis.given(script=pool_scripts(max_steps), schedule=st.random_module())
    def scripts_keep_the_invariants(script: tuple[int, ...], schedule: object) -> None:
        run_pool_script(script, open_bridge)

    scripts_keep_the_invariants()


def _check_alone(open_bridge: InnerOpen, close_timeout: float) -> None:
    """Open and close one bridge in a pool of its own, on a clock that jumps when all tasks wait.

    Scripts cannot check the close, because their clock also jumps past the end of a quick one.
    """

    async def main() -> int:
        snapshot = ProviderSnapshot([1])
        async with open_bridge_pool(open_bridge, snapshot, close_timeout=close_timeout) as pool:
            try:
                async with pool.acquire("a"):
                    pass
            except BuildError as error:
                cause = error.__cause__
                problem = f"your bridge of 'a' could not be opened: {cause or error!r}"
                if isinstance(error, BuildTimeoutError):
                    problem += "; no time passes on the mock clock for threads, files and sockets"
                raise PoolPromiseBrokenError(problem) from cause
        return pool.statistics().close_overruns

    with _quiet_pool_log(), naming("your bridge of 'a', alone", PoolPromiseBrokenError):
        overruns = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    if overruns:
        raise PoolPromiseBrokenError(f"your bridge took longer than {close_timeout:g} s to close")


@contextmanager
def _quiet_pool_log() -> Iterator[None]:
    """Suppress the log lines of the thousands of bridges that scripts crash."""
    log = logging.getLogger("bridgepool.pool")
    was_disabled, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = was_disabled
