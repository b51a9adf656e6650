"""What control planes draw of budgets that are kept in a store: see `_shares`."""

from __future__ import annotations

import attrs


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
    """What was spent when the store was asked last; one that has less was restored."""

    def take_from(self, spent: float) -> Drawn:
        """Return what is taken of a budget of which so much was spent."""
        before = max(spent, self.seen)
        amount = self.owed + min(self.wanted, max(0.0, self.limit - before - self.owed))
        return Drawn(amount, max(0.0, before + amount))
