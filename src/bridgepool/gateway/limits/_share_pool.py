"""One limit, of which gateways hold shares; see `_shares`. Pure."""

from __future__ import annotations

import math
from typing import Final, TypeAlias

import attrs

from bridgepool.gateway.limits._budgets import ROUNDING, Period, period_end, period_start
from bridgepool.gateway.limits._draws import Draw, Drawn
from bridgepool.gateway.limits._kinds import BUDGETS, WHOLE_UNITS
from bridgepool.gateway.limits._lost_shares import RESERVED_FOR, LostShares
from bridgepool.gateway.limits._whole_units import divide_units

LEAST_SHARE: Final = 0.01
"""The part of a limit that a gateway may use without asking."""
BUDGET_CHUNK: Final = 0.02
"""The most of a budget that one gateway holds."""
RETURNS_WITHIN: Final = 5.0
"""Seconds within which a gateway whose connection was lost connects again, if it still runs."""
MAX_DEMANDS: Final = 2000
"""The most limits of one report."""
_DRAW_AGAIN: Final = 5.0  # seconds after which more is drawn of a budget that had too little left

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
    """The share that it holds: of a budget, what it may still spend; less than 0 is what it spent
    beyond what it was given."""
    used: float = 0.0
    """What it has spent of a budget in `period`, and before that but not yet reported."""
    period: float = 0.0
    """When its current day or month began, in seconds since the epoch."""
    demand: float
    """How much of it was asked for in the last seconds."""


@attrs.frozen
class Share:
    """What a gateway may use of one limit."""

    share: float
    """Its next share: of a budget, what it may spend from when it asked."""
    remaining: float
    """What is left of the whole limit for all gateways, in this period; of a limit that is no
    budget, what all gateways of this control plane share."""
    taken: float = 0.0
    """How much of what the share grows by counts as taken of a rate."""


@attrs.define(eq=False)
class Holder:
    """What one gateway process holds of it."""

    held: float = 0.0  # the most that it may use until it asks again
    demand: float = 0.0
    used: float = 0.0
    period: float = 0.0
    gone: float | None = None  # since when
    given: Share = Share(0.0, 0.0)  # in the last answer, which may get lost


