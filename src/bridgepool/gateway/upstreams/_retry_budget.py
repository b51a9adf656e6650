"""The retry budget: how many retries there may be beside the requests of the last seconds. Pure.

Retries multiply the load of an upstream that is failing under its load. So there are at most a
part of the recent requests, whatever each of these would be granted on its own; and a few in any
case, so that a quiet gateway can retry at all.
"""

from __future__ import annotations

from collections import deque

import attrs

WINDOW = 10
"""The seconds that count as recent, the current one included."""
FLOOR = 3
"""The retries in that time that are granted in any case."""


@attrs.define
class _Second:
    number: int
    requests: int = 0
    retries: int = 0


@attrs.define(eq=False)
class RetryBudget:
    """Counts the requests and retries of one provider. Times in seconds, on any one clock."""

    granted: int = 0
    """How many retries it granted; only grows."""
    refused: int = 0
    """How many it did not grant; only grows."""
    _requests: int = 0  # in all of `_seconds`
    _retries: int = 0
    _seconds: deque[_Second] = attrs.field(factory=deque)  # those with any, oldest first

    def count_request(self, now: float) -> None:
        """Count a request; its retries are not requests."""
        self._second(now).requests += 1
        self._requests += 1

    def take(self, part: float, now: float) -> bool:
        """Count a retry, if there may be one more.

        Args:
            part: The most retries, as a part of the requests.
            now: The time.

        Returns:
            False if there may be none.
        """
        second = self._second(now)
        if self._retries + 1 > max(FLOOR, part * self._requests):
            self.refused += 1
            return False
        self.granted += 1
        second.retries += 1
        self._retries += 1
        return True

    def _second(self, now: float) -> _Second:
        """Forget what is too old; return the count of this second."""
        number, seconds = int(now), self._seconds
        while seconds and seconds[0].number <= number - WINDOW:
            old = seconds.popleft()
            self._requests -= old.requests
            self._retries -= old.retries
        if not seconds or seconds[-1].number != number:
            seconds.append(_Second(number))
        return seconds[-1]

    def document(self, now: float) -> dict[str, object]:
        """Return its counts for people and programs, as plain values."""
        self._second(now)
        return {
            "requests": self._requests,
            "retries": self._retries,
            "refused": self.refused,
        }
