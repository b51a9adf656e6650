"""How much is used: rates and budgets against plain models, and requests that end in any order."""

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgepool.gateway.limits._budgets import Budget, period_end, period_start
from bridgepool.gateway.limits._limiter import Exceeded, Grant, Limiter, WholeScope, costs_of
from bridgepool.gateway.limits._rate import MinuteRate
from bridgepool.gateway.providers import Caller, ClientRules

NEW_YEAR = 1_767_225_600.0  # 2026 began then
DAY = 86400.0


@attrs.define
class Clocks:
    now: float = 100.0
    wall: float = NEW_YEAR + DAY / 2

    def turn(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds


def limiter(clocks: Clocks) -> Limiter[WholeScope]:
    return Limiter(lambda: clocks.now, lambda: clocks.wall, WholeScope)


def caller(rules: dict[str, Any] | None = None, **key_rules: Any) -> Caller:
    return Caller("ada", "k1", ClientRules(**(rules or {})), ClientRules(**key_rules))


def admitted(found: Grant | Exceeded) -> Grant:
    assert isinstance(found, Grant), found
    return found


def refused(found: Grant | Exceeded) -> tuple[str, float]:
    assert isinstance(found, Exceeded)
    return found.rule, round(found.retry_after, 3)


# -- rates


@given(st.integers(1, 50), st.lists(st.tuples(st.floats(0, 90), st.floats(0.01, 60)), max_size=30))
def test_a_rate_is_a_bucket_that_fills_evenly(limit: int, steps: list[tuple[float, float]]) -> None:
    rate, level, now = MinuteRate(limit), float(limit), 0.0
    for wait, cost in steps:
        now += wait
        level = min(float(limit), level + wait * limit / 60)
        assert rate.remaining(now) == pytest.approx(level, abs=1e-6)
        needed = min(cost, float(limit))
        expected = (needed - level) * 60 / limit if needed > level else 0.0
        assert rate.wait(cost, now) == pytest.approx(expected, abs=1e-3)
        if rate.wait(cost, now) == 0:
            rate.take(cost, now)
            level -= cost


@given(st.integers(1, 600), st.lists(st.floats(0, 3), min_size=1, max_size=200))
def test_in_any_time_no_more_than_the_burst_and_the_rate_is_admitted(
    limit: int, waits: list[float]
) -> None:
    rate, now, times = MinuteRate(limit), 0.0, list[float]()
    for wait in waits:
        now += wait
        if rate.wait(1, now) == 0:
            rate.take(1, now)
            times.append(now)
    for first, begin in enumerate(times):
        for last, end in enumerate(times[first:], start=first):
            assert last - first + 1 <= limit + limit * (end - begin) / 60 + 1e-3


def test_a_limit_that_changes_keeps_what_was_taken() -> None:
    rate = MinuteRate(60)
    rate.take(50, 0.0)
    rate.set_limit(100, 100, 0.0)
    assert rate.remaining(0.0) == pytest.approx(50)
    rate.set_limit(10, 10, 0.0)
    assert rate.remaining(0.0) == pytest.approx(-40)
    assert rate.wait(1, 0.0) == pytest.approx(41 * 6)


# -- budgets


@pytest.mark.parametrize(
    ("period", "at", "start", "end"),
    [
        ("day", NEW_YEAR, NEW_YEAR, NEW_YEAR + DAY),
        ("day", NEW_YEAR + DAY - 1, NEW_YEAR, NEW_YEAR + DAY),
        ("month", NEW_YEAR + 30 * DAY, NEW_YEAR, NEW_YEAR + 31 * DAY),
        ("month", NEW_YEAR + 31 * DAY, NEW_YEAR + 31 * DAY, NEW_YEAR + 59 * DAY),
    ],
)
def test_periods_are_those_of_the_calendar_in_utc(
    period: Any, at: float, start: float, end: float
) -> None:
    assert (period_start(period, at), period_end(period, at)) == (start, end)


@given(
    st.lists(st.tuples(st.floats(-3 * DAY, 3 * DAY), st.floats(0, 40), st.floats(-20, 20))),
)
def test_a_budget_counts_on_when_the_clock_is_set_back(
    steps: list[tuple[float, float, float]],
) -> None:
    budget, now, latest, spent = Budget("day", 100.0), NEW_YEAR, 0.0, 0.0
    for step, amount, difference in steps:
        now += step
        if period_start("day", now) > latest:
            latest, spent = period_start("day", now), 0.0
        assert budget.is_exhausted(now) is (spent >= 100)
        assert budget.ends_in(now) >= 1
        start = budget.spend(amount, now)
        assert start == latest
        budget.settle(difference, start)
        spent = max(0.0, spent + amount + difference)
        assert budget.spent == pytest.approx(spent)
        budget.settle(1000.0, start - DAY)  # a request that began yesterday
        assert budget.spent == pytest.approx(spent)


# -- requests


def test_requests_beyond_the_rate_are_refused_until_there_is_room() -> None:
    clocks = Clocks()
    limits, ada = limiter(clocks), caller({"requests_per_minute": 3})
    for left in (2, 1, 0):
        status = admitted(limits.admit(ada, costs_of())).rates.requests
        assert status is not None
        assert (status.limit, status.remaining) == (3, left)
    assert refused(limits.admit(ada, costs_of())) == ("requests_per_minute", 20)
    clocks.turn(20)
    admitted(limits.admit(ada, costs_of()))
    assert refused(limits.admit(ada, costs_of())) == ("requests_per_minute", 20)


def test_what_a_request_did_use_counts_in_place_of_the_estimate() -> None:
    clocks = Clocks()
    limits, ada = limiter(clocks), caller({"tokens_per_minute": 100, "tokens_per_day": 250})
    admitted(limits.admit(ada, costs_of(tokens=60))).end(costs_of(tokens=10))
    admitted(limits.admit(ada, costs_of(tokens=90))).end(costs_of(tokens=190))
    assert refused(limits.admit(ada, costs_of(tokens=1))) == ("tokens_per_minute", 60.6)
    clocks.turn(120)
    grant = admitted(
        limits.admit(ada, costs_of(tokens=1000))
    )  # more than the limit: it is all there
    assert refused(limits.admit(ada, costs_of(tokens=1))) == ("tokens_per_day", DAY / 2 - 120)
    grant.end(costs_of(tokens=0))
    admitted(limits.admit(ada, costs_of(tokens=50))).end(None)
    assert refused(limits.admit(ada, costs_of())) == ("tokens_per_day", DAY / 2 - 120)
    clocks.turn(DAY / 2)
    admitted(limits.admit(ada, costs_of()))


def test_money_is_counted_beside_tokens() -> None:
    limits, ada = limiter(Clocks()), caller({"money_per_month": 2})
    admitted(limits.admit(ada, costs_of(5, 1.5))).end(None)
    admitted(limits.admit(ada, costs_of(5, 0.1))).end(costs_of(5, 0.5))
    found = limits.admit(ada, costs_of())
    assert refused(found)[0] == "money_per_month"
    assert isinstance(found, Exceeded)
    assert found.is_budget


def test_requests_at_the_same_time_are_counted_until_they_end() -> None:
    limits, ada = limiter(Clocks()), caller({"max_concurrent": 2})
    first, second = (admitted(limits.admit(ada, costs_of())) for _ in range(2))
    assert refused(limits.admit(ada, costs_of())) == ("max_concurrent", 1)
    first.end(None)
    first.end(None)  # once is enough
    third = admitted(limits.admit(ada, costs_of()))
    assert refused(limits.admit(ada, costs_of())) == ("max_concurrent", 1)
    second.end(None)
    third.end(None)


def test_a_request_that_the_key_refuses_takes_nothing_from_the_client() -> None:
    limits = limiter(Clocks())
    ada = caller({"requests_per_minute": 3}, requests_per_minute=1)
    other = attrs.evolve(ada, key_id="k2", key_rules=ClientRules())
    admitted(limits.admit(ada, costs_of()))
    for _ in range(5):
        assert refused(limits.admit(ada, costs_of()))[0] == "requests_per_minute"
    for _ in range(2):
        admitted(limits.admit(other, costs_of()))
    assert refused(limits.admit(other, costs_of()))[0] == "requests_per_minute"


def test_rules_that_change_keep_what_was_used() -> None:
    limits = limiter(Clocks())
    admitted(limits.admit(caller({"requests_per_minute": 2}), costs_of()))
    running = admitted(limits.admit(caller({"requests_per_minute": 2}), costs_of()))
    for _ in range(3):
        admitted(limits.admit(caller({"requests_per_minute": 5}), costs_of()))
    more = caller({"requests_per_minute": 5, "tokens_per_day": 10})
    assert refused(limits.admit(more, costs_of()))[0] == "requests_per_minute"
    less = caller({"max_concurrent": 1})
    assert refused(limits.admit(less, costs_of()))[0] == "max_concurrent"
    running.end(costs_of(tokens=3))


def test_what_is_idle_is_forgotten_when_there_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bridgepool.gateway.limits._limiter._MAX_SCOPES", 10)
    clocks = Clocks()
    limits, rules = limiter(clocks), ClientRules(requests_per_minute=1)
    for number in range(10):
        admitted(limits.admit(Caller(f"c{number}", "k", rules), costs_of())).end(None)
    clocks.turn(61)
    held = admitted(limits.admit(Caller("c3", "k", rules), costs_of()))
    admitted(limits.admit(Caller("new", "k", rules), costs_of()))
    assert {scope_id[1] for scope_id in limits.scopes} == {"c3", "new"}
    held.end(None)
