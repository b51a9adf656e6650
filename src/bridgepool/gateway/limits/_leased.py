"""One client's or key's limits at a gateway that holds shares of them. Pure.

See `_shares` for where shares come from. While no control plane can be asked, a gateway goes on
with what it holds; of a limit that it holds nothing of, it uses the least share. A share that
becomes smaller is returned only as far as it was not used: what was taken of a rate comes back
here first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import attrs

from bridgepool.gateway.limits._budgets import NEARLY_SPENT, ROUNDING, period_end, period_start
from bridgepool.gateway.limits._kinds import BUDGETS, LIMITS, RATES, WHOLE_UNITS
from bridgepool.gateway.limits._rate import MinuteRate
from bridgepool.gateway.limits._share_pool import BUDGET_CHUNK, LEAST_SHARE, Share, ShareDemand
from bridgepool.gateway.providers import ClientRules

_HALF_LIFE: Final = 5.0  # seconds after which a demand counts half
_FORGOTTEN_AFTER: Final = 60.0  # seconds after which it does not count
_LEAST_COST: Final = 1e-9  # of the limit: so much is asked for by a request that costs nothing
_RETRY: Final = 1.0  # seconds until there may be a larger share


@attrs.define(eq=False)
class _Part:
    """What is known of one limit."""

    limit: float
    share: float
    """What may be used; of a budget, what is left."""
    lent: float = 0.0
    """What of the share was not given, but is used for want of one."""
    is_known: bool = False
    """Whether the share is one that was given."""
    remaining: float = math.inf
    """What is left for all gateways, as far as is known."""
    used: float = 0.0
    """Of a budget, in `period`; what was not reported of the last one counts in this one."""
    reported: float = 0.0
    """What of that a control plane knows."""
    period: float = 0.0
    until: float = 0.0
    """When `period` ends."""
    demand: float = 0.0
    _at: float = 0.0  # when the demand was so much

    def lend(self, least: float) -> None:
        """Use the least share, for want of one that was given."""
        self.share, self.lent, self.is_known = least, least, False

    def want(self, cost: float, now: float) -> None:
        """Note that so much was asked for, whether it was there or not.

        What a request costs is known at its end only, so one that is estimated to cost nothing
        needs a share, too.
        """
        self.demand = self.demand_at(now) + max(cost, _LEAST_COST * self.limit)
        self._at = now

    def demand_at(self, now: float) -> float:
        """Return the demand of the last seconds."""
        since = max(0.0, now - self._at)
        # A demand is never too small: a unit may be a token, or a large sum of money.
        return self.demand * 0.5 ** (since / _HALF_LIFE) if since < _FORGOTTEN_AFTER else 0.0


def _least(rule: str, limit: float) -> float:
    least = LEAST_SHARE * limit
    return max(1.0, math.floor(least)) if rule in WHOLE_UNITS else least


@attrs.define(eq=False)
class LeasedScope:
    """The limits of one client or key, of which shares are held."""

    rules: ClientRules
    running: int = 0
    rates: dict[str, MinuteRate] = attrs.field(factory=dict)
    parts: dict[str, _Part] = attrs.field(factory=dict)
    _parked: dict[str, _Part] = attrs.field(factory=dict)  # of rules that were removed
    alone: bool = False
    """No control plane gives shares: the whole limits are used."""

    @property
    def lacks_shares(self) -> bool:
        """Whether there is a limit of which nothing was given yet."""
        return not self.alone and not all(part.is_known for part in self.parts.values())

    def set_rules(self, rules: ClientRules, now: float) -> None:
        """Change the rules; what was used, and shares, stay."""
        self.rules = rules
        for name in LIMITS:
            limit = getattr(rules, name)
            if limit is None:
                if name in self.parts:
                    self._parked[name] = self.parts.pop(name)
                self.rates.pop(name, None)
                continue
            part = self.parts.get(name) or self._parked.pop(name, None)
            if part is None:
                part = _Part(limit, limit)
                if not self.alone:
                    part.lend(_least(name, limit))
            elif limit != part.limit:
                used = part.used if name in BUDGETS else 0.0
                part.share = limit - used if self.alone else min(part.share, limit)
                if part.lent:
                    least = _least(name, limit)
                    part.share, part.lent = part.share + least - part.lent, least
                part.limit, part.remaining = limit, math.inf
            self.parts[name] = part
            if name in RATES:
                rate = self.rates.setdefault(name, MinuteRate(limit))
                rate.set_limit(limit, part.share, now)

    def _parts_of(self, costs: dict[str, float]) -> list[tuple[str, _Part]]:
        return [(name, part) for name, part in self.parts.items() if name in costs]

    def expect(self, costs: dict[str, float], now: float, wall: float) -> None:
        """Note that a request comes; what is reported next is of its period and asks for it."""
        for name, part in self._parts_of(costs):
            part.want(costs[name], now)
            # A period that the clock was set back to does not begin again.
            if name in BUDGETS and wall >= part.until:
                self._turn(name, part, wall)

    def exceeded(
        self, costs: dict[str, float], now: float, wall: float
    ) -> tuple[str, float, bool] | None:
        """Return the rule that a request would exceed, the seconds to wait, and if it is spent."""
        self.expect(costs, now, wall)
        for name, part in self._parts_of(costs):
            if name == "max_concurrent":
                if self.running >= part.share:
                    return name, _RETRY, False
            elif name in self.rates:
                wait = self.rates[name].wait(costs[name], now)
                if wait > 0:
                    return name, wait, False
            elif part.share <= ROUNDING * part.limit:
                spent = min(part.remaining, part.limit) <= ROUNDING * part.limit
                end = period_end(BUDGETS[name][1], wall) - wall
                return name, end if spent else _RETRY, spent
        return None

    def take(self, costs: dict[str, float], now: float, wall: float) -> dict[str, float]:
        """Take what a request is estimated to use."""
        self.running += 1
        for name, part in self._parts_of(costs):
            if name in self.rates:
                self.rates[name].take(costs[name], now)
            elif name in BUDGETS:
                part.share -= costs[name]
                part.used += costs[name]
        return {}

    def _turn(self, name: str, part: _Part, wall: float) -> None:
        """Begin a period. A share counts only in the period in which it was given."""
        period = BUDGETS[name][1]
        part.period, part.until = period_start(period, wall), period_end(period, wall)
        part.remaining = math.inf
        part.used, part.reported = part.used - part.reported, 0.0
        if self.alone:
            part.share, part.used = part.limit, 0.0
        else:
            part.lend(_least(name, part.limit))

    def settle(
        self,
        taken: dict[str, float],
        used: dict[str, float],
        periods: dict[str, float],
        now: float,
    ) -> None:
        """Correct what a request has taken to what it used."""
        self.running -= 1
        for name, part in self._parts_of(taken):
            difference = used[name] - taken[name]
            if name == "tokens_per_minute":
                self.rates[name].take(difference, now)
            elif name in BUDGETS:
                most = max(part.share, part.limit if self.alone else BUDGET_CHUNK * part.limit)
                # The control plane drew what was taken beyond the share, so that is not kept: the
                # next report returns it.
                part.share = min(part.share - difference, most)
                part.used += difference
            else:
                continue
            if difference > 0:
                part.want(difference, now)

    def is_idle(self, now: float, wall: float) -> bool:
        """Return whether it is of no use to remember it."""
        parts = (*self.parts.values(), *self._parked.values())
        # What was spent is reported as a sum, which must not begin again.
        return not self.running and not any(part.demand_at(now) or part.used for part in parts)

    def nearly_spent(self, wall: float) -> Iterator[tuple[str, float, float, float]]:
        """Yield rule, limit, what is spent, and the end of each budget of which little is left.

        What all gateways have spent, as far as is known.
        """
        for name, part in self.parts.items():
            if name not in BUDGETS:
                continue
            spent = part.used
            if part.remaining < part.limit:
                spent = max(spent, part.limit - part.remaining + part.used - part.reported)
            if 0 < NEARLY_SPENT * part.limit <= spent:
                period = BUDGETS[name][1]
                if part.period >= period_start(period, wall):
                    yield name, part.limit, spent, period_end(period, max(wall, part.period))

    def is_to_be_reported(self, now: float) -> bool:
        """Return whether there is something to report or to ask for.

        That is: it is in use, lacks shares, holds more than the least share, or has spent what no
        control plane knows.
        """
        return (
            self.running > 0
            or self.lacks_shares
            or any(
                part.demand_at(now)
                or part.share > _least(name, part.limit)
                or part.used != part.reported
                for name, part in self.parts.items()
            )
        )

    def set_alone(self, alone: bool, now: float) -> None:
        """Use the whole limits, or again shares of them."""
        self.alone = alone
        for name, part in self.parts.items():
            part.lend(_least(name, part.limit))
            if alone:
                part.share = part.limit - part.used if name in BUDGETS else part.limit
            if name in self.rates:
                self.rates[name].set_limit(part.limit, part.share, now)

    # -- shares

    def lend_least(self, now: float) -> None:
        """Use the least share of each limit of which less is held; no control plane gives more.

        Shares of whole requests go back when they are not used. Budgets stay: what is left of
        their shares is all that may be spent.
        """
        for name, part in self.parts.items():
            least = _least(name, part.limit)
            if name in BUDGETS or self.alone or part.share >= least:
                continue
            part.lend(least)
            if name in self.rates:
                self.rates[name].set_limit(part.limit, part.share, now)

    def demands(self, scope: str, scope_id: str, now: float) -> list[ShareDemand]:
        """Return what is to be reported of each limit."""
        return [
            ShareDemand(
                scope=scope,
                id=scope_id,
                rule=name,
                limit=part.limit,
                held=self._held(name, part),
                used=part.used,
                period=part.period,
                demand=max(part.demand_at(now), self.running if name == "max_concurrent" else 0),
            )
            for name, part in self.parts.items()
        ]

    def given_back(self, asked: ShareDemand, now: float) -> ShareDemand:
        """Return the report of a gateway that serves no more, so that others get its shares.

        What was taken of a rate comes back with time only.
        """
        rate = self.rates.get(asked.rule)
        taken = 0.0 if rate is None else rate.taken(now)
        if asked.rule in WHOLE_UNITS:
            taken = math.ceil(taken - 1e-9)
        return attrs.evolve(asked, held=min(asked.held, taken), demand=0.0)

    def _held(self, name: str, part: _Part) -> float:
        if name in BUDGETS:
            return part.share - part.lent
        held = part.share if part.is_known or part.share <= 0 else 0.0
        # What runs on a share that was lent holds a place, too.
        return max(held, self.running) if name == "max_concurrent" else held

    def apply(self, asked: ShareDemand, given: Share, now: float) -> None:
        """Take a share that was given as the answer to a report."""
        part = self.parts.get(asked.rule)
        if part is None:
            return
        part.remaining = given.remaining
        if asked.rule in BUDGETS:
            # What was spent since the report is spent.
            if asked.period == part.period:
                part.reported = asked.used
            part.share, part.lent = given.share - (part.used - part.reported), 0.0
        else:
            part.share = given.share
            rate = self.rates.get(asked.rule)
            if rate is not None:
                taken = min(rate.taken(now), rate.share) if part.is_known else 0.0
                if asked.rule in WHOLE_UNITS:
                    taken = math.ceil(taken - 1e-9)
                part.share = max(given.share, taken)
                rate.set_limit(part.limit, part.share, now, given.remaining)
                if given.taken:
                    rate.take(min(given.taken, max(0.0, rate.remaining(now))), now)
        part.is_known = True
