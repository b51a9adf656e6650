"""Limits over many gateways: in total never more than the limit, and nearly all of it is used.

Ten simulated gateways with real limiters, and the ledgers of control planes, under load that moves
between them: answers that are late or lost, gateways that are killed and started, clocks that are
set, control planes that start again without memory, and gateways that go to another one.
"""

from __future__ import annotations

import random

import attrs
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from bridgepool.gateway.limits._kinds import BUDGETS, RATES
from bridgepool.gateway.limits._leased import LeasedScope
from bridgepool.gateway.limits._limiter import Grant, Limiter, costs_of
from bridgepool.gateway.limits._share_pool import Share, ShareDemand
from bridgepool.gateway.limits._shares import ShareLedger
from bridgepool.gateway.limits._whole_units import divide_units
from bridgepool.gateway.providers import Caller, ClientRules
from tests.gateway.limits.shares_world import (
    GATEWAYS,
    NEW_YEAR,
    TICK,
    Gateway,
    World,
    run,
    worst,
)


@settings(max_examples=8, deadline=None, phases=[Phase.generate])
@given(st.integers(0, 2**32))
def test_a_rate_holds_over_all_gateways_and_most_of_it_is_used(seed: int) -> None:
    admitted, _ = run({"requests_per_minute": 600}, seed)
    assert worst(admitted, 600) <= 0.001
    assert len(admitted) >= 0.7 * (600 + 600 * 2)


@settings(max_examples=8, deadline=None, phases=[Phase.generate])
@given(st.integers(0, 2**32))
def test_a_rate_holds_when_gateways_are_killed_or_the_control_plane_starts_anew(
    seed: int,
) -> None:
    admitted, _ = run({"requests_per_minute": 600}, seed, kills=0.01)
    assert worst(admitted, 600) <= 0.05
    admitted, _ = run({"requests_per_minute": 600}, seed, restarts=True)
    assert worst(admitted, 600) <= 0.05


@pytest.mark.parametrize("seed", [26, 35, 88, 89])
def test_a_rate_holds_when_gateways_and_the_control_plane_are_killed(seed: int) -> None:
    """A control plane that had just started gave what killed gateways had used: up to 49 %."""
    admitted, _ = run({"requests_per_minute": 600}, seed, kills=0.01, restarts=True)
    assert worst(admitted, 600) <= 0.05


@pytest.mark.parametrize("rule", ["requests_per_minute", "tokens_per_minute"])
def test_two_control_planes_give_together_what_the_limit_says(rule: str) -> None:
    admitted, _ = run({rule: 600}, 3, planes=2)
    assert worst(admitted, 600) <= 0.001
    assert len(admitted) >= 0.6 * (600 + 600 * 2)


@settings(max_examples=6, deadline=None, phases=[Phase.generate])
@given(st.integers(0, 2**32))
def test_a_budget_in_a_store_holds_whatever_is_killed(seed: int) -> None:
    for planes, least in ((1, 0.75), (2, 0.6)):
        admitted, _ = run(
            {"tokens_per_day": 5000},
            seed,
            tokens=10,
            kills=0.003,
            restarts=True,
            planes=planes,
            stored={},
            moves=0.003,
        )
        total = sum(amount for _at, amount in admitted)
        assert least * 5000 <= total <= 1.05 * 5000


@pytest.mark.parametrize("estimated", [0.0, 0.01, 1.0, 3.0])
@settings(max_examples=3, deadline=None, phases=[Phase.generate])
@given(st.integers(0, 2**32), st.floats(-6, 3).map(lambda exponent: 10.0**exponent))
def test_a_budget_of_money_holds_and_can_be_spent_whatever_a_request_costs(
    estimated: float, seed: int, price: float
) -> None:
    """A request that cost less than a thousandth of the currency asked for no share."""
    budgets: dict[object, float] = {}
    limit = 500 * price
    admitted, _ = run(
        {"money_per_day": limit},
        seed,
        kills=0.001,
        restarts=True,
        stored=budgets,
        price=price,
        estimated=estimated,
    )
    assert 0.75 * 500 <= len(admitted) <= 1.05 * 500 + GATEWAYS
    [spent] = budgets.values()  # of what was not reported before a kill, nothing can be known
    assert len(admitted) * price * 0.98 <= spent + 1e-9 <= 1.05 * limit + GATEWAYS * price
    # Of a budget that is larger than what is asked for, nothing is refused.
    many, _ = run({"money_per_day": limit}, seed, 60, stored={}, price=price / 1e4)
    assert len(many) >= 0.9 * 60 / TICK * 4


def test_a_store_has_all_that_was_wanted_but_for_rounding() -> None:
    """What is drawn are whole units. A part of a unit less was taken for a store with too little
    left, and nothing was drawn for five seconds: of a budget of 500 units, requests were refused.
    """
    many, _ = run({"money_per_day": 0.0005}, 319, 60, stored={}, price=1e-10)
    assert len(many) >= 0.9 * 60 / TICK * 4


