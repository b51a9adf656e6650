"""A budget for each day or month, in UTC. Pure.

A clock that is set back does not begin a period again: a budget counts on for the latest period
that it has seen.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final, Literal, TypeAlias

import attrs

Period: TypeAlias = Literal["day", "month"]
ROUNDING: Final = 1e-9
"""The part of a limit below which what is left is a matter of rounding."""
NEARLY_SPENT: Final = 0.8
"""The part of a limit that is spent when operators begin to see a budget."""


def period_start(period: Period, now: float) -> float:
    """Return when the period of a moment began, in seconds since the epoch."""
    at = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return (at if period == "day" else at.replace(day=1)).timestamp()


def period_end(period: Period, now: float) -> float:
    """Return when the period of a moment ends."""
    start = datetime.fromtimestamp(period_start(period, now), UTC)
    if period == "day":
        return (start + timedelta(days=1)).timestamp()
    return (start + timedelta(days=32)).replace(day=1).timestamp()


@attrs.frozen
class BudgetUse:
    """What is spent of one budget, in the current period."""

    scope: str
    """``client`` or ``key``."""
    id: str
    """The id of the client or key."""
    rule: str
    """Such as ``money_per_day``."""
    limit: float
    """More than 0."""
    spent: float
    """It includes the estimates of running requests."""
    ends: float
    """When the next period begins, in seconds since the epoch."""

    @property
    def is_spent(self) -> bool:
        """Whether nothing is left."""
        return self.limit - self.spent <= ROUNDING * self.limit


@attrs.define(eq=False)
class Budget:
    """What was spent in the current period. Times are those of the machine's clock."""

    period: Period
    limit: float
    spent: float = 0.0
    """In the current period, with what running requests are estimated to spend."""
    _start: float = 0.0
    _until: float = 0.0

    def is_exhausted(self, now: float) -> bool:
        """Return whether nothing is left."""
        self._turn(now)
        return self.limit - self.spent <= ROUNDING * self.limit

    def remaining(self, now: float) -> float:
        """Return what is left."""
        self._turn(now)
        return max(0.0, self.limit - self.spent)

    def spend(self, amount: float, now: float) -> float:
        """Spend so much; return the beginning of the period that it was spent in."""
        self._turn(now)
        self.spent += amount
        return self._start

    def settle(self, difference: float, start: float) -> None:
        """Correct what was spent in a period, if that is still the current one."""
        if start == self._start:
            self.spent = max(0.0, self.spent + difference)

    def nearly_spent(self, now: float) -> tuple[float, float, float] | None:
        """Return limit, what is spent, and the end of the period, if little is left.

        Begins no period, unlike `remaining`. A budget of 0 is never returned.
        """
        spent = self.spent if now < self._until else 0.0
        nearly = 0 < NEARLY_SPENT * self.limit <= spent
        return (self.limit, spent, self._until) if nearly else None

    def ends_in(self, now: float) -> float:
        """Return in how many seconds the next period begins."""
        return max(1.0, period_end(self.period, max(now, self._start)) - now)

    def _turn(self, now: float) -> None:
        if now >= self._until:
            self._start, self.spent = period_start(self.period, now), 0.0
            self._until = period_end(self.period, now)
