"""Shares of clients' limits, as a control plane gives them to gateways. Pure.

Theory of operation. A limit is one pool. Each gateway holds a share of it and uses only that, so
the sum of the shares is all that can be used. A gateway asks again about every second: it reports
the share that it holds, what it has spent of a budget, and its demand; it gets its next share. A
share grows only by what nobody holds. It shrinks when the gateway says so: a smaller share that was
given is still counted in full until the gateway has confirmed it in its next question. So an answer
that is lost, late or doubled never makes the sum larger than the limit.

Shares follow demand; a gateway without any keeps the least share, so that its next request need
not wait. What a gateway held that is gone stays taken for a while, since it may go on with it while
its connection is away; then it comes back, but for what it held of a budget, which counts as spent.
After the start of a control plane shares hardly grow for a moment, until all gateways have
reported what they hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, TypeAlias

import attrs

from bridgepool.gateway.limits._budgets import Period, period_start
from bridgepool.gateway.limits._kinds import BUDGETS, WHOLE_UNITS

LEAST_SHARE: Final = 0.01
"""The part of a limit that a gateway may use without asking."""
BUDGET_CHUNK: Final = 0.02
"""The most of a budget that one gateway holds."""
RESERVED_FOR: Final = 60.0
"""Seconds for which the share of a gateway that is gone stays taken."""
SETTLING_TIME: Final = 3.0
"""Seconds after the start in which shares hardly grow."""
MAX_DEMANDS: Final = 2000
"""The most limits of one report."""
_MAX_POOLS: Final = 100_000
_ROUNDING: Final = 1e-9

PoolId: TypeAlias = tuple[str, str, str]


@attrs.frozen(kw_only=True)
class ShareDemand:
    """What a gateway reports of its share of one limit."""

    scope: str
    """``client`` or ``key``."""
    id: str
    """The id of the client or key."""
    rule: str
    """The name of the limit, such as ``tokens_per_minute``."""
    limit: float
    """The whole limit."""
    held: float
    """The share that it holds: of a budget, what it may still spend."""
    used: float = 0.0
    """What it has spent of a budget since the beginning of `period`."""
    period: float = 0.0
    """When its current day or month began, in seconds since the epoch."""
    demand: float
    """How much of it is asked for; only its proportion to that of others counts."""


@attrs.frozen
class Share:
    """What a gateway may use of one limit."""

    share: float
    """Its next share: of a budget, what it may spend from when it asked."""
    remaining: float
    """What is left of the whole limit for all gateways, in this period."""


@attrs.define(eq=False)
class _Holder:
    held: float = 0.0  # the most that it may use until it asks again
    demand: float = 0.0
    used: float = 0.0
    period: float = 0.0
    gone: float | None = None  # since when


@attrs.define(eq=False)
class _Pool:
    """One limit."""

    rule: str
    limit: float
    spent: float = 0.0
    start: float = 0.0  # of the period of a budget
    holders: dict[str, _Holder] = attrs.field(factory=dict)

    @property
    def period(self) -> Period | None:
        return BUDGETS[self.rule][1] if self.rule in BUDGETS else None

    @property
    def remaining(self) -> float:
        return max(0.0, self.limit - self.spent)

    def turn(self, now: float, wall: float) -> None:
        """Let time pass: a new period begins, and gateways that are gone lose their shares."""
        if self.period is not None:
            start = period_start(self.period, wall)
            if start > self.start:
                self.start, self.spent = start, 0.0
        for name, holder in list(self.holders.items()):
            if holder.gone is not None and now - holder.gone >= RESERVED_FOR:
                del self.holders[name]
                self.spent += holder.held if self.period is not None else 0.0

    def note(self, name: str, asked: ShareDemand) -> _Holder:
        """Take what a gateway reports."""
        self.limit = asked.limit
        holder = self.holders.get(name)
        if holder is None:
            holder = self.holders[name] = _Holder(period=self.start)
        if self.period is not None:
            before = holder.used if asked.period == holder.period else 0.0
            # What a gateway spent before this one started counts, if it was in this period.
            if asked.period == self.start or holder.period != self.start or before:
                self.spent = max(0.0, self.spent + asked.used - before)
            holder.used, holder.period = asked.used, asked.period
        holder.held, holder.demand, holder.gone = asked.held, asked.demand, None
        return holder

    def give(self, holder: _Holder, *, settling: bool) -> float:
        """Return the next share of a gateway."""
        whole_units = self.rule in WHOLE_UNITS
        pool = self.remaining
        living = [each for each in self.holders.values() if each.gone is None]
        free = pool - sum(each.held for each in self.holders.values() if each is not holder)
        least = 0.0 if whole_units else min(LEAST_SHARE, 1 / len(living)) * pool
        demand = sum(each.demand for each in living)
        target = least
        if demand > 0:
            target += (pool - least * len(living)) * holder.demand / demand
        if self.period is not None:
            target = min(target, BUDGET_CHUNK * self.limit)
        if settling:
            target = min(target, max(holder.held, LEAST_SHARE * self.limit, 1.0))
        share = min(math.ceil(target - _ROUNDING) if whole_units else target, free)
        share = max(0.0, math.floor(share + _ROUNDING) if whole_units else share)
        holder.held = max(holder.held, share)
        return share


@attrs.define(eq=False)
class ShareLedger:
    """All limits of all clients, and who holds what of them.

    Args:
        started: When the control plane started, by the clock that `lease` gets.
    """

    started: float
    _pools: dict[PoolId, _Pool] = attrs.field(factory=dict, init=False)
    # gateway process -> how many sessions it has
    _sessions: dict[str, int] = attrs.field(factory=dict, init=False)

    def begin(self, holder: str) -> None:
        """Note that a session with a gateway process has begun."""
        self._sessions[holder] = self._sessions.get(holder, 0) + 1

    def end(self, holder: str, now: float) -> None:
        """Note that a session has ended; after the last one its shares are kept for a while."""
        self._sessions[holder] -= 1
        if self._sessions[holder]:
            return
        del self._sessions[holder]
        for pool_id, pool in list(self._pools.items()):
            found = pool.holders.get(holder)
            if found is not None and found.held <= 0 and pool.period is None:
                del pool.holders[holder]
            elif found is not None:
                found.gone = now
            if not pool.holders and pool.period is None:
                del self._pools[pool_id]

    def lease(
        self, holder: str, demands: Iterable[ShareDemand], now: float, wall: float
    ) -> tuple[Share, ...]:
        """Return the next shares of a gateway, in the order of its demands.

        Args:
            holder: The gateway process.
            demands: What it reports.
            now: Seconds of a clock that never goes back.
            wall: Seconds since the epoch.
        """
        settling = now - self.started < SETTLING_TIME
        return tuple(self._lease(holder, asked, now, wall, settling) for asked in demands)

    def _lease(
        self, holder: str, asked: ShareDemand, now: float, wall: float, settling: bool
    ) -> Share:
        pool_id = (asked.scope, asked.id, asked.rule)
        pool = self._pools.get(pool_id)
        if pool is None:
            if len(self._pools) >= _MAX_POOLS:
                self._drop_idle(now, wall)
            pool = self._pools[pool_id] = _Pool(asked.rule, asked.limit)
        pool.turn(now, wall)
        share = pool.give(pool.note(holder, asked), settling=settling)
        return Share(share, pool.remaining)

    def _drop_idle(self, now: float, wall: float) -> None:
        for pool_id, pool in list(self._pools.items()):
            pool.turn(now, wall)
            if not pool.holders and not pool.spent:
                del self._pools[pool_id]
