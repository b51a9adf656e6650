"""Refused keys: counted, logged at a bounded rate, and answered the later the more there are.

Nobody guesses a key of 256 random bits. But whoever tries costs a query for each attempt, and a log
line. So each address may have a few keys refused at once; then its refusals are answered at a
steady rate. A key that was good before is never delayed, whatever else came from its address.
"""

from __future__ import annotations

import logging
from typing import Final

import attrs

from bridgepool._connection_limiter import site_of
from bridgepool._refusal_log import RefusalLog

_INTERVAL: Final = 0.2  # seconds between the answers to two refused keys of one address
_MAX_DELAY: Final = 3.0  # seconds; below what a handshake may take
_MAX_SITES: Final = 10_000


@attrs.define(eq=False)
class RefusedKeys:
    """The refused keys of one kind."""

    _logger: logging.Logger
    _event: str
    burst: float = 10
    """How many keys of one address are refused without a delay, when none was before."""
    count: int = attrs.field(default=0, init=False)
    """Refused keys; only grows."""
    _log: RefusalLog = attrs.field(
        default=attrs.Factory(lambda self: RefusalLog(self._logger), takes_self=True), init=False
    )
    # site -> when the burst is whole again, the longest unused address first
    _recovered: dict[str, float] = attrs.field(factory=dict, init=False)

    def refuse(self, peer: str, now: float) -> float:
        """Count a refused key, and return how many seconds its answer is to wait.

        Args:
            peer: Where it came from, as `host:port`.
            now: The time, in seconds.
        """
        self.count += 1
        self._log.warning(now, self._event, total=self.count, peer=peer)
        site = _site(peer)
        owed = max(self._recovered.pop(site, now) - now, 0.0) + _INTERVAL
        owed = min(owed, self.burst * _INTERVAL + _MAX_DELAY)
        if len(self._recovered) >= _MAX_SITES:
            del self._recovered[next(iter(self._recovered))]
        self._recovered[site] = now + owed
        return max(owed - self.burst * _INTERVAL, 0.0)

    def delay_owed(self, peer: str, now: float) -> float:
        """Return how many seconds an unknown key from there is to wait for what was refused before.

        Args:
            peer: Where it came from, as `host:port`.
            now: The time, in seconds.
        """
        owed = self._recovered.get(_site(peer), now) - now if self._recovered else 0.0
        return max(owed - self.burst * _INTERVAL, 0.0)


def _site(peer: str) -> str:
    return site_of(peer.rpartition(":")[0].strip("[]"))
