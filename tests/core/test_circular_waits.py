"""Builds that wait for builds: what could never end is found out at once, the rest goes on.

Invariants 42 and 43.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from math import inf
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from bridgepool import (
    BuildError,
    BuildOutcome,
    BuildTimeoutError,
    CachedBridgePool,
    CircularWaitError,
    ProviderSnapshot,
    VersionedSingleflight,
    open_bridge_pool,
    open_singleflight,
)
from bridgepool._flights import Flight, path_between
from tests.core.rig import providers

Pool = CachedBridgePool[str, int, str]


@attrs.define(eq=False)
class Nested:
    """An `open_bridge` whose bridges are made of others: `needs` tells of which."""

    needs: dict[str, list[str]]
    pool: Pool | None = None
    # builds under way that do not wait for another, and how many of them there were at most
    working: int = 0
    most_working: int = 0

    @asynccontextmanager
    async def open(self, key: str, snapshot: ProviderSnapshot[int]) -> AsyncIterator[str]:
        assert self.pool is not None
        await self.work()
        async with AsyncExitStack() as stack:
            leases = [self.pool.acquire(other) for other in self.needs.get(key, [])]
            parts = [await stack.enter_async_context(lease) for lease in leases]
            await self.work()
            yield f"{key}({','.join(parts)})"

    async def work(self) -> None:
        self.working += 1
        self.most_working = max(self.working, self.most_working)
        await trio.sleep(0.01)
        self.working -= 1


@asynccontextmanager
async def open_nested(needs: dict[str, list[str]], **options: Any) -> AsyncIterator[Pool]:
    bridges = Nested(needs)
    async with open_bridge_pool(bridges.open, providers(1), **options) as pool:
        bridges.pool = pool
        yield pool


async def failure(pool: Pool, key: str) -> CircularWaitError:
    """Return what stands at the end of the causes of a failed acquire, which took no time."""
    with pytest.raises(BuildError) as caught:
        async with pool.acquire(key):
            raise AssertionError("it was built")
    error: BaseException | None = caught.value
    while isinstance(error, BuildError):
        error = error.__cause__
    assert isinstance(error, CircularWaitError)
    assert str(error) in str(caught.value)
    return error


async def test_a_build_that_acquires_its_own_key_fails_at_once(autojump_clock: MockClock) -> None:
    """It waited for itself until its `build_timeout`."""
    async with open_nested({"a": ["a"]}) as pool:
        error = await failure(pool, "a")
        assert error.chain == ("a", "a")
        assert str(error) == "builds wait for each other: 'a' -> 'a'"
        assert trio.current_time() < 1
        assert pool.statistics().builds[BuildOutcome.FAILED] == 1


async def test_a_ring_of_builds_fails_at_once_and_names_the_chain(
    autojump_clock: MockClock,
) -> None:
    async with open_nested({"a": ["b"], "b": ["c"], "c": ["a"]}) as pool:
        error = await failure(pool, "a")
        assert error.chain == ("c", "a", "b", "c")
        assert trio.current_time() < 1


async def test_a_ring_through_two_pools_and_a_singleflight_is_found_too(
    autojump_clock: MockClock,
) -> None:
    @asynccontextmanager
    async def open_outer(key: str, snapshot: ProviderSnapshot[int]) -> AsyncIterator[str]:
        async with inner.acquire("inner") as bridge:
            yield bridge

    @asynccontextmanager
    async def open_inner(key: str, snapshot: ProviderSnapshot[int]) -> AsyncIterator[str]:
        yield await flights.do("flight", 1, back_to_the_outer)

    async def back_to_the_outer() -> str:
        async with outer.acquire("outer") as bridge:
            return bridge

    async with (
        open_singleflight() as flights,
        open_bridge_pool(open_outer, providers(1)) as outer,
        open_bridge_pool(open_inner, providers(1)) as inner,
    ):
        error = await failure(outer, "outer")
        assert error.chain == ("flight", "outer", "inner", "flight")
        assert trio.current_time() < 1


Fn = Callable[[], Awaitable[object]]


@pytest.mark.parametrize("keys", ["a", "ab", "abc"])
async def test_a_run_that_asks_for_itself_fails_at_once_and_names_the_chain(
    autojump_clock: MockClock, keys: str
) -> None:
    """It waited for ever: runs have no timeout of their own."""

    def asks_for_next(flights: VersionedSingleflight, number: int) -> Fn:
        after = (number + 1) % len(keys)

        async def fn() -> object:
            return await flights.do(keys[after], 1, asks_for_next(flights, after))

        return fn

    async with open_singleflight() as flights:
        with pytest.raises(BuildError) as caught:
            await flights.do("a", 1, asks_for_next(flights, 0))
        assert f"'{keys[-1]}' -> 'a'" in str(caught.value)
        assert (flights.running, flights.waiting) == (0, 0)


async def test_a_child_of_a_build_is_part_of_it_until_the_build_ends(
    autojump_clock: MockClock,
) -> None:
    found: list[object] = []

    @asynccontextmanager
    async def open_bridge(key: str, snapshot: ProviderSnapshot[int]) -> AsyncIterator[str]:
        async def ask_for_itself() -> None:
            try:
                async with pool.acquire(key) as bridge:
                    found.append(bridge)
            except CircularWaitError as error:
                found.append(error.chain)

        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as children:
                children.start_soon(ask_for_itself)
            nursery.start_soon(ask_for_itself)
            yield "bridge"
            nursery.cancel_scope.cancel()

    async with open_bridge_pool(open_bridge, providers(1)) as pool:
        async with pool.acquire("a"):
            await wait_all_tasks_blocked()
        assert found == [("a", "a"), "bridge"]


async def test_a_build_that_handles_the_error_is_a_good_build(autojump_clock: MockClock) -> None:
    @asynccontextmanager
    async def open_bridge(key: str, snapshot: ProviderSnapshot[int]) -> AsyncIterator[str]:
        with pytest.raises(CircularWaitError):
            async with pool.acquire(key):
                raise AssertionError("it was built")
        yield "alone"

    async with open_bridge_pool(open_bridge, providers(1)) as pool:
        async with pool.acquire("a") as bridge:
            assert bridge == "alone"
        stats = pool.statistics()
        assert (stats.leased, stats.waiting, stats.building) == (0, 0, 0)


async def test_two_builds_may_wait_for_the_same_third(autojump_clock: MockClock) -> None:
    async with open_nested({"a": ["b", "c"], "b": ["d"], "c": ["d"]}) as pool:
        async with pool.acquire("a") as bridge:
            assert bridge == "a(b(d()),c(d()))"
        async with trio.open_nursery() as nursery:
            pool.replace_providers(providers(2))
            for key in "abcd":
                nursery.start_soon(_use, pool, key)
        assert pool.statistics().builds[BuildOutcome.OK] == 8


async def _use(pool: Pool, key: str) -> None:
    async with pool.acquire(key):
        await trio.sleep(0.05)


async def test_a_build_cancelled_while_it_waits_leaves_no_trace_of_that(
    autojump_clock: MockClock,
) -> None:
    async with open_nested({"a": ["b"], "b": ["c"]}, abandon_grace=0) as pool:
        with trio.move_on_after(0.015):
            await _use(pool, "a")
        await trio.sleep(1)
        stats = pool.statistics()
        assert (stats.building, stats.waiting, stats.builds[BuildOutcome.ABANDONED]) == (0, 0, 2)
        await _use(pool, "a")


def test_paths_lead_by_every_way_but_through_what_has_landed() -> None:
    a, b, c, d = (Flight[str, int](key, 1, trio.CancelScope(), 0.0, inf, inf) for key in "abcd")
    a.waits_for, b.waits_for, c.waits_for = [b, c], [d], [d]
    assert [flight.key for flight in path_between(a, d)] in (["a", "b", "d"], ["a", "c", "d"])
    assert path_between(d, a) == []
    assert path_between(a, a) == [a]
    b.landed = True
    assert path_between(a, d) == [a, c, d]
    c.landed = True
    assert path_between(a, d) == []


# -- places -------------------------------------------------------------------------------


async def test_a_build_that_another_one_waits_for_needs_no_turn(
    autojump_clock: MockClock,
) -> None:
    """With one build at a time it waited for the place of the one that waited for it."""
    bridges = Nested({f"user{n}": ["team"] for n in range(5)} | {"team": ["root"]})
    async with open_bridge_pool(bridges.open, providers(1), max_concurrent_builds=1) as pool:
        bridges.pool = pool
        async with trio.open_nursery() as nursery:
            for n in range(5):
                nursery.start_soon(_use, pool, f"user{n}")
        assert trio.current_time() < 1
        assert pool.statistics().builds[BuildOutcome.OK] == 7
        assert bridges.most_working == 1


async def test_it_comes_first_also_when_it_has_queued_before(autojump_clock: MockClock) -> None:
    async with open_nested({"a": ["d"]}, max_concurrent_builds=1) as pool:
        async with trio.open_nursery() as nursery:
            for key in "abcd":  # `d` queues last, as the first of them begins
                nursery.start_soon(_use, pool, key)
        assert trio.current_time() < 1
        assert pool.statistics().builds[BuildOutcome.OK] == 4


async def test_builds_that_wait_for_it_elsewhere_do_not_put_it_first(
    autojump_clock: MockClock,
) -> None:
    """The bound holds for what a build of another pool wants: no place is held for that."""
    most = 0
    working = 0

    @asynccontextmanager
    async def open_inner(key: str, snapshot: ProviderSnapshot[int]) -> AsyncIterator[str]:
        nonlocal working, most
        working += 1
        most = max(most, working)
        await trio.sleep(0.01)
        working -= 1
        yield key

    @asynccontextmanager
    async def open_outer(key: str, snapshot: ProviderSnapshot[int]) -> AsyncIterator[str]:
        async with inner.acquire(key) as bridge:
            yield bridge

    async with (
        open_bridge_pool(open_inner, providers(1), max_concurrent_builds=2) as inner,
        open_bridge_pool(open_outer, providers(1)) as outer,
        trio.open_nursery() as nursery,
    ):
        for n in range(10):
            nursery.start_soon(_use, outer, str(n))
        await trio.sleep(10)
        assert most == 2
        assert outer.statistics().builds[BuildOutcome.OK] == 10


async def test_where_no_bridge_may_live_beside_the_build_that_wants_it_that_is_said_at_once(
    autojump_clock: MockClock,
) -> None:
    async with open_nested({"user": ["team"]}, max_live=1) as pool:
        error = await failure(pool, "user")
        assert error.chain == ("user", "team", "user")
        assert error.reason == "'team' lacks a place: max_live=1"
        assert str(error).endswith("'user' -> 'team' -> 'user' ('team' lacks a place: max_live=1)")
        assert trio.current_time() < 1
        async with pool.acquire("team") as bridge:
            assert bridge == "team()"


async def test_builds_that_hold_all_places_and_wait_for_one_without_find_it_out_at_once(
    autojump_clock: MockClock,
) -> None:
    needs = {"user1": ["team"], "user2": ["user1"], "user3": ["team"]}
    for keys, live in ((["user1", "user3"], 2), (["user2"], 2), (["user1", "user2", "user3"], 3)):
        began = trio.current_time()
        async with open_nested(needs, max_live=live) as pool, trio.open_nursery() as nursery:
            for key in keys:
                nursery.start_soon(failure, pool, key)
            await trio.sleep(0.5)
            assert pool.statistics().waiting == 0
        assert trio.current_time() - began < 1


async def test_the_last_build_that_gets_stuck_finds_it_out_and_the_others_go_on(
    autojump_clock: MockClock,
) -> None:
    """`team` has queued when `late` comes to wait for it, and gets the place of `late`."""
    async with open_nested({"user": ["team"], "late": ["team"]}, max_live=2) as pool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_use, pool, "user")
            await trio.sleep(0.005)
            error = await failure(pool, "late")
            assert error.chain == ("user", "team", "user")
        assert trio.current_time() < 1
        assert pool.statistics().builds[BuildOutcome.OK] == 2


async def test_while_a_bridge_may_still_close_a_nested_build_waits_for_its_place(
    autojump_clock: MockClock,
) -> None:
    async with open_nested({"user": ["team"]}, max_live=2) as pool, trio.open_nursery() as nursery:
        async with pool.acquire("other"):
            nursery.start_soon(_use, pool, "user")
            await trio.sleep(1)
            assert (pool.statistics().building, pool.statistics().queued) == (1, 1)
        await trio.sleep(1)
        assert pool.statistics().listed == 2


async def test_a_nested_build_that_gets_no_place_in_time_ends_with_the_build_that_wants_it(
    autojump_clock: MockClock,
) -> None:
    async with (
        open_nested({"user": ["team"]}, max_live=2, build_timeout=5) as pool,
        pool.acquire("other"),
    ):
        with pytest.raises(BuildTimeoutError):
            await _use(pool, "user")
        await trio.sleep(5)
        assert (pool.statistics().building, pool.statistics().queued) == (0, 0)
