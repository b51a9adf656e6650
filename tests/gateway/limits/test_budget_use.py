"""Which budgets operators see: those of which 80 % or more is spent."""

from __future__ import annotations

import attrs
import pytest

from bridgepool.gateway.limits._budgets import BudgetUse
from bridgepool.gateway.limits._leased import LeasedScope
from bridgepool.gateway.limits._limiter import Limiter, costs_of
from bridgepool.gateway.limits._share_pool import Share
from bridgepool.gateway.providers import Caller, ClientRules
from bridgepool.gateway.proxy import _budget_status
from bridgepool.gateway.proxy._budget_status import budgets_document, find_nearly_spent
from tests.gateway.limits.test_limiter import DAY, NEW_YEAR, Clocks, admitted, limiter


async def test_budgets_are_listed_from_80_percent_on_until_their_period_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_budget_status, "MAX_BUDGETS", 2)
    clocks = Clocks()
    limits = limiter(clocks)
    rules = ClientRules(tokens_per_day=100, money_per_month=1000, requests_per_minute=100)
    for name, tokens in {"a": 79, "b": 80, "c": 100, "d": 250}.items():
        caller = Caller(name, f"k{name}", rules, ClientRules(tokens_per_month=1000))
        admitted(limits.admit(caller, costs_of(tokens, 1.0))).end(None)
    blocked = Caller("e", "ke", ClientRules(tokens_per_day=0))  # as the operator wants it
    limits.admit(blocked, costs_of())
    midnight = NEW_YEAR + DAY
    found = await find_nearly_spent(limits)
    assert found == [
        BudgetUse("client", "d", "tokens_per_day", 100, 250, midnight),
        BudgetUse("client", "c", "tokens_per_day", 100, 100, midnight),
        BudgetUse("client", "b", "tokens_per_day", 100, 80, midnight),
    ]
    document = budgets_document(found, in_memory=True)
    assert (document["in_memory"], document["spent"], document["nearly_spent"]) == (True, 2, 1)
    most, ends = ("client", "tokens_per_day", 100), "2026-01-02T00:00:00Z"
    assert document["most_spent"] == [
        dict(zip(("scope", "rule", "limit"), most, strict=True))
        | {"id": name, "spent": spent, "ends": ends}
        for name, spent in (("d", 250), ("c", 100))
    ]
    clocks.turn(DAY / 2)
    assert await find_nearly_spent(limits) == []
    clocks.turn(-DAY / 2)  # looking began no period
    assert await find_nearly_spent(limits) == found


async def test_a_gateway_with_shares_lists_what_all_gateways_have_spent() -> None:
    clocks = Clocks()
    limits = Limiter(lambda: clocks.now, lambda: clocks.wall, LeasedScope)
    caller = Caller("ada", "k", ClientRules(money_per_day=100, money_per_month=100))

    def report(remaining: float) -> None:
        [scope] = limits.scopes.values()
        for asked in scope.demands("client", "ada", clocks.now):
            left = remaining if asked.rule == "money_per_day" else 60
            scope.apply(asked, Share(min(2, left), left), clocks.now)

    admitted(limits.admit(caller, costs_of(money=1.0))).end(None)
    assert await find_nearly_spent(limits) == []
    report(remaining=15)  # others have spent most of it
    admitted(limits.admit(caller, costs_of(money=1.0))).end(None)
    use = BudgetUse("client", "ada", "money_per_day", 100, 86, NEW_YEAR + DAY)
    assert await find_nearly_spent(limits) == [use]
    assert not use.is_spent
    report(remaining=0)
    assert await find_nearly_spent(limits) == [attrs.evolve(use, spent=100)]
    clocks.turn(DAY / 2)
    assert await find_nearly_spent(limits) == []
