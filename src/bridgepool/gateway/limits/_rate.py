"""A rate with a burst of one minute: the generic cell rate algorithm. Pure.

Of a limit of N a minute, a client that was idle may take N at once; then N/60 come back every
second. In the long run that is exactly N a minute. The state is one number, the time at which all
that was taken will have come back, so it costs the same whatever the limit is.

What a request takes is known for requests, and estimated for tokens; the difference is settled
afterwards and may leave a debt, which later requests wait for.
"""

from __future__ import annotations

from typing import Final

import attrs

_MINUTE: Final = 60.0


@attrs.define(eq=False)
class MinuteRate:
    """What was taken of a limit for a minute. Times are of a clock that never goes back."""

    _limit: float
    _full: float = 0.0
    """When all that was taken has come back."""

    @property
    def limit(self) -> float:
        """How much a minute."""
        return self._limit

    def remaining(self, now: float) -> float:
        """Return how much can be taken now; less than 0 is a debt."""
        return self._limit * (1.0 - max(0.0, self._full - now) / _MINUTE)

    def reset_in(self, now: float) -> float:
        """Return in how many seconds all of the limit can be taken, if nothing is until then."""
        return max(0.0, self._full - now)

    def wait(self, cost: float, now: float) -> float:
        """Return in how many seconds `cost` can be taken; 0 if now.

        What is more than the whole limit can be taken when all of it is there.
        """
        missing = min(cost, self._limit) - self.remaining(now)
        # Below a millionth of the limit it is a matter of rounding.
        return missing * _MINUTE / self._limit if missing > self._limit * 1e-6 else 0.0

    def take(self, cost: float, now: float) -> None:
        """Take so much, whether it is there or not; a negative cost is given back."""
        self._full = max(self._full, now) + cost * _MINUTE / self._limit

    def set_limit(self, limit: float, now: float) -> None:
        """Change the limit; what was taken stays taken."""
        taken = self._limit - self.remaining(now)
        self._limit = limit
        self._full = now + taken * _MINUTE / limit
