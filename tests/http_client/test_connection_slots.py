from collections.abc import Hashable

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from bridgepool.http import PoolFull, ShareExceeded
from bridgepool.http._connection_slots import ConnectionSlots


@attrs.define(eq=False)
class Connection:
    due: float = 0


Pool = ConnectionSlots[Connection]


async def test_take_grants_new_connections_up_to_the_limit() -> None:
    slots = Pool(2, 0)
    assert await slots.take() is None
    assert slots.take_nowait() is None
    with pytest.raises(trio.WouldBlock):
        slots.take_nowait()
    with pytest.raises(PoolFull):
        await slots.take()
    assert (slots.taken, slots.idle, slots.waiting) == (2, 0, 0)


async def test_the_connection_kept_last_is_taken_first() -> None:
    slots = Pool(3, 0)
    first, second = Connection(), Connection()
    for _ in range(2):
        await slots.take()
    assert slots.keep(first)
    assert slots.keep(second)
    assert await slots.take() is second
    assert await slots.take() is first
    assert await slots.take() is None


async def test_slots_go_to_waiters_in_the_order_of_their_arrival() -> None:
    slots = Pool(1, 10)
    connection = Connection()
    served: list[tuple[int, Connection | None]] = []

    async def wait(number: int) -> None:
        served.append((number, await slots.take()))

    async with trio.open_nursery() as nursery:
        await slots.take()
        for number in range(3):
            nursery.start_soon(wait, number)
            await wait_all_tasks_blocked()
        assert slots.waiting == 3
        slots.keep(connection)
        await wait_all_tasks_blocked()
        assert served == [(0, connection)]
        slots.release()
        await wait_all_tasks_blocked()
        slots.release()
    assert served == [(0, connection), (1, None), (2, None)]
    assert (slots.taken, slots.waiting) == (1, 0)


async def test_a_new_request_does_not_overtake_waiters() -> None:
    slots = Pool(1, 10)
    served: list[str] = []

    async def wait(name: str) -> None:
        await slots.take()
        served.append(name)

    async with trio.open_nursery() as nursery:
        await slots.take()
        nursery.start_soon(wait, "first")
        await wait_all_tasks_blocked()
        slots.release()  # granted, but "first" has not run yet
        nursery.start_soon(wait, "second")
        await wait_all_tasks_blocked()
        assert served == ["first"]
        slots.release()


async def test_a_waiter_that_is_cancelled_is_granted_nothing() -> None:
    slots = Pool(1, 10)
    await slots.take()
    with trio.move_on_after(0) as scope:
        await slots.take()
    assert scope.cancelled_caught
    assert slots.waiting == 0
    slots.release()
    assert slots.taken == 0


async def test_a_grant_that_came_before_the_cancellation_is_not_lost() -> None:
    slots = Pool(1, 10)
    got: list[Connection | None] = []
    await slots.take()
    connection = Connection()

    async def wait() -> None:
        with scope:
            got.append(await slots.take())

    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        slots.keep(connection)
        scope.cancel()
    assert got == [connection]
    assert (slots.taken, slots.idle) == (1, 0)


async def test_drain_fails_all_waiters_and_returns_the_idle_connections() -> None:
    slots = Pool(2, 10)
    idle, late = Connection(), Connection()
    await slots.take()
    await slots.take()
    refused = 0

    async def wait() -> None:
        nonlocal refused
        with pytest.raises(trio.ClosedResourceError):
            await slots.take()
        refused += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        assert slots.drain() == []
    assert refused == 2
    assert not slots.keep(late)
    with pytest.raises(trio.ClosedResourceError):
        await slots.take()
    other = Pool(1, 0)
    await other.take()
    other.keep(idle)
    assert other.drain() == [idle]


async def test_only_connections_that_are_due_expire() -> None:
    slots = Pool(3, 0)
    connections = [Connection(due) for due in (10, 20, 30)]
    for _ in connections:
        await slots.take()
    for connection in connections:
        slots.keep(connection)
    assert slots.expire(5) == []
    assert slots.expire(20) == connections[:2]
    assert slots.idle == 1


Step = tuple[str, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["take", "keep", "release", "replace", "cancel", "expire"]),
        st.integers(0, 7),
    ),
    max_size=60,
)


@given(STEPS, st.integers(1, 3))
def test_in_any_sequence_no_slot_is_lost_or_granted_twice(steps: list[Step], limit: int) -> None:
    trio.run(_run_script, steps, limit, clock=MockClock(autojump_threshold=0))


@attrs.define(eq=False)
class _Task:
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    holds: bool = False
    connection: Connection | None = None


async def _run_script(steps: list[Step], limit: int) -> None:
    """Play a script against a naive model: a list of holders, a queue, a set of idle ones."""
    slots = Pool(limit, 1000)
    holders: list[_Task] = []
    queue: list[_Task] = []
    idle: list[Connection] = []

    async def take(task: _Task) -> None:
        with task.scope:
            task.connection = await slots.take()
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
        """What the model expects of a slot that was given back."""
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
            slots.release()
        else:
            assert slots.keep(connection)
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
                assert slots.replace() is (idle.pop() if idle else None)
            elif name == "expire":
                assert slots.expire(number) == [c for c in idle if c.due <= number]
                idle = [c for c in idle if c.due > number]
            assert (slots.taken, slots.idle, slots.waiting) == (len(holders), len(idle), len(queue))
            assert slots.taken + slots.idle <= limit
            assert not (slots.waiting and (slots.idle or slots.taken < limit))
        nursery.cancel_scope.cancel()


