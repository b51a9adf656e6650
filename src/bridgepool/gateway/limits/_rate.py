"""A rate with a burst of one minute: the generic cell rate algorithm. Pure.

Of a limit of N a minute, a client that was idle may take N at once; then N/60 come back every
second. In the long run that is exactly N a minute. The state is one number and a time, so it costs
the same whatever the limit is.

A gateway may hold a *share* of the limit only: then that is its burst and its rate. What a request
takes is known for requests, and estimated for tokens; the difference is settled afterwards and may
leave a debt, which later requests wait for.
"""

from __future__ import annotations

from typing import Final

import attrs

from bridgepool.gateway.providers._rate_status import Rate

_MINUTE: Final = 60.0
_NO_SHARE_WAIT: Final = 1.0  # seconds until there may be a larger share


@attrs.define(eq=False)
class MinuteRate:
    """What was taken of a limit for a minute. Times are of a clock that never goes back."""

    whole: float
    """The limit."""
    share: float = attrs.field(
        default=attrs.Factory(lambda self: self.whole, takes_self=True), init=False
    )
    """What may be used of it here."""
    _largest: float = attrs.field(  # the most that a request has to wait for
        default=attrs.Factory(lambda self: self.whole, takes_self=True), init=False
    )
    _taken: float = attrs.field(default=0.0, init=False)
    _at: float = attrs.field(default=0.0, init=False)  # when it was so much

    def taken(self, now: float) -> float:
        """Return what was taken and has not come back."""
        since = now - self._at
        left = self._taken - since * self.share / _MINUTE if since > 0 else self._taken
        return left if left > 0 else 0.0

    def remaining(self, now: float) -> float:
        """Return how much can be taken now; less than 0 is a debt."""
        return self.share - self.taken(now)

    def status(self, now: float) -> Rate:
        """Return the status for a client: the limit, and what is left of the share."""
        taken, share = self.taken(now), self.share
        remaining = max(0, int(share - taken + 1e-6))
        return Rate(int(self.whole), remaining, taken * _MINUTE / share if share else 0.0)

    def wait(self, cost: float, now: float) -> float:
        """Return in how many seconds `cost` can be taken; 0 if now.

        What is more than the whole limit can be taken when all of it is there; where the limit is
        shared, when half of what the gateways of one control plane have of it is.
        """
        needed = min(cost, self._largest)
        missing = needed + self.taken(now) - self.share
        # Below a millionth of the limit it is a matter of rounding.
        if missing <= self.whole * 1e-6:
            return 0.0
        return missing * _MINUTE / self.share if needed <= self.share else _NO_SHARE_WAIT

    def take(self, cost: float, now: float) -> None:
        """Take so much, whether it is there or not; a negative cost is given back."""
        self._taken, self._at = max(0.0, self.taken(now) + cost), now

    def set_limit(
        self, whole: float, share: float, now: float, shared: float | None = None
    ) -> None:
        """Change the limit; what was taken stays taken.

        Args:
            whole: The limit.
            share: What may be used of it here.
            now: The time.
            shared: What can become the share of one gateway, if that is less than the limit.
        """
        self._taken, self._at = self.taken(now), now
        self.whole, self.share = whole, share
        self._largest = whole if share >= whole else (whole if shared is None else shared) / 2
