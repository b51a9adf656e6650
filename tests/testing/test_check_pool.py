"""`check_pool` passes good bridges and finds what is wrong with bad ones."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import Phase, settings

from bridgepool import ProviderSnapshot
from bridgepool.testing import BridgeFactory, PoolPromiseBrokenError, check_pool, run_pool_script

Snapshot = ProviderSnapshot[int]
# That it is found is what matters here; making the script short takes a minute.
UNSHRUNK = settings(phases=[Phase.generate])


@asynccontextmanager
async def open_good_bridge(key: str, snapshot: Snapshot) -> AsyncIterator[object]:
    """Hold a nursery open, as a bridge with upstream connections would."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        await trio.lowlevel.checkpoint()
        yield object()
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_bridge_that_raises_as_it_closes(
    key: str, snapshot: Snapshot
) -> AsyncIterator[object]:
    yield object()
    raise RuntimeError("left a file open")


@asynccontextmanager
async def open_bridge_that_closes_for_ever(key: str, snapshot: Snapshot) -> AsyncIterator[object]:
    yield object()
    with trio.CancelScope(shield=True, deadline=trio.current_time() + 20):
        await trio.sleep_forever()


def test_a_good_bridge_passes() -> None:
    check_pool(open_good_bridge, max_examples=50)


def test_a_bridge_that_raises_as_it_closes_is_found() -> None:
    with pytest.raises(PoolPromiseBrokenError, match="raised during its close"):
        check_pool(open_bridge_that_raises_as_it_closes, max_examples=50, settings=UNSHRUNK)


def test_a_bridge_that_ignores_the_close_timeout_is_found() -> None:
    with pytest.raises(PoolPromiseBrokenError, match="took longer than 5 s to close"):
        check_pool(open_bridge_that_closes_for_ever, max_examples=50, settings=UNSHRUNK)
    with pytest.raises(PoolPromiseBrokenError, match="invariant 31"):
        check_pool(
            open_bridge_that_closes_for_ever,
            close_timeout=30,
            max_examples=50,
            settings=UNSHRUNK,
        )


@asynccontextmanager
async def open_bridge_that_closes_slowly(key: str, snapshot: Snapshot) -> AsyncIterator[object]:
    yield object()
    await trio.sleep(7)


def test_a_bridge_that_overruns_its_close_is_found_unless_the_pool_gives_it_the_time() -> None:
    """The scripts cut it off as the pool does, and said nothing."""
    with pytest.raises(PoolPromiseBrokenError, match="took longer than 5 s to close"):
        check_pool(open_bridge_that_closes_slowly, max_examples=1)
    check_pool(open_bridge_that_closes_slowly, close_timeout=8, max_examples=1)


@asynccontextmanager
async def open_no_bridge(key: str, snapshot: Snapshot) -> AsyncIterator[object]:
    await trio.lowlevel.checkpoint()
    raise OSError("the server is down")
    yield


def test_a_bridge_that_never_opens_is_not_taken_for_a_sound_one() -> None:
    """No script would reach it, and each would pass."""
    says = r"your bridge of 'a' could not be opened: OSError\('the server is down'\)"
    with pytest.raises(PoolPromiseBrokenError, match=says):
        check_pool(open_no_bridge, max_examples=5)


@asynccontextmanager
async def open_in_real_time(key: str, snapshot: Snapshot) -> AsyncIterator[object]:
    await trio.to_thread.run_sync(threading.Event().wait, 0.05)
    yield key


def test_a_bridge_that_needs_real_time_is_told_that_none_passes() -> None:
    with pytest.raises(PoolPromiseBrokenError, match="no time passes on the mock clock"):
        check_pool(open_in_real_time, max_examples=5)


@asynccontextmanager
async def open_without_closing_its_nursery(key: str, snapshot: Snapshot) -> AsyncIterator[object]:
    await trio.open_nursery().__aenter__()
    yield key


def test_a_bridge_that_leaves_its_nursery_open_breaks_a_promise() -> None:
    """The group of Trio's own error came out."""
    says = r"your bridge of 'a', alone: RuntimeError\(.Nursery stack corrupted"
    with pytest.raises(PoolPromiseBrokenError, match=says):
        check_pool(open_without_closing_its_nursery, max_examples=5)


def test_a_failing_script_tells_its_steps_in_words() -> None:
    options, acquire, succeed = (0,) * 12, (0,) * 5, (8, 0, 0)
    script = options + acquire + succeed
    with pytest.raises(PoolPromiseBrokenError) as caught:
        run_pool_script(script, open_bridge_that_raises_as_it_closes)
    (steps,) = caught.value.__notes__
    assert "build_timeout=" in steps
    assert "acquire [settle]; build succeeds [settle]; leave" in steps


async def test_a_factory_by_itself_is_an_open_bridge_that_waits_for_the_test() -> None:
    factory = BridgeFactory()
    entered = trio.Event()

    async def use() -> None:
        async with factory.open_bridge("k", Snapshot([1])) as build:
            assert build.is_open
            entered.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(use)
        await trio.testing.wait_all_tasks_blocked()
        assert not entered.is_set()
        factory.builds[0].succeed()
    assert factory.builds[0].is_closed
