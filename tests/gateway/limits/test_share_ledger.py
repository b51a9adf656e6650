"""The ledger of shares, question by question; `test_shares` has it under load."""

from __future__ import annotations

import attrs
import pytest

from bridgepool.gateway.limits._share_pool import Share, ShareDemand
from bridgepool.gateway.limits._shares import ShareLedger
from tests.gateway.limits.shares_world import NEW_YEAR

DAY = 86400.0


def budget(held: float, used: float = 0.0, period: float = NEW_YEAR) -> ShareDemand:
    """What a gateway reports of a budget of 1000 tokens."""
    return ShareDemand(
        scope="client", id="ada", rule="tokens_per_day", limit=1000, held=held, used=used,
        period=period, demand=1,
    )  # fmt: skip


def test_of_a_budget_in_a_store_only_what_was_drawn_is_given_and_what_is_held_is_no_spare() -> None:
    """Each gateway holds 2 % of the budget, and as much is drawn for the next one."""
    ledger = ShareLedger(0.0, (), True)
    held, spent = dict.fromkeys("abcd", 0.0), 0.0

    def lease(name: str) -> float:
        [share] = ledger.lease(name, [budget(held[name])], 1.0, NEW_YEAR)
        held[name] = share.share
        return share.share

    def draw() -> float:
        nonlocal spent
        draws = ledger.draws(1.0, 10)
        drawn = [one.take_from(spent) for one in draws]
        spent = drawn[-1].spent if drawn else spent
        ledger.drew(draws, drawn, 1.0)
        return spent

    for name in held:
        ledger.begin(name)
    assert (lease("a"), draw()) == (0, 40)
    assert [lease(name) for name in "abc"] == [20, 20, 0]
    assert draw() == 80
    assert [lease(name) for name in "cd"] == [20, 20]
    assert draw() == 100
    assert [one.owed for one in ledger.give_back()] == [-20]


def test_what_a_gateway_held_that_is_gone_is_given_soon_and_comes_back_within_a_minute() -> None:
    """It was reserved for a minute: a client that had used that gateway alone got 429 as long."""
    ledger = ShareLedger(-100.0)

    def lease(name: str, held: float, now: float, rule: str = "tokens_per_minute") -> Share:
        asked = ShareDemand(scope="client", id="a", rule=rule, limit=100, held=held, demand=100.0)
        return ledger.lease(name, [asked], now, NEW_YEAR)[0]

    for name in ("a", "b"):
        ledger.begin(name)
    assert lease("a", 0, 0.0).share == pytest.approx(100)
    assert lease("b", 0, 1.0).share == 0
    assert lease("a", 100, 2.0).share == pytest.approx(50)
    assert lease("b", 0, 3.0).share == 0  # until the other one has confirmed that it has less
    assert lease("a", 50, 4.0).share == pytest.approx(50)
    assert lease("b", 0, 5.0).share == pytest.approx(50)
    assert lease("a", 0, 5.0, "max_concurrent").share == 100
    ledger.end("a", 6.0)
    assert lease("b", 50, 10.9).share == pytest.approx(50)  # it may come back with its share
    assert lease("b", 0, 10.9, "max_concurrent") == Share(0, 100)
    found = lease("b", 50, 12.0)
    assert [found.share, found.taken] == pytest.approx([100, 50 * 0.9])
    assert lease("b", 0, 12.0, "max_concurrent") == Share(100, 100)
    assert lease("b", 50, 51.0).taken == pytest.approx(50 * 0.25)
    assert lease("b", 50, 66.0).taken == 0


def test_what_a_gateway_spent_beyond_what_it_was_given_is_drawn_by_the_next_control_plane() -> None:
    ledger = ShareLedger(0.0, (), True)
    ledger.begin("g")
    ledger.lease("g", [budget(held=-8)], 1.0, NEW_YEAR)
    assert [one.owed for one in ledger.draws(1.0, 10)] == [8]


def test_a_clock_that_is_set_back_over_midnight_gives_no_budget_again() -> None:
    ledger, midnight = ShareLedger(-100.0), NEW_YEAR + DAY
    ledger.begin("g")
    asked = budget(0, 400, midnight)
    for wall in (midnight + 5, midnight - 5, midnight + 5):
        [share] = ledger.lease("g", [asked], 1.0, wall)
        assert share.remaining == 600


def test_a_gateway_that_makes_up_limits_gets_nothing_of_them_and_takes_nothing_from_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each of a hundred thousand had all others looked at: a report held the program for minutes.

    Those that nobody uses are dropped, which is tried at most once in ten seconds.
    """
    monkeypatch.setattr("bridgepool.gateway.limits._shares._MANY_POOLS", 10)
    monkeypatch.setattr("bridgepool.gateway.limits._shares._MAX_POOLS", 20)
    ledger = ShareLedger(-100.0)

    def lease(holder: str, name: str, now: float) -> Share:
        demand = attrs.evolve(budget(0.0), id=name, limit=100)
        return ledger.lease(holder, [demand], now, NEW_YEAR)[0]

    ledger.begin("evil")
    ledger.begin("good")
    assert lease("good", "ada", 0.0).share == 2
    given = [lease("evil", f"no-{number}", 0.0).share for number in range(40)]
    assert given == [2] * 19 + [0] * 21
    assert lease("good", "bob", 0.0) == Share(0.0, 0.0)
    assert lease("good", "ada", 1.0).share == 2