@attrs.define(eq=False)
class SharePool:
    """One limit, and who holds what of it."""

    pool_id: PoolId
    limit: float
    stored: bool  # a budget in a store
    spent: float = 0.0
    start: float = 0.0  # of the period of a budget
    drawn: float = 0.0  # of `stored`, in this period: what was spent here, held, or can be given
    total: float | None = None  # what all have drawn, when the store was asked last
    draw_again: float = -math.inf  # when more is to be drawn at the earliest
    lost: LostShares = attrs.field(factory=LostShares)
    holders: dict[str, Holder] = attrs.field(factory=dict)

    @property
    def rule(self) -> str:
        return self.pool_id[2]

    @property
    def period(self) -> Period | None:
        return BUDGETS[self.rule][1] if self.rule in BUDGETS else None

    @property
    def remaining(self) -> float:
        elsewhere = self.total - self.drawn if self.total is not None else 0.0
        return max(0.0, self.limit - max(0.0, elsewhere) - self.spent)

    @property
    def held(self) -> float:
        return sum(each.held for each in self.holders.values())

    def turn(self, now: float, wall: float) -> None:
        """Let time pass: a new period begins, and gateways that are gone lose their shares."""
        if self.period is not None:
            start = period_start(self.period, wall)
            if start > self.start:
                self.start, self.spent, self.drawn, self.total = start, 0.0, 0.0, None
                self.draw_again = -math.inf
        reserved = RETURNS_WITHIN if self.period is None else RESERVED_FOR
        for name, holder in list(self.holders.items()):
            if holder.gone is not None and now - holder.gone >= reserved:
                self._forget(name, holder.gone)

    def _forget(self, name: str, gone: float) -> None:
        holder = self.holders.pop(name)
        if self.period is None:
            self.lost.add(holder.held, gone)
        else:
            self.spent += holder.held

    def note(self, name: str, asked: ShareDemand, limit: float, now: float) -> Holder:
        """Take what a gateway reports."""
        if limit != self.limit:
            self.limit, self.draw_again = limit, -math.inf
        holder = self.holders.get(name)
        if self.stored and holder is not None and holder.gone is not None:
            # It may have reported what it spent to another control plane.
            self._forget(name, holder.gone)
            holder = None
        is_new = holder is None
        if holder is None:
            holder = self.holders[name] = Holder(period=self.start)
        if self.stored and is_new:
            self.spent += max(0.0, -asked.held)
            if asked.period == self.start:  # drawn before, by another one or until it was gone
                self.drawn += max(0.0, asked.held)
        elif self.period is not None:
            same = asked.period == holder.period
            # What a gateway spent before this one started counts, if it was in this period.
            if same or not is_new:
                self.spent = max(0.0, self.spent + asked.used - (holder.used if same else 0.0))
        if holder.given.taken and asked.held >= holder.given.share * (1 - ROUNDING):
            self.lost.pass_on(holder.given.taken, now)
        holder.given = Share(0.0, 0.0)
        holder.used, holder.period = asked.used, asked.period
        holder.held, holder.demand, holder.gone = max(0.0, asked.held), asked.demand, None
        return holder

    def give(self, holder: Holder, gateways: int, *, settling: bool) -> float:
        """Return the next share of a gateway, of so many."""
        if not holder.held and not holder.demand:
            return 0.0  # it has ended, or will ask
        pool = self.remaining
        living = [each for each in self.holders.values() if each.gone is None] or [holder]
        available = min(pool, self.drawn - self.spent) if self.stored else pool
        free = available - (self.held - holder.held)
        if whole_units := self.rule in WHOLE_UNITS:
            units = divide_units(int(pool), [(each.demand, each.held) for each in living])
            target = float(units[living.index(holder)])
        else:
            least = min(LEAST_SHARE, 1 / len(living)) * pool
            demand = sum(each.demand for each in living)
            part = holder.demand / demand if demand > 0 else 0.0
            target = least + (pool - least * len(living)) * part
        if self.period is not None:
            target = min(target, BUDGET_CHUNK * self.limit)
        else:  # something is left for gateways that were not asked yet
            unheld = (free - holder.held) / max(1, gateways)
            target = min(target, holder.held + max(unheld, holder.demand))
        if settling and not self.stored:
            target = min(target, max(holder.held, LEAST_SHARE * self.limit))
        share = min(math.ceil(target - ROUNDING) if whole_units else target, free)
        share = max(0.0, math.floor(share) if whole_units else share)
        holder.held = max(holder.held, share)
        return share

    def is_short(self, now: float) -> bool:
        """Return whether something is to be drawn from the store."""
        if not self.stored:
            return False
        owed, wanted = self._lacking(now)
        least = BUDGET_CHUNK * self.limit / 2
        return self.total is None or not 0 <= owed <= self.limit * ROUNDING or wanted > least

    def draw(self, now: float, *, alone: bool) -> Draw:
        """Return what is to be drawn from the store, however little.

        Args:
            now: The time.
            alone: Whether there is no other control plane: one may give back what was seen.
        """
        return self._draw(*self._lacking(now), alone=alone)

    def _lacking(self, now: float) -> tuple[float, float]:
        """Return what is owed, or less than 0 to be given back, and what is wanted beside that."""
        chunk = BUDGET_CHUNK * self.limit
        asking = [each for each in self.holders.values() if each.demand > 0 and each.gone is None]
        unmet = sum(max(0.0, chunk - each.held) for each in asking)
        slack = self.drawn - self.spent - self.held
        if (spare := slack - unmet - chunk) > chunk:  # estimates were larger than what was used
            return -spare, 0.0
        wanted = unmet + chunk - max(0.0, slack) if asking and now >= self.draw_again else 0.0
        return max(0.0, -slack), max(0.0, wanted)

    def give_back(self, *, alone: bool) -> Draw | None:
        """Return what is to be written to the store when nothing more will be given."""
        slack = self.drawn - self.spent - self.held
        return self._draw(-slack, 0.0, alone=alone) if self.stored and slack else None

    def _draw(self, owed: float, wanted: float, *, alone: bool) -> Draw:
        scope, name, rule = self.pool_id
        return Draw(
            scope=scope,
            id=name,
            rule=rule,
            period=self.start,
            until=period_end(BUDGETS[rule][1], self.start),
            limit=self.limit,
            owed=owed,
            wanted=wanted,
            seen=(self.total or 0.0) if alone else 0.0,
        )

    def drew(self, draw: Draw, drawn: Drawn, now: float) -> None:
        """Take what was drawn."""
        if draw.period != self.start:
            return  # of a period that is over
        self.drawn, self.total = self.drawn + drawn.amount, drawn.spent
        if not draw.is_met_by(drawn):
            self.draw_again = now + _DRAW_AGAIN
