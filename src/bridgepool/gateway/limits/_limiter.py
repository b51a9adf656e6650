"""How much clients may use: what each has used, and whether there is room for one more request.

Theory of operation. A client and each of its keys is a *scope* with state of its own, kept by id:
it survives every change of providers, clients and rules. A request is admitted by all scopes that
it belongs to, or by none. It takes what it is estimated to use, and when it has ended the
difference to what it did use is settled. So a limit on tokens is exact in the long run, and what a
single request uses beyond its estimate is paid back by the next ones.

Nothing here waits. Rates use a clock that never goes back, budgets that of the machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Generic, Protocol, TypeAlias, TypeVar

import attrs

from bridgepool.gateway.limits._budgets import Budget
from bridgepool.gateway.limits._kinds import BUDGETS, RATES
from bridgepool.gateway.limits._rate import MinuteRate
from bridgepool.gateway.limits._rules import ScopeId, rules_of
from bridgepool.gateway.providers import Caller, ClientRules
from bridgepool.gateway.providers._rate_status import Rate, RateStatus

Costs: TypeAlias = dict[str, float]
"""What a request takes of each limit that is about it."""
ONE_REQUEST: Final[Costs] = {"max_concurrent": 1.0, "requests_per_minute": 1.0}
"""What a request takes that limits of tokens and money are not about."""
_MAX_SCOPES: Final = 50_000


def wall_clock() -> float:
    """Return the seconds since the epoch."""
    return time.time()


@attrs.frozen
class Exceeded:
    """A limit that a request would exceed."""

    rule: str
    """The rule, such as ``requests_per_minute``."""
    retry_after: float
    """Seconds until there may be room."""
    is_budget: bool
    """Whether it is a budget that is spent: waiting a little is of no use."""
    limit: float
    """What the rule allows; a budget of 0 allows nothing at any time."""
    rates: RateStatus


def costs_of(tokens: float = 0.0, money: float = 0.0, requests: float = 1.0) -> Costs:
    """Return what a request takes that uses so much."""
    return {
        "max_concurrent": 1.0,
        "requests_per_minute": requests,
        "tokens_per_minute": tokens,
        "tokens_per_day": tokens,
        "tokens_per_month": tokens,
        "money_per_day": money,
        "money_per_month": money,
    }


class Scope(Protocol):
    """What one client or key has used, of its whole limits or of shares of them."""

    rules: ClientRules
    rates: dict[str, MinuteRate]

    def set_rules(self, rules: ClientRules, now: float) -> None:
        """Change the rules; what was used stays."""
        ...

    def exceeded(self, costs: Costs, now: float, wall: float) -> tuple[str, float, bool] | None:
        """Return the rule that a request would exceed, the seconds to wait, and if it is spent."""
        ...

    def take(self, costs: Costs, now: float, wall: float) -> dict[str, float]:
        """Take what a request is estimated to use; what is returned is given to `settle`."""
        ...

    def settle(self, taken: Costs, used: Costs, periods: dict[str, float], now: float) -> None:
        """Correct what a request has taken to what it used; it has ended."""
        ...

    def is_idle(self, now: float, wall: float) -> bool:
        """Return whether it need not be remembered."""
        ...

    def nearly_spent(self, wall: float) -> Iterator[tuple[str, float, float, float]]:
        """Yield rule, limit, what is spent, and the end of each budget of which little is left."""
        ...


S_co = TypeVar("S_co", bound=Scope, covariant=True)


@attrs.define(eq=False)
class WholeScope:
    """What one client or key has used of its whole limits."""

    rules: ClientRules
    running: int = 0
    rates: dict[str, MinuteRate] = attrs.field(factory=dict)
    budgets: dict[str, Budget] = attrs.field(factory=dict)

    def set_rules(self, rules: ClientRules, now: float) -> None:
        self.rules = rules
        for name in RATES:
            limit = getattr(rules, name)
            if limit is None:
                self.rates.pop(name, None)
            elif name in self.rates:
                self.rates[name].set_limit(limit, limit, now)
            else:
                self.rates[name] = MinuteRate(limit)
        for name, (_unit, period) in BUDGETS.items():
            limit = getattr(rules, name)
            if limit is None:
                self.budgets.pop(name, None)
            elif name in self.budgets:
                self.budgets[name].limit = limit
            else:
                self.budgets[name] = Budget(period, limit)

    def exceeded(self, costs: Costs, now: float, wall: float) -> tuple[str, float, bool] | None:
        """Return the rule that a request would exceed, the seconds to wait, and if it is spent."""
        most = self.rules.max_concurrent
        if most is not None and self.running >= most:
            return "max_concurrent", 1.0, False
        for name, budget in self.budgets.items():
            if name in costs and budget.is_exhausted(wall):
                return name, budget.ends_in(wall), True
        for name, rate in self.rates.items():
            wait = rate.wait(costs[name], now) if name in costs else 0.0
            if wait > 0:
                return name, wait, False
        return None

    def take(self, costs: Costs, now: float, wall: float) -> dict[str, float]:
        """Take what a request is estimated to use; return in which period each budget took it."""
        self.running += 1
        for name, rate in self.rates.items():
            if name in costs:
                rate.take(costs[name], now)
        periods = {}
        for name, budget in self.budgets.items():
            if name in costs:
                periods[name] = budget.spend(costs[name], wall)
        return periods

    def settle(self, taken: Costs, used: Costs, periods: dict[str, float], now: float) -> None:
        """Correct what a request has taken to what it used."""
        self.running -= 1
        name = "tokens_per_minute"
        if name in self.rates and name in taken:
            self.rates[name].take(used[name] - taken[name], now)
        for name, start in periods.items():
            if name in self.budgets:
                self.budgets[name].settle(used[name] - taken[name], start)

    def is_idle(self, now: float, wall: float) -> bool:
        """Return whether it is like one that was never used."""
        return (
            not self.running
            and all(rate.taken(now) == 0 for rate in self.rates.values())
            and all(budget.remaining(wall) == budget.limit for budget in self.budgets.values())
        )

    def nearly_spent(self, wall: float) -> Iterator[tuple[str, float, float, float]]:
        for name, budget in self.budgets.items():
            found = budget.nearly_spent(wall)
            if found is not None:
                yield name, *found


@attrs.define(eq=False)
class Grant:
    """A request that was admitted; end it once."""

    _clock: Callable[[], float]
    _scopes: Sequence[tuple[Scope, dict[str, float]]]
    _taken: Costs
    rates: RateStatus
    """What is left after it."""

    def end(self, used: Costs | None) -> None:
        """Settle what the request used; None if that is what was estimated."""
        now, taken = self._clock(), self._taken
        for scope, periods in self._scopes:
            scope.settle(taken, taken if used is None else used, periods, now)
        self._scopes = ()


@attrs.define(eq=False)
class Limiter(Generic[S_co]):
    """What all clients of a gateway have used.

    Args:
        clock: Returns seconds; never goes back.
        wall: Returns the seconds since the epoch.
        make: Makes a scope.
    """

    clock: Callable[[], float]
    wall: Callable[[], float]
    _make: Callable[[ClientRules], S_co]
    scopes: dict[ScopeId, S_co] = attrs.field(factory=dict, init=False)
    """What each client and key has used."""

    def admit(self, caller: Caller, costs: Costs) -> Grant | Exceeded:
        """Admit one request, or return the limit that it would exceed.

        Args:
            caller: Who asks.
            costs: What it is estimated to take.
        """
        now, wall = self.clock(), self.wall()
        scopes = self._scopes_of(caller, now)
        for scope in scopes:
            found = scope.exceeded(costs, now, wall)
            if found is not None:
                limit = getattr(scope.rules, found[0])
                return Exceeded(*found, limit, rate_status(scopes, now))
        taken = [(scope, scope.take(costs, now, wall)) for scope in scopes]
        return Grant(self.clock, taken, costs, rate_status(scopes, now))

    def scopes_of(self, caller: Caller) -> list[S_co]:
        """Return the scopes that a client's requests belong to."""
        return self._scopes_of(caller, self.clock())

    def _scopes_of(self, caller: Caller, now: float) -> list[S_co]:
        found = []
        for scope_id in rules_of(caller).limited:
            rules = caller.rules if scope_id[0] == "client" else caller.key_rules
            scope = self.scopes.get(scope_id)
            if scope is None or scope.rules is not rules:
                scope = self._set_rules(scope_id, rules, now)
            found.append(scope)
        return found

    def _set_rules(self, scope_id: ScopeId, rules: ClientRules, now: float) -> S_co:
        scope = self.scopes.get(scope_id)
        if scope is None:
            scope = self.scopes[scope_id] = self._make(rules)
            scope.set_rules(rules, now)
            if len(self.scopes) > _MAX_SCOPES:
                self._forget(scope, now)
        elif scope.rules == rules:
            scope.rules = rules  # so that they need not be compared again
        else:
            scope.set_rules(rules, now)
        return scope

    def _forget(self, but: Scope, now: float) -> None:
        wall = self.wall()
        for scope_id, scope in list(self.scopes.items()):
            if scope is not but and scope.is_idle(now, wall):
                del self.scopes[scope_id]


class SharedLimits(Protocol):
    """The limits of clients, shared with other gateways; `LimitLeases` is one."""

    @property
    def limiter(self) -> Limiter[Scope]:
        """What clients have used of this gateway's shares."""
        ...

    @property
    def in_memory(self) -> bool:
        """Whether what is spent of budgets ends with a process."""
        ...

    async def prepare(self, caller: Caller, costs: Costs) -> None:
        """Wait a moment for shares of limits that this gateway has none of yet."""
        ...

    async def refresh(self, caller: Caller) -> bool:
        """Wait a moment for larger shares; return whether there may be."""
        ...


def rate_status(scopes: Iterable[Scope], now: float) -> RateStatus:
    """Return the rates of some scopes: of each kind the one with the least left."""
    least: dict[str, Rate] = {}
    for scope in scopes:
        for name, rate in scope.rates.items():
            found = rate.status(now)
            if name not in least or found.remaining < least[name].remaining:
                least[name] = found
    return RateStatus(least.get("requests_per_minute"), least.get("tokens_per_minute"))
