"""How much clients may use: what each has used, and whether there is room for one more request.

Theory of operation. A client and each of its keys is a *scope* with state of its own, kept by id:
it survives every change of providers, clients and rules. A request is admitted by all scopes that
it belongs to, or by none. It takes what it is estimated to use, and when it has ended the
difference to what it did use is settled. So a limit on tokens is exact in the long run, and what a
single request uses beyond its estimate is paid back by the next ones.

Nothing here waits. Rates use a clock that never goes back, budgets that of the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Final, Literal, TypeAlias

import attrs

from bridgepool.gateway.limits._budgets import Budget, Period
from bridgepool.gateway.limits._rate import MinuteRate
from bridgepool.gateway.providers import Caller, ClientRules
from bridgepool.gateway.providers._rate_status import Rate, RateStatus

ScopeId: TypeAlias = tuple[Literal["client", "key"], str]
Unit: TypeAlias = Literal["tokens", "money"]

_BUDGETS: Final[dict[str, tuple[Unit, Period]]] = {
    "tokens_per_day": ("tokens", "day"),
    "tokens_per_month": ("tokens", "month"),
    "money_per_day": ("money", "day"),
    "money_per_month": ("money", "month"),
}
_RATES: Final = ("requests_per_minute", "tokens_per_minute")
_LIMITS: Final = ("max_concurrent", *_RATES, *_BUDGETS)
_MAX_SCOPES: Final = 50_000


@attrs.frozen
class Exceeded:
    """A limit that a request would exceed."""

    rule: str
    """The rule, such as ``requests_per_minute``."""
    retry_after: float
    """Seconds until there may be room."""
    rates: RateStatus

    @property
    def is_budget(self) -> bool:
        """Whether it is a budget, for which waiting a little is no use."""
        return self.rule in _BUDGETS


@attrs.frozen
class Amounts:
    """What a request uses."""

    tokens: float = 0.0
    money: float = 0.0


@lru_cache(maxsize=10_000)
def has_limits(rules: ClientRules) -> bool:
    """Return whether rules say how much may be used."""
    return any(getattr(rules, name) is not None for name in _LIMITS)


@lru_cache(maxsize=10_000)
def counts(rules: ClientRules, unit: Unit) -> bool:
    """Return whether rules limit tokens, or money."""
    return any(name.startswith(unit) and getattr(rules, name) is not None for name in _LIMITS)


@attrs.define(eq=False)
class _Scope:
    """What one client or key has used."""

    rules: ClientRules
    running: int = 0
    rates: dict[str, MinuteRate] = attrs.field(factory=dict)
    budgets: dict[str, Budget] = attrs.field(factory=dict)

    def set_rules(self, rules: ClientRules, now: float) -> None:
        self.rules = rules
        for name in _RATES:
            limit = getattr(rules, name)
            if limit is None:
                self.rates.pop(name, None)
            elif name in self.rates:
                self.rates[name].set_limit(limit, now)
            else:
                self.rates[name] = MinuteRate(limit)
        for name, (_unit, period) in _BUDGETS.items():
            limit = getattr(rules, name)
            if limit is None:
                self.budgets.pop(name, None)
            elif name in self.budgets:
                self.budgets[name].limit = limit
            else:
                self.budgets[name] = Budget(period, limit)

    def exceeded(self, cost: Amounts, now: float, wall: float) -> tuple[str, float] | None:
        """Return the rule that one more request would exceed, and the seconds until it may not."""
        most = self.rules.max_concurrent
        if most is not None and self.running >= most:
            return "max_concurrent", 1.0
        for name, budget in self.budgets.items():
            if budget.is_exhausted(wall):
                return name, budget.ends_in(wall)
        for name, rate in self.rates.items():
            wait = rate.wait(_cost(name, cost), now)
            if wait > 0:
                return name, wait
        return None

    def take(self, cost: Amounts, now: float, wall: float) -> dict[str, float]:
        """Take what a request is estimated to use; return in which period each budget took it."""
        self.running += 1
        for name, rate in self.rates.items():
            rate.take(_cost(name, cost), now)
        return {
            name: budget.spend(getattr(cost, _BUDGETS[name][0]), wall)
            for name, budget in self.budgets.items()
        }

    def settle(self, taken: Amounts, used: Amounts, periods: dict[str, float], now: float) -> None:
        """Correct what a request has taken."""
        self.running -= 1
        tokens = self.rates.get("tokens_per_minute")
        if tokens is not None:
            tokens.take(used.tokens - taken.tokens, now)
        for name, start in periods.items():
            if name in self.budgets:
                unit = _BUDGETS[name][0]
                self.budgets[name].settle(getattr(used, unit) - getattr(taken, unit), start)

    def is_idle(self, now: float, wall: float) -> bool:
        """Return whether it is like one that was never used."""
        return (
            not self.running
            and all(rate.reset_in(now) == 0 for rate in self.rates.values())
            and all(budget.remaining(wall) == budget.limit for budget in self.budgets.values())
        )


def _cost(rate: str, cost: Amounts) -> float:
    return 1.0 if rate == "requests_per_minute" else cost.tokens


@attrs.define(eq=False)
class Grant:
    """A request that was admitted; end it once."""

    _limiter: Limiter
    _scopes: tuple[tuple[_Scope, dict[str, float]], ...]
    _taken: Amounts
    rates: RateStatus
    """What is left after it."""

    def end(self, used: Amounts | None) -> None:
        """Settle what the request used; None if that is what was estimated."""
        now = self._limiter.clock()
        for scope, periods in self._scopes:
            scope.settle(self._taken, used or self._taken, periods, now)
        self._scopes = ()


@attrs.define(eq=False)
class Limiter:
    """What all clients of a gateway have used.

    Args:
        clock: Returns seconds; never goes back.
        wall: Returns the seconds since the epoch.
    """

    clock: Callable[[], float]
    wall: Callable[[], float]
    _scopes: dict[ScopeId, _Scope] = attrs.field(factory=dict, init=False)

    def admit(self, caller: Caller, cost: Amounts) -> Grant | Exceeded:
        """Admit one request, or return the limit that it would exceed.

        Args:
            caller: Who asks.
            cost: What it is estimated to use.
        """
        now, wall = self.clock(), self.wall()
        scopes = list(self._scopes_of(caller, now))
        for scope in scopes:
            found = scope.exceeded(cost, now, wall)
            if found is not None:
                return Exceeded(*found, rate_status(scopes, now))
        periods = tuple((scope, scope.take(cost, now, wall)) for scope in scopes)
        return Grant(self, periods, cost, rate_status(scopes, now))

    def _scopes_of(self, caller: Caller, now: float) -> Iterator[_Scope]:
        ids: tuple[ScopeId, ScopeId] = ("client", caller.client_id), ("key", caller.key_id)
        for scope_id, rules in zip(ids, (caller.rules, caller.key_rules), strict=True):
            if not has_limits(rules):
                continue
            scope = self._scopes.get(scope_id)
            if scope is None:
                scope = self._scopes[scope_id] = _Scope(rules)
                scope.set_rules(rules, now)
                if len(self._scopes) > _MAX_SCOPES:
                    self._forget(scope, now)
            elif scope.rules is not rules and scope.rules != rules:
                scope.set_rules(rules, now)
            yield scope

    def _forget(self, but: _Scope, now: float) -> None:
        wall = self.wall()
        for scope_id, scope in list(self._scopes.items()):
            if scope is not but and scope.is_idle(now, wall):
                del self._scopes[scope_id]


def rate_status(scopes: Iterable[_Scope], now: float) -> RateStatus:
    """Return the rates of some scopes: of each kind the one with the least left."""
    least: dict[str, Rate] = {}
    for scope in scopes:
        for name, rate in scope.rates.items():
            remaining = max(0, int(rate.remaining(now) + 1e-6))
            found = Rate(int(rate.limit), remaining, rate.reset_in(now))
            if name not in least or remaining < least[name].remaining:
                least[name] = found
    return RateStatus(least.get("requests_per_minute"), least.get("tokens_per_minute"))
