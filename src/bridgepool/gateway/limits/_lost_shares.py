"""What gateways that are gone held of a rate. Pure.

They may have used all of it just before. So it is given to others, but counts as taken, and comes
back evenly within a minute, as it would have at the gateway itself.
"""

from __future__ import annotations

from typing import Final

import attrs

RESERVED_FOR: Final = 60.0
"""Seconds within which what a gateway that is gone held comes back."""


@attrs.define(eq=False)
class LostShares:
    """What gateways that are gone held of one limit. Times are of a clock that never goes back."""

    _lost: list[tuple[float, float]] = attrs.field(factory=list)  # how much, and since when
    # When gateways had not come back after the start of the control plane.
    _unreported: float | None = None

    def add(self, amount: float, since: float) -> None:
        """Note what a gateway held that is gone since then."""
        self._lost.append((amount, since))

    def remaining(self, now: float) -> float:
        """Return how much has not come back yet."""
        self._lost = [(lost, at) for lost, at in self._lost if now - at < RESERVED_FOR]
        return sum(lost * (1 - (now - at) / RESERVED_FOR) for lost, at in self._lost)

    def taken(
        self, free: float, growth: float, now: float, since: float, *, missing: bool
    ) -> float:
        """Return how much of a share counts as taken that grows.

        Args:
            free: What nobody holds.
            growth: By how much the share grows.
            now: The time.
            since: The seconds since the start of the control plane.
            missing: Whether gateways that were connected before that have not come back. They were
                perhaps killed when they had used all that they held, which is at most what was free
                when the others had reported.
        """
        lost = self.remaining(now)
        if missing:
            if self._unreported is None:
                self._unreported = max(0.0, free)
            lost += self._unreported * (1 - since / RESERVED_FOR)
        return max(0.0, min(growth, lost))

    def pass_on(self, taken: float, now: float) -> None:
        """Note that a gateway has got what counts as taken: there it comes back from now on."""
        lost = self.remaining(now)
        if lost > 0:
            left = max(0.0, 1 - taken / lost)
            self._lost = [(each * left, at) for each, at in self._lost]
