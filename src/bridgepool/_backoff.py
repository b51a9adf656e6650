"""Delays that keep many clients from acting at the same moment."""

import random

import attrs


@attrs.define(eq=False)
class Backoff:
    """Exponential back-off with full jitter.

    Each delay is a random part of a limit that doubles from `first` to `longest`. It is random at
    `longest`, too, so that clients that failed together stay spread out.
    """

    first: float
    longest: float
    _limit: float = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.reset()

    def next_delay(self) -> float:
        """Return the seconds to wait before the next attempt, and double the limit."""
        delay = random.random() * self._limit  # noqa: S311 -- not for secrets
        self._limit = min(2 * self._limit, self.longest)
        return delay

    def reset(self) -> None:
        """Begin again with `first`, after a success."""
        self._limit = min(self.first, self.longest)


def shorten(duration: float, by: float) -> float:
    """Return a random duration between `duration * (1 - by)` and `duration`."""
    return duration * (1 - by * random.random())  # noqa: S311 -- not for secrets
