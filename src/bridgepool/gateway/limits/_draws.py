"""What control planes draw of budgets that are kept in a store: see `_shares`."""

from __future__ import annotations

import math
from typing import Final

import attrs

from bridgepool.gateway.limits._budgets import ROUNDING

UNITS: Final = 1_000_000
"""What is drawn is a whole number of millionths: so many are one."""
_TOLERANCE: Final = 1e-3  # of a unit


@attrs.frozen
class Drawn:
    """The answer to a `Draw`."""

    amount: float
    """What was taken."""
    spent: float
    """What all control planes have taken of it, this included."""


@attrs.frozen(kw_only=True)
class Draw:
    """What a control plane takes of a budget in a store."""

    scope: str
    id: str
    rule: str
    period: float
    """When the day or month began, in seconds since the epoch."""
    until: float
    """When it ends."""
    limit: float
    owed: float = 0.0
    """What was spent or is held already: taken whatever is left. Less than 0 is given back."""
    wanted: float = 0.0
    """What is taken beside that, as far as it is left."""
    seen: float = 0.0
    """What was spent when the store was asked last, if nobody else gives back: one that has less
    was restored."""

    def is_met_by(self, drawn: Drawn) -> bool:
        """Return whether that is all, but for rounding."""
        missing = self.owed + self.wanted - drawn.amount
        return missing <= max(ROUNDING * self.limit, _TOLERANCE / UNITS)

    def take_from(self, spent: float) -> Drawn:
        """Return what is taken of a budget of which so much was spent.

        It is rounded up to a whole number of units, so that no sum of small draws is rounded.
        """
        before = max(spent, self.seen)
        amount = self.owed + min(self.wanted, max(0.0, self.limit - before - self.owed))
        units = amount * UNITS
        nearest = round(units)
        # The product of a whole number of units may differ a little from one.
        whole = nearest if math.isclose(units, nearest, abs_tol=_TOLERANCE) else math.ceil(units)
        return Drawn(whole / UNITS, max(0, round(before * UNITS) + whole) / UNITS)
