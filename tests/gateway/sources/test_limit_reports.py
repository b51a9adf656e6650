"""When a gateway reports what it holds of limits, to a control plane that a test plays."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
import trio.testing

from bridgepool.gateway._protocol import LeasedShares, LeaseShares
from bridgepool.gateway.limits._limiter import Exceeded, costs_of
from bridgepool.gateway.limits._share_pool import MAX_DEMANDS, Share
from bridgepool.gateway.providers import Caller, ClientRules
from bridgepool.gateway.sources._limit_leases import LimitLeases
from bridgepool.remote import RemoteError

COSTS = costs_of(1.0)


def client(name: str = "ada", **rules: Any) -> Caller:
    return Caller(name, name, ClientRules(**(rules or {"tokens_per_minute": 100})))


@attrs.define(eq=False)
class Plane:
    """A control plane that gives a share of everything, after so many seconds."""

    delay: float = 0.0
    share: float = 10.0
    asked: list[LeaseShares] = attrs.field(factory=list)
    is_asked: bool = False

    async def lease(self, asked: LeaseShares) -> LeasedShares:
        assert not self.is_asked  # there is one report at a time
        assert len(asked.demands) <= MAX_DEMANDS
        self.asked.append(asked)
        self.is_asked = True
        try:
            await trio.sleep(self.delay)
        finally:
            self.is_asked = False
        return LeasedShares(tuple(Share(self.share, 1000) for _ in asked.demands))


async def opened(plane: Plane) -> LimitLeases:
    """Return the limits of a gateway that has reported once."""
    leases = LimitLeases()
    leases.note_session(plane.lease)
    await leases.prepare(client(), COSTS)
    return leases


async def test_requests_that_are_refused_cause_ten_reports_a_second_at_most(
    autojump_clock: trio.testing.MockClock,
) -> None:
    plane = Plane()
    leases, started = await opened(plane), trio.current_time()
    for _ in range(50):
        assert await leases.refresh(client())
    assert trio.current_time() - started == pytest.approx(5)
    assert len(plane.asked) == 51


async def test_requests_wait_for_the_report_that_is_under_way(
    autojump_clock: trio.testing.MockClock,
) -> None:
    plane = Plane()
    leases = await opened(plane)
    plane.delay = 0.25
    await trio.sleep(1)
    started = trio.current_time()

    async def refresh() -> None:
        assert await leases.refresh(client())
        assert trio.current_time() - started == pytest.approx(0.25)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(refresh)
    assert len(plane.asked) == 2


async def test_without_a_session_a_request_does_not_wait(
    autojump_clock: trio.testing.MockClock,
) -> None:
    leases = await opened(Plane())
    leases.note_session(None)
    started = trio.current_time()
    assert not await leases.refresh(client())
    await leases.prepare(client("bob"), COSTS)
    assert trio.current_time() == started


async def test_a_new_client_waits_for_a_report_that_has_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    plane = Plane()
    leases = await opened(plane)
    plane.delay = 0.2
    async with trio.open_nursery() as nursery:
        nursery.start_soon(leases.refresh, client())
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(0.15)  # that report is under way
        await leases.prepare(client("bob"), COSTS)
    assert leases.limiter.scopes["client", "bob"].parts["tokens_per_minute"].share == 10


async def test_the_last_report_follows_the_one_that_is_under_way(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """That had begun before the last requests ended."""
    plane = Plane()
    leases = await opened(plane)
    plane.delay = 0.2
    async with trio.open_nursery() as nursery:
        nursery.start_soon(leases.refresh, client())
        await trio.sleep(0.15)
        await leases.report_last()
    assert [asked.demands[0].demand > 0 for asked in plane.asked] == [True, True, False]
    assert plane.asked[-1].demands[0].held == 0


async def test_a_report_that_is_not_answered_is_given_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    plane = Plane()
    leases = await opened(plane)
    plane.delay = 1000.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(leases.run)
        await trio.sleep(20)
        nursery.cancel_scope.cancel()
    assert 4 <= len(plane.asked) <= 6


async def test_a_gateway_without_requests_soon_has_nothing_to_report(
    autojump_clock: trio.testing.MockClock,
) -> None:
    plane = Plane(share=1.0)
    leases = await opened(plane)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(leases.run)
        await trio.sleep(200)
        nursery.cancel_scope.cancel()
    assert 60 <= len(plane.asked) <= 62


async def test_a_control_plane_that_was_upgraded_shares_limits_again(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def old(asked: LeaseShares) -> LeasedShares:
        calls.append(asked)
        await trio.lowlevel.checkpoint()
        raise RemoteError("unknown_method", "")

    calls: list[LeaseShares] = []
    leases, caller = LimitLeases(), client(max_concurrent=100)
    leases.note_session(old)
    await leases.prepare(caller, COSTS)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(leases.run)
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    line = "control plane does not share limits; this gateway counts alone"
    assert (len(calls), caplog.messages.count(line)) == (1, 1)
    leases.note_session(None)
    leases.note_session(Plane(share=2.0).lease)
    await leases.prepare(caller, COSTS)
    found = [leases.limiter.admit(caller, COSTS) for _ in range(3)]
    assert [isinstance(one, Exceeded) for one in found] == [False, False, True]
    assert not leases.in_memory


async def test_limits_that_are_more_than_one_call_takes_are_all_reported(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The first 2,000 were, and no other while those were in use: it stayed at 1 % of its limit."""
    plane = Plane()
    leases = await opened(plane)
    for number in range(2 * MAX_DEMANDS):
        leases.limiter.scopes_of(client(f"c{number}"))
    await leases.refresh(client())
    assert sum(len(asked.demands) for asked in plane.asked[1:]) == 2 * MAX_DEMANDS + 1
    assert not any(scope.lacks_shares for scope in leases.limiter.scopes.values())
