"""What newcomers get wrong is refused where they wrote it, with a sentence that says what to do."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from math import nan
from typing import Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from bridgepool import (
    ChangeBus,
    MemoryReloader,
    ProviderSnapshot,
    ShortLived,
    open_bridge_pool,
    open_singleflight,
    watch_providers,
)
from tests.core.reloading import open_pool
from tests.core.rig import Bridges, providers


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("north", r"providers is a str, not a list of them: write \[provider\]"),
        (b"north", r"providers is a bytes, not a list of them: write \[provider\]"),
        ({"north": 1}, "providers is a dict: give its values, not its keys"),
    ],
)
def test_what_would_be_taken_apart_letter_by_letter_or_key_by_key_is_refused(
    given: Any, says: str
) -> None:
    with pytest.raises(TypeError, match=says):
        ProviderSnapshot(given)


def test_providers_that_could_be_changed_in_place_are_refused_without_showing_them() -> None:
    says = r"provider 1 \(dict\) is not hashable: use tuples and frozen classes"
    with pytest.raises(TypeError, match=says) as caught:
        ProviderSnapshot(["north", {"key": "sk-secret"}])
    assert "sk-secret" not in str(caught.value)
    with pytest.raises(TypeError, match="all the way down"):
        ProviderSnapshot([("north", ["a list in a tuple"])])


def test_providers_that_are_hashable_by_identity_are_taken() -> None:
    @attrs.define(eq=False)
    class Plain:
        name: str

    plain = Plain("north")
    assert ProviderSnapshot(iter([plain])).providers == (plain,)


async def test_a_list_in_place_of_a_snapshot_is_refused() -> None:
    """`mypy` says so, too; not everybody has it."""
    a_list: Any = [1]
    with pytest.raises(TypeError, match="open_bridge_pool needs a ProviderSnapshot, not a list: w"):
        async with open_bridge_pool(Bridges().open, a_list):
            raise AssertionError("it was opened")
    async with open_bridge_pool(Bridges().open, providers(1)) as pool:
        before = pool.statistics()
        with pytest.raises(TypeError, match=r"replace_providers .* write ProviderSnapshot\(\["):
            pool.replace_providers(a_list)
        assert pool.statistics() == before
    with pytest.raises(TypeError, match="MemoryReloader needs a ProviderSnapshot"):
        MemoryReloader(a_list)
    source = MemoryReloader(providers(1))
    with pytest.raises(TypeError, match=r"MemoryReloader\.replace needs a ProviderSnapshot"):
        source.replace(a_list)
    assert source.snapshot == providers(1)


async def _open_a_pool() -> None:
    async with open_bridge_pool(Bridges().open, providers(1)):
        raise AssertionError("it was opened")


async def _open_a_singleflight() -> None:
    async with open_singleflight():
        raise AssertionError("it was opened")


async def _watch() -> None:
    pool: Any = None
    await watch_providers(pool, MemoryReloader(providers(1)), ChangeBus().subscribe())


@pytest.mark.parametrize("enter", [_open_a_pool, _open_a_singleflight, _watch])
def test_on_asyncio_each_entry_point_says_that_this_is_asyncio(
    enter: Callable[[], Awaitable[None]],
) -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match=r"is asyncio; bridgepool runs on Trio: .*howto"):
            await enter()

    asyncio.run(main())


def test_outside_of_any_event_loop_it_says_what_to_start() -> None:
    pool = _open_a_pool()
    with pytest.raises(RuntimeError, match=r"start your program with trio\.run"):
        pool.send(None)


async def test_on_trio_nothing_is_said() -> None:
    with trio.fail_after(1):
        async with open_pool("a") as pool:
            assert pool.generation == 1


@pytest.mark.parametrize("revision", ["x", 1.5, True, b"1"])
def test_a_revision_that_is_no_whole_number_is_refused(revision: Any) -> None:
    """It would be compared with others at the next replacement, and fail there."""
    with pytest.raises(TypeError, match=r"revision is a \w+, not a whole number or None"):
        ProviderSnapshot(["n"], revision)
    assert ProviderSnapshot(["n"], 0).revision == 0


async def _coroutine(key: str, snapshot: object) -> None: ...


async def _generator(key: str, snapshot: object) -> AsyncIterator[int]:
    yield 1


def _plain_generator(key: str, snapshot: object) -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (_generator, "open_bridge must be decorated with @asynccontextmanager"),
        (partial(_generator, "a"), "open_bridge must be decorated with @asynccontextmanager"),
        (_plain_generator, "open_bridge must be decorated with @asynccontextmanager"),
        (_coroutine, "and not be async itself: .* decorate it with @asynccontextmanager"),
        (None, "open_bridge must be callable, not a NoneType"),
        (providers(1), r"open_bridge_pool\(open_bridge, snapshot\): the first argument is the sn"),
    ],
)
async def test_what_cannot_open_a_bridge_is_refused_before_the_first_build(
    given: Any, says: str
) -> None:
    second: Any = Bridges().open if isinstance(given, ProviderSnapshot) else providers(1)
    with pytest.raises(TypeError, match=says):
        async with open_bridge_pool(given, second):
            raise AssertionError("it was opened")


async def test_a_number_as_a_text_is_refused_by_its_name() -> None:
    options: dict[str, Any] = {"drain_timeout": "10"}
    says = "drain_timeout must be a number, not the str '10'"
    with pytest.raises(TypeError, match=says):
        async with open_bridge_pool(Bridges().open, providers(1), **options):
            raise AssertionError("it was opened")


@pytest.mark.parametrize("ttl", [-1, nan])
async def test_a_short_life_that_is_no_time_is_refused(ttl: float) -> None:
    with pytest.raises(ValueError, match="ttl must be 0 or more seconds"):
        ShortLived("bridge", ttl)
    text: Any = "10"
    with pytest.raises(TypeError, match="ttl must be a number, not the str '10'"):
        ShortLived("bridge", text)


@pytest.mark.parametrize("given", [Bridges(), None, 5])
def test_one_provider_in_place_of_a_list_is_told_how_to_be_one(given: Any) -> None:
    says = rf"providers is a {type(given).__name__}, not a list of them: write \[provider\]"
    with pytest.raises(TypeError, match=says):
        ProviderSnapshot(given)


def test_an_epoch_that_is_no_text_is_refused() -> None:
    """No follower could read a set of rows that has it."""
    number: Any = 7
    with pytest.raises(TypeError, match="epoch is a int, not a text or None"):
        ProviderSnapshot(["north"], 1, number)


async def test_a_watcher_is_refused_what_it_could_only_retry_for_ever() -> None:
    wrong: Any = ChangeBus()
    source = MemoryReloader(ProviderSnapshot(["a"]))
    changes = source.subscribe()
    says = "watch_providers.*: {} needs a method `{}`, and a ChangeBus has none"
    async with open_pool("a") as pool:
        with pytest.raises(TypeError, match=says.format("the pool", "replace_providers")):
            await watch_providers(wrong, source, changes)
        with pytest.raises(TypeError, match=says.format("the reloader", "reload")):
            await watch_providers(pool, wrong, changes)
        with pytest.raises(TypeError, match=says.format("the channel of changes", "receive")):
            await watch_providers(pool, source, wrong)


async def test_a_reload_that_is_not_async_is_refused() -> None:
    class Source:
        def reload(self) -> ProviderSnapshot[str]:
            return ProviderSnapshot(["north"])

    source: Any = Source()
    async with open_pool("a") as pool:
        with pytest.raises(TypeError, match=r"Source\.reload must be async: write `async def"):
            await watch_providers(pool, source, ChangeBus().subscribe())


async def _in_another_run(use: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(RuntimeError, match=r"another Trio run.* trio\.from_thread\.run"):
        await trio.to_thread.run_sync(lambda: trio.run(use))


async def test_a_pool_used_from_another_run_says_so_and_goes_on() -> None:
    """A build that nobody runs would block its key, and the end of the pool, for ever."""
    bridges = Bridges(held=True)
    async with open_bridge_pool(bridges.open, providers(1)) as pool:

        async def acquire() -> None:
            async with pool.acquire("a"):
                raise AssertionError("it was leased")

        await _in_another_run(acquire)  # on a miss
        async with trio.open_nursery() as nursery:

            async def wait_for_the_build() -> None:
                async with pool.acquire("a") as bridge:
                    assert bridge is bridges.last

            nursery.start_soon(wait_for_the_build)
            await wait_all_tasks_blocked()
            await _in_another_run(acquire)  # while it is built
            assert pool.statistics().waiting == 1
            bridges.last.succeed()
        with pytest.raises(RuntimeError, match="another thread"):
            await trio.to_thread.run_sync(pool.replace_providers, providers(2))
        await _in_another_run(partial(pool.wait_drained, 1))
        assert pool.generation == 1
        assert pool.statistics().building == 0


async def test_a_singleflight_used_from_another_run_says_so_and_goes_on() -> None:
    async def fn() -> int:
        await trio.lowlevel.checkpoint()
        return 1

    async with open_singleflight() as flights:
        await _in_another_run(partial(flights.do, "a", 1, fn))
        assert (flights.running, flights.waiting) == (0, 0)
        assert await flights.do("a", 1, fn) == 1


async def test_a_source_set_from_another_run_says_so_and_keeps_its_providers() -> None:
    """To wake the watcher from there would end its run by an internal error."""
    source = MemoryReloader(ProviderSnapshot(["a"]))
    async with open_pool("a") as pool, trio.open_nursery() as nursery:
        await nursery.start(watch_providers, pool, source, source.subscribe())
        await wait_all_tasks_blocked()
        with pytest.raises(RuntimeError, match="another thread"):
            await trio.to_thread.run_sync(source.replace, ProviderSnapshot(["b"]))

        async def replace() -> None:
            await trio.lowlevel.checkpoint()
            source.replace(ProviderSnapshot(["c"]))

        await _in_another_run(replace)
        assert source.snapshot.providers == ("a",)
        await trio.to_thread.run_sync(
            trio.from_thread.run_sync, source.replace, ProviderSnapshot(["d"])
        )
        await wait_all_tasks_blocked()
        assert source.snapshot.providers == ("d",)
        nursery.cancel_scope.cancel()