@settings(max_examples=6, deadline=None, phases=[Phase.generate])
@given(st.integers(0, 2**32))
def test_a_rate_of_tokens_holds_over_all_gateways(seed: int) -> None:
    admitted, _ = run({"tokens_per_minute": 10_000}, seed, tokens=50, kills=0.003)
    assert worst(admitted, 10_000) <= 0.05


@settings(max_examples=6, deadline=None, phases=[Phase.generate])
@given(st.integers(0, 2**32))
def test_a_budget_holds_over_all_gateways_and_is_spent(seed: int) -> None:
    admitted, _ = run({"tokens_per_day": 5000}, seed, tokens=10)
    total = sum(amount for _at, amount in admitted)
    assert 0.9 * 5000 <= total <= 1.05 * 5000
    admitted, _ = run({"tokens_per_day": 5000}, seed, tokens=10, kills=0.005, restarts=False)
    assert sum(amount for _at, amount in admitted) <= 1.05 * 5000


@settings(max_examples=6, deadline=None, phases=[Phase.generate])
@given(st.integers(0, 2**32))
def test_a_day_has_its_budget_once_whatever_clocks_are_set_to(seed: int) -> None:
    """The load begins just after midnight, and clocks go back to the day before."""
    stored: dict[object, float] = {}
    admitted, _ = run(
        {"tokens_per_day": 3000},
        seed,
        tokens=10,
        restarts=True,
        planes=2,
        stored=stored,
        moves=0.003,
        turns=0.01,
    )
    total = sum(amount for _at, amount in admitted)
    assert total <= 1.05 * 3000 * len(stored)
    assert len(stored) <= 2


@settings(max_examples=6, deadline=None, phases=[Phase.generate])
@given(st.integers(0, 2**32))
def test_requests_at_the_same_time_hold_over_all_gateways(seed: int) -> None:
    _, most = run({"max_concurrent": 20}, seed, duration=1.5, seconds=60)
    assert 10 <= most <= 20


@pytest.mark.parametrize("seed", range(4))
def test_requests_at_the_same_time_hold_when_the_control_plane_starts_anew(seed: int) -> None:
    _, most = run({"max_concurrent": 20}, seed, duration=1.5, seconds=60, restarts=True)
    assert 10 <= most <= 20


def test_while_the_control_plane_is_away_gateways_go_on_with_what_they_hold() -> None:
    world = World(Caller("ada", "k", ClientRules(requests_per_minute=600)), random.Random(1))
    for _ in range(2):
        world.start()
    first, second = world.gateways

    def go_on(seconds: float, *asking: Gateway) -> int:
        done = 0
        for _ in range(round(seconds / TICK)):
            world.now += TICK
            for gateway in world.gateways:
                gateway.turn()
            done += sum(gateway.ask(1.0, 0.0) for gateway in asking for _ in range(3))
        return done

    go_on(100, first)
    world.plane_is_there = False
    assert 560 <= go_on(60, first) <= 600  # it held nearly all of it
    assert second.limiter.scopes == {}
    assert go_on(60, second) <= 12  # the least share: 6 a minute, and as many at once


@pytest.mark.parametrize("limit", [1, 3])
def test_a_small_limit_is_whole_somewhere(limit: int) -> None:
    admitted, _ = run({"requests_per_minute": limit}, 7, seconds=240)
    assert worst(admitted, limit) <= 1e-6 or len(admitted) <= limit * 4 + GATEWAYS
    assert len(admitted) >= limit


def test_a_unit_that_an_idle_gateway_holds_moves_to_one_that_is_asked() -> None:
    """It stayed for as long as there was the least demand: 50 s, with nothing running there."""
    world = World(Caller("ada", "k", ClientRules(max_concurrent=1)), random.Random(1))
    for _ in range(2):
        world.start()
    done: list[int] = []
    for turn in range(round(40 / TICK)):
        world.now += TICK
        for gateway in world.gateways:
            gateway.turn()
        place = int(turn * TICK > 15)
        if turn % 10 == 0 and world.gateways[place].ask(1.0, 0.0):
            done.append(place)
    assert done.count(0) >= 12
    assert done.count(1) >= 12


def test_units_are_given_by_demand_and_stay_where_it_is_alike() -> None:
    assert divide_units(3, [(1, 0)] * 10) == [1] * 3 + [0] * 7
    assert divide_units(1, [(1, 1), (1.9, 0)]) == [1, 0]
    assert divide_units(1, [(1, 1), (2.1, 0)]) == [0, 1]
    assert divide_units(6, [(0.01, 1), (9, 5)]) == [0, 6]
    assert divide_units(7, [(2, 0), (1, 0), (0, 0)]) == [5, 2, 0]
    assert divide_units(5, [(0, 3), (0, 2)]) == [0, 0]


