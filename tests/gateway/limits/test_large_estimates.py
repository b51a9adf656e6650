"""Requests that are estimated to cost more than a budget has, and use little or nothing of it.

The body of a picture or a recording, or a length that a client claims and does not send.
"""

from __future__ import annotations

from bridgepool.gateway.limits._leased import LeasedScope
from bridgepool.gateway.limits._limiter import costs_of
from bridgepool.gateway.limits._share_pool import BUDGET_CHUNK
from bridgepool.gateway.limits._shares import ShareLedger
from bridgepool.gateway.providers import ClientRules
from tests.gateway.limits.shares_world import NEW_YEAR

_LIMIT = 100.0


class _Plane:
    """A control plane on a store that others use, too."""

    def __init__(self, stored: list[float]) -> None:
        self.ledger, self.stored = ShareLedger(-100.0, (), True), stored

    def lease(self, scope: LeasedScope, now: float) -> None:
        """Take the report of the gateway `g`, draw what is wanted, and give the next shares."""
        asked = scope.demands("client", "ada", now)
        noted = self.ledger.note("g", asked, now, NEW_YEAR)
        for draw in self.ledger.draws(now, 10):
            drawn = draw.take_from(self.stored[0])
            self.stored[0] = drawn.spent
            self.ledger.drew([draw], [drawn], now)
        for one, share in zip(asked, self.ledger.give(noted, now), strict=True):
            scope.apply(one, share, now)


def _gateway(plane: _Plane) -> LeasedScope:
    plane.ledger.begin("g")
    scope = LeasedScope(ClientRules(money_per_day=_LIMIT))
    scope.set_rules(scope.rules, 0.0)
    return scope


def _spend(scope: LeasedScope, cost: float, now: float) -> int:
    """Use what may be used without another report; return how many requests that were."""
    costs, done = costs_of(0.0, cost), 0
    while done < 2000 and scope.exceeded(costs, now, NEW_YEAR) is None:
        scope.take(costs, now, NEW_YEAR)
        done += 1
    return done


def test_what_a_request_did_not_use_of_its_estimate_is_returned_to_all() -> None:
    """It stayed spent in the store, so that gateways of another control plane refused the client
    for the rest of the day; and its gateway could spend the estimate while it was not connected.
    """
    stored = [0.0]
    plane, other = _Plane(stored), _Plane(stored)
    scope, elsewhere = _gateway(plane), _gateway(other)
    small, huge = costs_of(0.0, 0.1), costs_of(0.0, 1e6)
    for now in (1.0, 2.0):
        scope.expect(small, now, NEW_YEAR)
        plane.lease(scope, now)
    assert scope.exceeded(huge, 3.0, NEW_YEAR) is None
    periods = scope.take(huge, 3.0, NEW_YEAR)
    for now in (4.0, 5.0):
        plane.lease(scope, now)
    assert scope.exceeded(small, 5.0, NEW_YEAR) is not None
    scope.settle(huge, small, periods, 6.0)
    assert _spend(scope, 0.1, 6.0) <= BUDGET_CHUNK * _LIMIT / 0.1 + 1
    for now in (7.0, 8.0, 9.0):
        plane.lease(scope, now)
    assert stored[0] <= 4 * BUDGET_CHUNK * _LIMIT
    for now in (10.0, 11.0):
        elsewhere.expect(small, now, NEW_YEAR)
        other.lease(elsewhere, now)
    assert elsewhere.exceeded(small, 12.0, NEW_YEAR) is None
    spent = 0
    for now in range(20, 400):  # all of it can be spent, and no more
        spent += _spend(scope, 0.1, now)
        plane.lease(scope, now)
    assert 0.9 * _LIMIT <= 0.1 * spent <= _LIMIT
