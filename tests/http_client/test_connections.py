import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from bridgepool.http import PoolFull
from bridgepool.http._upstream_pool import ConnectionPool


@attrs.define(eq=False)
class Connection:
    due: float = 0


Pool = ConnectionPool[Connection]


async def test_taking_gives_room_for_new_connections_up_to_the_limit() -> None:
    pool = Pool(2, 0)
    assert await pool.take() is None
    assert pool.has_room
    assert await pool.take() is None
    assert not pool.has_room
    with pytest.raises(PoolFull):
        await pool.take()
    assert (pool.taken, pool.idle, pool.waiting) == (2, 0, 0)


async def test_the_connection_kept_last_is_taken_first() -> None:
    pool = Pool(3, 0)
    first, second = Connection(), Connection()
    for _ in range(2):
        await pool.take()
    assert pool.keep(first)
    assert pool.keep(second)
    assert await pool.take() is second
    assert await pool.take() is first
    assert await pool.take() is None


async def test_places_go_to_those_who_wait_in_the_order_they_came() -> None:
    pool = Pool(1, 10)
    connection = Connection()
    served: list[tuple[int, Connection | None]] = []

    async def wait(number: int) -> None:
        served.append((number, await pool.take()))

    async with trio.open_nursery() as nursery:
        await pool.take()
        for number in range(3):
            nursery.start_soon(wait, number)
            await wait_all_tasks_blocked()
        assert pool.waiting == 3
        pool.keep(connection)
        await wait_all_tasks_blocked()
        assert served == [(0, connection)]
        pool.release()
        await wait_all_tasks_blocked()
        pool.release()
    assert served == [(0, connection), (1, None), (2, None)]
    assert (pool.taken, pool.waiting) == (1, 0)


async def test_who_comes_while_others_wait_does_not_overtake_them() -> None:
    pool = Pool(1, 10)
    served: list[str] = []

    async def wait(name: str) -> None:
        await pool.take()
        served.append(name)

    async with trio.open_nursery() as nursery:
        await pool.take()
        nursery.start_soon(wait, "first")
        await wait_all_tasks_blocked()
        pool.release()  # granted, but "first" has not run yet
        nursery.start_soon(wait, "second")
        await wait_all_tasks_blocked()
        assert served == ["first"]
        pool.release()


async def test_a_waiter_that_is_cancelled_is_granted_nothing() -> None:
    pool = Pool(1, 10)
    await pool.take()
    with trio.move_on_after(0) as scope:
        await pool.take()
    assert scope.cancelled_caught
    assert pool.waiting == 0
    pool.release()
    assert pool.taken == 0


async def test_a_grant_that_came_before_the_cancellation_is_not_lost() -> None:
    pool = Pool(1, 10)
    got: list[Connection | None] = []
    await pool.take()
    connection = Connection()

    async def wait() -> None:
        with scope:
            got.append(await pool.take())

    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        pool.keep(connection)
        scope.cancel()
    assert got == [connection]
    assert (pool.taken, pool.idle) == (1, 0)


async def test_draining_sends_everybody_away_and_hands_over_what_was_idle() -> None:
    pool = Pool(2, 10)
    idle, late = Connection(), Connection()
    await pool.take()
    await pool.take()
    refused = 0

    async def wait() -> None:
        nonlocal refused
        with pytest.raises(trio.ClosedResourceError):
            await pool.take()
        refused += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        assert pool.drain() == []
    assert refused == 2
    assert not pool.keep(late)
    with pytest.raises(trio.ClosedResourceError):
        await pool.take()
    other = Pool(1, 0)
    await other.take()
    other.keep(idle)
    assert other.drain() == [idle]


async def test_only_what_is_due_expires() -> None:
    pool = Pool(3, 0)
    connections = [Connection(due) for due in (10, 20, 30)]
    for _ in connections:
        await pool.take()
    for connection in connections:
        pool.keep(connection)
    assert pool.expire(5) == []
    assert pool.expire(20) == connections[:2]
    assert pool.idle == 1


Step = tuple[str, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["take", "keep", "release", "replace", "cancel", "expire"]),
        st.integers(0, 7),
    ),
    max_size=60,
)


@given(STEPS, st.integers(1, 3))
def test_whatever_happens_no_place_is_lost_or_granted_twice(steps: list[Step], limit: int) -> None:
    trio.run(_run_script, steps, limit, clock=MockClock(autojump_threshold=0))


@attrs.define(eq=False)
class _Task:
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    holds: bool = False
    connection: Connection | None = None


async def _run_script(steps: list[Step], limit: int) -> None:
    """Play a script against a naive model: a list of holders, a queue, a set of idle ones."""
    pool = Pool(limit, 1000)
    holders: list[_Task] = []
    queue: list[_Task] = []
    idle: list[Connection] = []

    async def take(task: _Task) -> None:
        with task.scope:
            task.connection = await pool.take()
            task.holds = True

    async def take_step(_: int, nursery: trio.Nursery) -> None:
        task = _Task()
        (holders if len(holders) < limit else queue).append(task)
        expected = idle.pop() if idle else None
        nursery.start_soon(take, task)
        await wait_all_tasks_blocked()
        assert task.holds is (task in holders)
        assert task.connection is expected

    def give(connection: Connection | None) -> None:
        """What the model expects of a place that was given back."""
        if queue:
            holders.append(queue.pop(0))
        elif connection is not None:
            idle.append(connection)

    async def back_step(number: int, connection: Connection | None) -> None:
        if not holders:
            return
        holders.pop(number % len(holders))
        heir = queue[0] if queue else None
        give(connection)
        if connection is None:
            pool.release()
        else:
            assert pool.keep(connection)
        await wait_all_tasks_blocked()
        if heir is not None:
            assert heir.holds
            assert heir.connection is connection

    async def cancel_step(number: int) -> None:
        if queue:
            task = queue.pop(number % len(queue))
            task.scope.cancel()
            await wait_all_tasks_blocked()
            assert not task.holds

    async with trio.open_nursery() as nursery:
        for name, number in steps:
            if name == "take":
                await take_step(number, nursery)
            elif name == "keep":
                await back_step(number, Connection(number))
            elif name == "release":
                await back_step(number, None)
            elif name == "cancel":
                await cancel_step(number)
            elif name == "replace" and holders:
                assert pool.replace() is (idle.pop() if idle else None)
            elif name == "expire":
                assert pool.expire(number) == [c for c in idle if c.due <= number]
                idle = [c for c in idle if c.due > number]
            assert (pool.taken, pool.idle, pool.waiting) == (len(holders), len(idle), len(queue))
            assert pool.taken + pool.idle <= limit
            assert not (pool.waiting and (pool.idle or pool.taken < limit))
        nursery.cancel_scope.cancel()
