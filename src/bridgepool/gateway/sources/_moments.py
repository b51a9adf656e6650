"""The age of a moment across restarts, on a machine whose clock may be wrong.

Only the wall clock survives a restart of the machine, but it can be set back. So a moment also
has the uptime, which cannot: within one boot, the age is the difference of uptimes. Across boots
it is the difference of wall clocks, but never less than an age that was already known. If the wall
clock is before the moment, the age is unknown (`math.inf`).
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
    """A point in time by the two clocks of a machine."""

    wall: float
    """Seconds since 1970 by the machine's wall clock."""
    uptime: float
    """Seconds since the machine was started."""
    boot: str
    """The id of the boot; empty if unknown."""

    @classmethod
    def now(cls) -> Moment:
        """Return this moment."""
        return cls(time.time(), time.clock_gettime(_UPTIME), boot_id())


def boot_id() -> str:
    """Return the id of this boot; empty if the system has none."""
    return _read(_BOOT_ID)


@functools.cache  # it stays as long as any process
def _read(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""


def age_of(then: Moment, now: Moment, known: float = 0.0) -> float:
    """Return how many seconds ago a moment was; `math.inf` if unknown.

    Args:
        then: The moment.
        now: This moment.
        known: An age that it is known to have had.
    """
    if then.boot and then.boot == now.boot and now.uptime >= then.uptime:
        return max(known, now.uptime - then.uptime)
    if now.wall < then.wall:
        return math.inf
    return max(known, now.wall - then.wall)
