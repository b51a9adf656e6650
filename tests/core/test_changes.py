import gc

import pytest
import trio
from trio.testing import assert_checkpoints, assert_no_checkpoints, wait_all_tasks_blocked

from bridgepool._changes import ChangeBus


async def test_a_notice_wakes_every_subscriber_that_waits() -> None:
    bus = ChangeBus()
    woken: list[int] = []

    async def subscriber(number: int) -> None:
        with bus.subscribe() as changes:
            await changes.receive()
            woken.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(subscriber, number)
        await wait_all_tasks_blocked()
        assert bus.statistics().subscribers == 3
        with assert_no_checkpoints():
            bus.publish()
    assert sorted(woken) == [0, 1, 2]
    assert bus.statistics().subscribers == 0


async def test_a_burst_is_one_notice_for_one_who_was_busy_and_for_one_who_waited() -> None:
    bus = ChangeBus()
    received = 0

    async def waiting() -> None:
        nonlocal received
        async for _ in waiter:
            received += 1

    with bus.subscribe() as busy, bus.subscribe() as waiter:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiting)
            await wait_all_tasks_blocked()
            for _ in range(1000):
                bus.publish()
            await wait_all_tasks_blocked()
            assert received == 1
            nursery.cancel_scope.cancel()
        await busy.receive()
        with pytest.raises(trio.TooSlowError), trio.fail_after(0):
            await busy.receive()


async def test_a_change_after_a_receive_is_another_notice() -> None:
    bus = ChangeBus()
    with bus.subscribe() as changes:
        for _ in range(3):
            bus.publish()
            await changes.receive()


async def test_a_subscription_sees_no_change_from_before_it() -> None:
    bus = ChangeBus()
    bus.publish()
    with bus.subscribe() as changes, trio.move_on_after(0) as scope:
        await changes.receive()
    assert scope.cancelled_caught


async def test_a_cancelled_receive_takes_no_notice() -> None:
    """Cancelled before it waits, and cancelled in the tick in which the notice comes."""
    bus = ChangeBus()
    with bus.subscribe() as changes:
        bus.publish()
        with trio.CancelScope() as scope:
            scope.cancel()
            await changes.receive()
        await changes.receive()

        got = False

        async def receiver() -> None:
            nonlocal got
            await changes.receive()
            got = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receiver)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            bus.publish()
        assert not got
        await changes.receive()


async def test_each_notice_goes_to_one_of_several_receivers() -> None:
    bus = ChangeBus()
    received = 0

    async def receiver() -> None:
        nonlocal received
        async for _ in changes:
            received += 1

    with bus.subscribe() as changes:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receiver)
            nursery.start_soon(receiver)
            await wait_all_tasks_blocked()
            bus.publish()
            bus.publish()
            await wait_all_tasks_blocked()
            assert received == 1
            changes_before = received
            bus.publish()
            await wait_all_tasks_blocked()
            assert received == changes_before + 1
            nursery.cancel_scope.cancel()


async def test_a_closed_bus_ends_its_channels_after_the_pending_notice() -> None:
    with ChangeBus() as bus:
        pending, idle = bus.subscribe(), bus.subscribe()
        bus.publish()
        await idle.receive()
    assert [notice async for notice in pending] == [None]
    with pytest.raises(trio.EndOfChannel):
        await idle.receive()
    with pytest.raises(trio.ClosedResourceError):
        bus.publish()
    with pytest.raises(trio.ClosedResourceError):
        bus.subscribe()
    bus.close()


async def test_closing_the_bus_ends_those_who_wait() -> None:
    bus = ChangeBus()
    ended: list[bool] = []

    async def subscriber() -> None:
        async for _ in bus.subscribe():
            raise AssertionError("nothing was published")
        ended.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(subscriber)
        await wait_all_tasks_blocked()
        bus.close()
    assert ended == [True]


async def test_a_closed_subscription_raises_also_for_those_who_wait_and_is_forgotten() -> None:
    bus = ChangeBus()
    changes = bus.subscribe()

    async def receiver() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await changes.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receiver)
        await wait_all_tasks_blocked()
        with assert_checkpoints():
            await changes.aclose()
        assert bus.statistics().subscribers == 0
    bus.publish()
    with pytest.raises(trio.ClosedResourceError):
        await changes.receive()
    await changes.aclose()


async def test_a_closed_subscription_with_a_pending_notice_is_closed() -> None:
    bus = ChangeBus()
    changes = bus.subscribe()
    bus.publish()
    changes.close()
    with pytest.raises(trio.ClosedResourceError):
        await changes.receive()


async def test_a_subscription_that_nobody_holds_is_forgotten() -> None:
    bus = ChangeBus()
    for _ in range(100):
        bus.subscribe()
    gc.collect()
    assert bus.statistics().subscribers == 0
    assert len(bus._subscriptions) == 0


async def test_a_subscriber_that_waits_is_not_forgotten_though_nobody_else_holds_it() -> None:
    bus = ChangeBus()

    async def subscriber() -> None:
        await bus.subscribe().receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(subscriber)
        await wait_all_tasks_blocked()
        gc.collect()
        bus.publish()


async def test_receive_is_a_checkpoint_with_a_notice_and_without() -> None:
    bus = ChangeBus()
    with bus.subscribe() as changes:
        bus.publish()
        with assert_checkpoints():
            await changes.receive()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.lowlevel.checkpoint)
            bus.publish()
            with assert_checkpoints():
                await changes.receive()
