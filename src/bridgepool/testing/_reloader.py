"""Checks any `ProviderReloader` against its contract."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol, TypeAlias, TypeVar

import hypothesis
import hypothesis.strategies as st
import trio
import trio.testing

from .._errors import ReloadError
from .._pool import open_bridge_pool
from .._reload import ProviderReloader, watch_providers
from .._snapshot import ProviderSnapshot
from ._running import cancel_after, naming, run_check

P = TypeVar("P")
P_co = TypeVar("P_co", covariant=True)

# Maximum number of cancelled reloads, each one tick later.
_CANCELLED_RELOADS = 50


class ReloaderPromiseBrokenError(AssertionError):
    """A reloader breaks its contract; the message names the part."""


class ReloaderRig(Protocol[P_co]):
    """A reloader under test, with methods that change and break its source."""

    @property
    def reloader(self) -> ProviderReloader[P_co]:
        """The reloader."""
        ...

    @property
    def changes(self) -> trio.abc.ReceiveChannel[None]:
        """Its notices; opened before the rig is yielded."""
        ...

    async def change(self, number: int) -> None:
        """Change the source's providers, differently for each `number`, and send a notice."""
        ...

    async def break_source(self) -> None:
        """Make the source unusable, so that reloads fail, until the next `change`."""
        ...


OpenRig: TypeAlias = Callable[[], AbstractAsyncContextManager[ReloaderRig[P]]]


def check_reloader(
    open_rig: OpenRig[P],
    *,
    max_examples: int = 20,
    make_clock: Callable[[], trio.abc.Clock] = lambda: trio.testing.MockClock(autojump_threshold=0),
) -> None:
    """Check a reloader against the contract of `ProviderReloader`.

    Its snapshots agree with the source, and are equal while nothing changes. Revisions, if it has
    any, grow with each change. While the source is unusable, `reload` raises `ReloadError` and
    nothing else. `reload` is a checkpoint, and still works after a call was cancelled anywhere. A
    pool that follows the notices reaches the last state of the source, after any sequence of
    changes and failures.

    Args:
        open_rig: Opens a new source with a reloader on it, for one script.
        max_examples: Number of scripts of changes and failures.
        make_clock: Makes the clock of each run. The default jumps when all tasks are blocked;
            a rig that waits for files, threads or sockets needs a real clock, such as
            `trio.testing.MockClock(rate=1)`.

    Raises:
        ReloaderPromiseBrokenError: The reloader breaks the contract.
    """
    _run(open_rig, make_clock, _check_reloads, "reloads of a source that works")
    _run(open_rig, make_clock, _check_cancellation, "a reload after a cancelled one")
    steps = st.lists(st.sampled_from(("change", "break", "wait")), max_size=12)

    @hypothesis.settings(max_examples=max_examples, deadline=None)
    @hypothesis.given(steps)
    def followers_converge(steps: Sequence[str]) -> None:
        async def check(rig: ReloaderRig[P]) -> None:
            await _check_following(rig, steps)

        _run(open_rig, make_clock, check, "a pool that follows the notices")

    followers_converge()


def _run(
    open_rig: OpenRig[P],
    make_clock: Callable[[], trio.abc.Clock],
    check: Callable[[ReloaderRig[P]], Awaitable[None]],
    part: str,
) -> None:
    async def main() -> None:
        async with open_rig() as rig:
            with naming(part, ReloaderPromiseBrokenError):
                await check(rig)

    run_check(main, make_clock(), ReloaderPromiseBrokenError)


def _must(holds: bool, what: str) -> None:
    if not holds:
        raise ReloaderPromiseBrokenError(what)


async def _check_reloads(rig: ReloaderRig[P]) -> None:
    await rig.change(1)
    try:
        with trio.testing.assert_checkpoints():
            first = await rig.reloader.reload()
    except AssertionError:
        raise ReloaderPromiseBrokenError("reload() must be a checkpoint") from None
    _must(isinstance(first, ProviderSnapshot), "reload() must return a ProviderSnapshot")
    again = await rig.reloader.reload()
    _must(first.same_providers(again), "two reloads without a change must be equal")
    await rig.change(2)
    changed = await rig.reloader.reload()
    _must(not first.same_providers(changed), "a reload after a change must show it")
    _must(not changed.older_than(first), "revisions must not go back")
    grows = first.revision is None or first.older_than(changed) or first.epoch != changed.epoch
    _must(grows, "a revision must grow with each change")
    await rig.break_source()
    try:
        await rig.reloader.reload()
    except ReloadError as error:
        _must(bool(str(error)), "a ReloadError must say what is wrong")
    except Exception as error:
        raise ReloaderPromiseBrokenError(f"reload() raised {error!r}, not a ReloadError") from error
    else:
        raise ReloaderPromiseBrokenError("reload() of a broken source must raise ReloadError")
    await rig.change(3)
    mended = await rig.reloader.reload()
    _must(not mended.same_providers(changed), "a source that works again must be read")
    _must(not mended.older_than(changed), "revisions must not go back")


async def _check_cancellation(rig: ReloaderRig[P]) -> None:
    await rig.change(1)
    expected = await rig.reloader.reload()
    uncancelled = 0
    for ticks in range(_CANCELLED_RELOADS):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                if ticks == 0:
                    scope.cancel()
                nursery.start_soon(cancel_after, scope, ticks)
                await rig.reloader.reload()
                nursery.cancel_scope.cancel()
        after = await rig.reloader.reload()
        _must(expected.same_providers(after), "a cancelled reload must not affect the next one")
        uncancelled += not scope.cancelled_caught
        if uncancelled == 3:  # reloads end within fewer ticks; one alone could be chance
            break


@asynccontextmanager
async def _open_nothing(key: str, snapshot: ProviderSnapshot[P]) -> AsyncIterator[None]:
    yield None


async def _check_following(rig: ReloaderRig[P], steps: Sequence[str]) -> None:
    nothing = ProviderSnapshot[P](())
    await rig.change(0)
    async with open_bridge_pool(_open_nothing, nothing) as pool, trio.open_nursery() as nursery:
        await nursery.start(watch_providers, pool, rig.reloader, rig.changes)
        for number, step in enumerate(steps, 1):
            before = pool.snapshot
            if step == "change":
                await rig.change(number)
            elif step == "break":
                await rig.break_source()
            else:
                await trio.sleep(1)
            _must(not pool.snapshot.older_than(before), "revisions in force must not go back")
        await rig.change(len(steps) + 1)
        last = await rig.reloader.reload()
        wait = 0.05
        with trio.move_on_after(60):  # far more than the longest wait for a retry
            while not pool.snapshot.same_providers(last):  # noqa: ASYNC110 -- it has no event
                await trio.sleep(wait)
                wait = min(2 * wait, 10)
        reached = pool.snapshot.same_providers(last)
        _must(reached, "a pool that follows the notices must reach the source's last state")
        nursery.cancel_scope.cancel()
