"""How one limit is divided, question by question."""

from __future__ import annotations

import attrs
import pytest

from bridgepool.gateway.limits._share_pool import Share, ShareDemand
from bridgepool.gateway.limits._shares import ShareLedger
from tests.gateway.limits.shares_world import NEW_YEAR

DAY = 86400.0


@attrs.define(eq=False)
class Plane:
    """A control plane that started long ago, and its gateways."""

    ledger: ShareLedger = attrs.field(factory=lambda: ShareLedger(-100.0))
    limit: float = 100.0
    rule: str = "tokens_per_minute"
    now: float = 0.0
    wall: float = NEW_YEAR

    def begin(self, *names: str) -> None:
        for name in names:
            self.ledger.begin(name)

    def report(
        self, name: str, held: float = 0, demand: float = 0, used: float = 0, period: float = 0
    ) -> Share:
        asked = ShareDemand(
            scope="client", id="ada", rule=self.rule, limit=self.limit, held=held, used=used,
            period=period, demand=demand,
        )  # fmt: skip
        return self.ledger.lease(name, [asked], self.now, self.wall)[0]


def test_a_share_grows_by_its_demand_or_by_an_even_part_of_what_is_free() -> None:
    plane = Plane()
    plane.begin("a", "a", "b", "gone")
    plane.ledger.end("gone", 0.0)
    plane.ledger.end("a", 0.0)  # it had two sessions
    assert plane.report("a", 0, 1).share == 50
    assert plane.report("a", 50, 1).share == 75
    assert plane.report("a", 75, 20).share == 95
    assert plane.report("b", 0, 1).share == 2.5


def test_a_gateway_without_demand_keeps_the_least_share_of_what_it_holds() -> None:
    plane = Plane()
    plane.begin("a", "b")
    assert plane.report("a") == Share(0, 100)
    assert plane.report("a", 40).share == 1
    assert plane.report("b", 0, 10).share == 30  # of the 60 that are free


def test_gateways_that_are_gone_ask_for_nothing() -> None:
    plane = Plane()
    plane.begin("a", "b", "c")
    plane.report("c", 90, 1)
    plane.report("a", 10, 100)
    plane.report("c")
    plane.ledger.end("a", 0.0)
    assert plane.report("b", 0, 100).share == 90  # until what it held is free, too


def test_a_gateway_that_comes_back_in_time_keeps_its_share() -> None:
    plane = Plane()
    plane.begin("a", "b")
    plane.report("a", 50, 10)
    plane.ledger.end("a", 0.0)
    plane.begin("a")
    plane.now = 4.0
    assert plane.report("a", 50, 10).share >= 50
    plane.now = 20.0
    plane.report("b", 0, 10)
    plane.report("a", 50, 10)
    found = plane.report("b", 0, 10)
    assert found.share == pytest.approx(25)
    assert found.taken == 0


def test_of_two_hundred_gateways_each_has_a_share() -> None:
    plane = Plane()
    names = [f"g{number}" for number in range(200)]
    plane.begin(*names)
    for name in names:
        plane.report(name, 0.1, 1e-6)
    assert all(
        plane.report(name, 0.1, 1000 if name == "g7" else 1e-6).share > 0.1 for name in names
    )


def test_until_gateways_have_reported_shares_hardly_grow() -> None:
    plane = Plane(ShareLedger(0.0), now=2.9)
    plane.begin("a", "b")
    assert plane.report("a", 0, 100).share == 1
    assert plane.report("b", 60, 100).share == 50  # as much as the demand there
    plane.rule, plane.limit = "max_concurrent", 50
    assert plane.report("a", 0, 10).share == 1
    plane.now = 3.0
    assert plane.report("a", 1, 10).share > 1


def test_units_are_whole_and_none_is_left() -> None:
    plane = Plane(rule="max_concurrent", limit=5)
    plane.begin("a", "b")
    assert plane.report("a", 0, 1e-3).share == 3
    assert plane.report("b", 0, 1e-3).share == 1
    assert plane.report("b", 1, 1e-3).share == 2


@pytest.mark.parametrize("rule", ["max_concurrent", "tokens_per_minute"])
@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_control_planes_give_together_what_the_limit_says(rule: str, count: int) -> None:
    given = []
    for number in range(count):
        plane = Plane(rule=rule, limit=5)
        plane.ledger.part = (number, count)
        plane.begin("a")
        given.append(plane.report("a", 0, 10).share)
    assert sum(given) == pytest.approx(5)
    assert max(given) - min(given) <= 1


