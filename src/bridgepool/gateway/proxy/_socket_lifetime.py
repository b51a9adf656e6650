"""When the end of a websocket's time is near.

At that end the websocket is closed, whatever is under way on it. A response that is cut so is lost
to the client, and charged by the provider. Clients ask again and again on a websocket, so in its
last part there is a moment between two responses, most likely: it is closed then.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final

import attrs
import trio

MAX_AGE: Final = "max_age"
DRAIN: Final = "drain_deadline"
_NEAR: Final = 0.8  # the part of its time after which the end is near


@attrs.define(eq=False)
class Lifetime:
    """The time of one websocket: by its age, and since its provider was replaced."""

    _max_age: float
    _drain_timeout: float
    _generation: Callable[[], int]  # of the pool
    _started: float = attrs.field(factory=trio.current_time)
    _replaced: float = inf

    @property
    def step(self) -> float:
        """Seconds between two looks that are enough."""
        return max(0.02, 0.05 * min(self._max_age, self._drain_timeout))

    def near_end(self, now: float, generation: int) -> str:
        """Return why the end is near; empty if it is not.

        Args:
            now: The time.
            generation: That which the websocket was opened in.
        """
        if now - self._started >= _NEAR * self._max_age:
            return MAX_AGE
        if self._replaced == inf and self._generation() != generation:
            self._replaced = now
        return DRAIN if now - self._replaced >= _NEAR * self._drain_timeout else ""
