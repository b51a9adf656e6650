"""How long ago something was, told across restarts, on a machine whose clock may be wrong.

The wall clock is what survives a restart of the machine, and what an operator can set back.
So a moment is kept by the time since the machine's start as well: within one boot only that
counts, which nobody can set. Across boots the wall clock counts, but never for less than what
was known already; a clock that stands before the moment itself tells nothing, and then the age
is unknown (`math.inf`) rather than zero.
"""

from __future__ import annotations

import functools
import math
import time
from pathlib import Path

import attrs

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# On Linux it counts while the machine sleeps, too.
_UPTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


@attrs.frozen
class Moment:
    """A point in time, by the two clocks of a machine."""

    wall: float
    """Seconds since 1970, as the machine had it."""
    uptime: float
    """Seconds since the machine was started."""
    boot: str
    """Which start of which machine; empty if it cannot be told."""

    @classmethod
    def now(cls) -> Moment:
        """Return this moment."""
        return cls(time.time(), time.clock_gettime(_UPTIME), boot_id())


def boot_id() -> str:
    """Return what names this start of this machine; empty where nothing does."""
    return _read(_BOOT_ID)


@functools.cache  # it stays as long as any process
def _read(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""


def age_of(then: Moment, now: Moment, known: float = 0.0) -> float:
    """Return how many seconds ago a moment was; `math.inf` when the clocks do not tell.

    Args:
        then: The moment.
        now: This moment.
        known: What its age is known to have been already.
    """
    if then.boot and then.boot == now.boot and now.uptime >= then.uptime:
        return max(known, now.uptime - then.uptime)
    if now.wall < then.wall:
        return math.inf
    return max(known, now.wall - then.wall)
