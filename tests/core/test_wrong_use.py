"""What newcomers get wrong is refused where they wrote it, with a sentence that says what to do."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import attrs
import pytest
import trio

from bridgepool import (
    ChangeBus,
    MemoryReloader,
    ProviderSnapshot,
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