def test_a_share_of_a_budget_ends_with_its_day_and_what_was_not_reported_counts_in_the_next() -> (
    None
):
    now, midnight = 100.0, NEW_YEAR + 86400
    scope = LeasedScope(ClientRules(tokens_per_day=1000))
    scope.set_rules(scope.rules, now)
    costs = dict.fromkeys(("max_concurrent", *RATES, *BUDGETS), 0.0) | {"tokens_per_day": 8.0}

    def spend(wall: float) -> bool:
        if scope.exceeded(costs, now, wall) is not None:
            return False
        scope.take(costs, now, wall)
        return True

    def report() -> ShareDemand:
        [one] = scope.demands("client", "ada", now)
        return one

    assert spend(NEW_YEAR)
    assert (report().used, report().held) == (8, -8)  # nobody gave it
    scope.apply(report(), Share(20, 500), now)
    assert spend(NEW_YEAR)
    assert (report().used, report().held) == (16, 12)
    scope.apply(report(), Share(20, 0), now)
    assert [spend(NEW_YEAR) for _ in range(4)] == [True, True, True, False]
    assert scope.exceeded(costs, now, NEW_YEAR) == ("tokens_per_day", 86400, True)
    assert spend(midnight)  # at once: of the least share
    assert scope.lacks_shares
    assert (report().used, report().held) == (32, -8)  # three of the day before
    assert report().period == midnight
    assert spend(midnight - 7200) == (report().used == 40)  # a clock that is set back


def test_a_budget_that_is_raised_lowered_or_made_again_goes_on() -> None:
    ledger = ShareLedger(-100.0)
    ledger.begin("g")
    now, caller = 0.0, Caller("ada", "k", ClientRules(tokens_per_day=1000))
    limiter = Limiter(lambda: now, lambda: NEW_YEAR, LeasedScope)

    def spend(most: int | None, tokens: float = 10.0) -> int:
        """Make as many requests as are admitted in some seconds; return how many."""
        nonlocal now
        found = attrs.evolve(caller, rules=ClientRules(tokens_per_day=most))
        done = 0
        for _ in range(80):
            now += 1.0
            for scope in limiter.scopes.values():
                asked = scope.demands("client", "ada", now)
                for one, share in zip(asked, ledger.lease("g", asked, now, NEW_YEAR), strict=True):
                    scope.apply(one, share, now)
            for _ in range(2):
                grant = limiter.admit(found, costs_of(tokens))
                if isinstance(grant, Grant):
                    grant.end(costs_of(tokens))
                    done += 1
        return done

    assert spend(1000) == 100
    assert spend(500) == 0
    assert spend(1500) == 50
    assert spend(None) == 160
    assert spend(1500) == 0
    assert spend(0) == 0


@pytest.mark.parametrize("limit", [1e-5, 1.0, 1e7])
def test_a_budget_that_is_spent_to_the_last_request_is_spent(limit: float) -> None:
    """Ten times 0.1 is less than 1: a hair was left that no gateway could be given."""
    ledger, now = ShareLedger(-100.0, (), True), 100.0
    ledger.begin("g")
    scope = LeasedScope(ClientRules(money_per_day=limit))
    scope.set_rules(scope.rules, now)
    costs, stored, done = costs_of(0.0, limit / 10), 0.0, 0

    def report() -> None:
        nonlocal stored
        asked = scope.demands("client", "ada", now)
        noted = ledger.note("g", asked, now, NEW_YEAR)
        for draw in ledger.draws(now, 10):
            drawn = draw.take_from(stored)
            stored = drawn.spent
            ledger.drew([draw], [drawn], now)
        for one, share in zip(asked, ledger.give(noted, now), strict=True):
            scope.apply(one, share, now)

    for _ in range(20):
        now += 10.0
        scope.expect(costs, now, NEW_YEAR)
        report()
        if scope.exceeded(costs, now, NEW_YEAR) is None:
            scope.take(costs, now, NEW_YEAR)
            done += 1
    assert done == 10
    assert stored == pytest.approx(limit)
    assert scope.exceeded(costs, now, NEW_YEAR) == ("money_per_day", 86400, True)


def test_a_request_that_is_estimated_to_cost_nothing_asks_for_a_share() -> None:
    """A gateway without a share never asked for one, and refused all such requests."""
    scope, costs = LeasedScope(ClientRules(money_per_day=5.0)), costs_of()
    scope.set_rules(scope.rules, 0.0)
    assert scope.exceeded(costs, 0.0, NEW_YEAR) is None  # the period begins
    [asked] = scope.demands("client", "ada", 0.0)
    scope.apply(asked, Share(0.0, 4.0), 0.0)
    assert scope.exceeded(costs, 1000.0, NEW_YEAR) == ("money_per_day", 1.0, False)
    [asked] = scope.demands("client", "ada", 1000.0)
    assert asked.demand > 0
