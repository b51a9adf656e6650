"""When a websocket is to be closed: its age, a replaced provider, the shutdown of the gateway.

At the end of its time a websocket is closed, whatever is under way on it. A response that is cut so
is lost to the client, and charged by the provider. So in the last part of that time it is closed
where no response is under way. Each websocket has a turn of its own there, by chance: if all were
closed at once, all clients would come back at once.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from math import inf
from typing import Final

import attrs
import trio

from bridgepool.gateway.proxy._refusals import DRAIN_DEADLINE, SHUTTING_DOWN

MAX_AGE: Final = "max_age"
_NEAR: Final = 0.8  # the part of its time after which the end is near
_LAST_TURN: Final = 0.9  # the part after which all turns have come
_RATE: Final = 100.0  # idle websockets that a shutdown closes in a second
_random: Final = random.SystemRandom()
_SHUTDOWN_PART: Final = 0.5  # the part of the drain timeout after which all turns have come


@attrs.define(eq=False)
class Shutdown:
    """The closing of all websockets of a gateway."""

    begun: trio.Event = attrs.field(factory=trio.Event)
    _since: float = inf
    _spread: float = 0.0  # seconds

    def begin(self, count: int, drain_timeout: float) -> None:
        """Begin it; again has no effect.

        Args:
            count: How many websockets there are.
            drain_timeout: Seconds until the gateway ends.
        """
        if not self.begun.is_set():
            self._since = trio.current_time()
            self._spread = min(count / _RATE, _SHUTDOWN_PART * drain_timeout)
            self.begun.set()

    def turn(self, place: float) -> float:
        """Return when the turn of a websocket comes, whose place is from 0 to 1."""
        return self._since + place * self._spread


@attrs.define(eq=False)
class Lifetime:
    """The time of one websocket."""

    _max_age: float
    _drain_timeout: float
    _generation: Callable[[], int]  # of the pool
    shutdown: Shutdown
    """That of the gateway."""
    _started: float = attrs.field(factory=trio.current_time)
    _looked: float = attrs.field(factory=trio.current_time)
    _replaced: float = inf
    turn: float = inf
    """When its turn to be closed comes, if no response is under way; see `why_close`."""
    _place: float = attrs.field(init=False)

    @_place.default
    def _draw(self) -> float:
        return _random.random()

    def pause(self, now: float) -> float:
        """Return the seconds until the next look: from time to time, and at each turning point."""
        step = max(0.02, 0.05 * min(self._max_age, self._drain_timeout))
        points = (
            self._started + _NEAR * self._max_age,
            self._replaced + _NEAR * self._drain_timeout,
            self.turn,
        )
        return min([step, *(max(0.01, point - now) for point in points if point > now)])

    def why_close(self, now: float, generation: int) -> str:
        """Return why it is to be closed soon, and set `turn`; empty if it is not.

        Args:
            now: The time.
            generation: That which the websocket was opened in.
        """
        if self.shutdown.begun.is_set():
            self.turn = self.shutdown.turn(self._place)
            return SHUTTING_DOWN.code
        if self._replaced == inf and self._generation() != generation:
            self._replaced = self._looked  # at the earliest
        self._looked = now
        for reason, since, lasts in (
            (MAX_AGE, self._started, self._max_age),
            (DRAIN_DEADLINE.code, self._replaced, self._drain_timeout),
        ):
            if now - since >= _NEAR * lasts:
                self.turn = since + (_NEAR + (_LAST_TURN - _NEAR) * self._place) * lasts
                return reason
        return ""