def test_what_is_passed_on_of_a_killed_gateway_counts_once() -> None:
    plane = Plane()
    plane.begin("a", "b", "c")
    plane.report("a", 50, 1)
    plane.ledger.end("a", 0.0)
    plane.now = 6.0
    assert plane.report("b", 0, 100).taken == pytest.approx((50 + 50 / 3) * 0.9)
    asked = ShareDemand(
        scope="client", id="ada", rule="tokens_per_minute", limit=100, held=100, demand=0
    )
    for _ in range(2):  # the second before it was answered
        plane.ledger.note("b", [asked], 6.0, NEW_YEAR)
    pool = plane.ledger._pools["client", "ada", "tokens_per_minute"]
    assert pool.lost.remaining(6.0) == pytest.approx(0)
    pool.lost.add(90, 6.0)
    assert pool.lost.remaining(6.0) == pytest.approx(90)
    plane.ledger.note("b", [asked], 6.0, NEW_YEAR)
    assert pool.lost.remaining(6.0) == pytest.approx(90)


def test_what_is_lost_is_taken_of_what_a_share_grows_by() -> None:
    plane = Plane()
    plane.begin("a", "b", "c", "d", "e", "f")
    plane.report("a", 50, 1)
    plane.ledger.end("a", 0.0)
    plane.now = 6.0
    assert plane.report("b", 50, 1) == Share(60, 100, 10)


def test_of_gateways_that_do_not_come_back_what_is_free_counts_as_taken() -> None:
    plane = Plane(ShareLedger(0.0, ("a", "b", "x")), now=1.0)
    plane.begin("a", "b")
    assert plane.report("a", 60, 1000).taken == 0
    plane.report("b", 20)
    plane.now = 10.0
    found = plane.report("a", 60, 1000)
    assert (found.share, found.taken) == (80, 20 * (1 - 10 / 60))
    plane.now = 90.0
    plane.ledger.end("b", 80.0)
    assert plane.report("a", 60, 1000).taken == pytest.approx(20 * (1 - 10 / 60))
    plane = Plane(ShareLedger(0.0, ("a",)), now=10.0)
    plane.begin("a")
    assert plane.report("a", 60, 1000) == Share(100, 100)


def test_what_a_killed_gateway_used_is_remembered_when_the_last_one_leaves() -> None:
    plane = Plane()
    plane.begin("a", "b", "c")
    plane.report("a", 100, 1)
    plane.ledger.end("a", 0.0)
    plane.now = 6.0
    plane.report("b")
    plane.ledger.end("b", 6.0)
    assert plane.report("c", 0, 100).taken == pytest.approx(90)


def test_a_limit_that_nobody_uses_is_forgotten() -> None:
    plane = Plane()
    plane.begin("a")
    plane.report("a")
    plane.ledger.end("a", 0.0)
    assert plane.ledger._pools == {}


def test_a_budget_in_memory_counts_what_a_gateway_used_once_however_it_comes_and_goes() -> None:
    plane = Plane(rule="tokens_per_day", limit=1000)
    plane.begin("a")
    assert plane.report("a", 0, 1, 100, NEW_YEAR).remaining == 900
    assert plane.report("a", 0, 0, 120, NEW_YEAR).remaining == 880
    for pause in (30.0, 59.0):
        plane.ledger.end("a", plane.now)
        plane.now += pause
        plane.begin("a")
        assert plane.report("a", 0, 0, 120, NEW_YEAR).remaining == 880


def test_a_gateway_that_notices_midnight_before_or_after_its_control_plane_is_counted() -> None:
    plane, midnight = Plane(rule="tokens_per_day", limit=1000), NEW_YEAR + DAY
    plane.begin("early", "late", "new")
    plane.report("early", 0, 0, 500, NEW_YEAR)
    plane.report("late", 0, 0, 100, NEW_YEAR)
    assert plane.report("early", 0, 0, 30, midnight).remaining == 1000 - 600 - 30
    plane.wall = midnight
    assert plane.report("early", 0, 0, 30, midnight).remaining == 1000
    assert plane.report("late", 0, 0, 90, NEW_YEAR).remaining == 1000  # an estimate was too large
    assert plane.report("new", 0, 0, 400, NEW_YEAR).remaining == 1000
    assert plane.report("early", 0, 0, 70, midnight).remaining == 960