def hold(slots: Pool, tenant: str, count: int) -> None:
    """Take all that a tenant gets without waiting, and no more than that."""
    for _ in range(count):
        assert slots.take_nowait(tenant) is None
    with pytest.raises(trio.WouldBlock):
        slots.take_nowait(tenant)


async def test_a_tenant_gets_its_share_of_what_the_others_leave() -> None:
    slots = Pool(12, 12, share=0.5)
    hold(slots, "a", 6)
    hold(slots, "b", 3)
    hold(slots, "c", 2)
    hold(slots, "d", 1)
    assert slots.taken == 12
    slots.release("a")
    with pytest.raises(trio.WouldBlock):
        slots.take_nowait("a")  # it has five of the six that the others leave
    assert slots.take_nowait("e") is None


async def test_a_tenant_without_a_slot_can_always_take_a_free_one() -> None:
    slots = Pool(3, 0, share=0.01)
    for tenant in "abc":
        hold(slots, tenant, 1)


async def test_places_in_the_queue_are_shared_too() -> None:
    slots = Pool(2, 4, share=0.5)
    served: list[str] = []

    async def wait(tenant: str) -> None:
        await slots.take(tenant)
        served.append(tenant)

    async with trio.open_nursery() as nursery:
        await slots.take("a")
        await slots.take("b")
        for _ in range(2):
            nursery.start_soon(wait, "a")
            await wait_all_tasks_blocked()
        with pytest.raises(ShareExceeded):
            await slots.take("a")
        nursery.start_soon(wait, "c")
        await wait_all_tasks_blocked()
        assert (slots.waiting, served) == (3, [])
        slots.release("b")
        await wait_all_tasks_blocked()
        assert served == ["c"]  # tenant a has its share, though it came first
        slots.release("a")
        await wait_all_tasks_blocked()
        assert served == ["c", "a"]
        slots.release("c")
        slots.release("a")
        await wait_all_tasks_blocked()
        assert served == ["c", "a", "a"]


async def test_tenants_that_wait_take_turns() -> None:
    slots = Pool(1, 100)
    served: list[str] = []

    async def wait(tenant: str) -> None:
        await slots.take(tenant)
        served.append(tenant)

    async with trio.open_nursery() as nursery:
        await slots.take("a")
        for tenant in "aaaabbc":
            nursery.start_soon(wait, tenant)
            await wait_all_tasks_blocked()
        for holder in "aabcaba":
            slots.release(holder)
            await wait_all_tasks_blocked()
    assert "".join(served) == "abcabaa"


TENANT_STEPS = st.lists(
    st.tuples(st.sampled_from(["take", "give", "cancel"]), st.integers(0, 7)), max_size=60
)


@given(TENANT_STEPS, st.integers(1, 5), st.sampled_from([0.2, 0.5, 0.9, 1.0]))
def test_in_any_sequence_no_tenant_exceeds_its_share_and_none_waits_within_it(
    steps: list[Step], limit: int, share: float
) -> None:
    trio.run(_run_tenants, steps, limit, share, clock=MockClock(autojump_threshold=0))


class CheckedPool(ConnectionSlots[Connection]):
    """Checks the share when a slot is granted: by the time that its holder runs, others may too."""

    def _grant(self, tenant: Hashable) -> Connection | None:
        held = self._held.get(tenant, 0)
        assert held < self.share * (self.limit - (self.taken - held))
        return super()._grant(tenant)


async def _run_tenants(steps: list[Step], limit: int, share: float) -> None:
    slots = CheckedPool(limit, 1000, share)
    holders: list[int] = []
    waiting: list[tuple[int, trio.CancelScope]] = []

    async def take(tenant: int, scope: trio.CancelScope) -> None:
        entry = tenant, scope
        waiting.append(entry)
        try:
            with scope:
                await slots.take(tenant)
                holders.append(tenant)
        finally:
            waiting.remove(entry)

    async with trio.open_nursery() as nursery:
        for name, number in steps:
            if name == "take":
                nursery.start_soon(take, number % 3, trio.CancelScope())
            elif name == "give" and holders:
                slots.release(holders.pop(number % len(holders)))
            elif name == "cancel" and waiting:
                waiting[number % len(waiting)][1].cancel()
            await wait_all_tasks_blocked()
            assert (slots.taken, slots.waiting) == (len(holders), len(waiting))
            assert slots.taken <= limit
            for tenant, _ in waiting:
                others = len([one for one in holders if one != tenant])
                has_share = holders.count(tenant) >= share * (limit - others)
                assert has_share or len(holders) == limit
        nursery.cancel_scope.cancel()
