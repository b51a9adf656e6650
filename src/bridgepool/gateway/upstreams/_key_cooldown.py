"""How long a key cools down after a 429, by the headers of that answer. Pure.

Headers about time count if they can be read; the latest deadline wins. A limit that is not used up
says when it will be full again, which is not what the client has to wait for: such a reset counts
only where nothing else does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from bridgepool.gateway.providers._provider_type import Headers, ResetFields

DEFAULT_COOLDOWN: Final = 60.0
"""Seconds, of a 429 that does not say."""
MIN_COOLDOWN: Final = 1.0
"""Seconds; a shorter time, or one that has passed, counts as this."""
MAX_COOLDOWN: Final = 86400.0
"""Seconds; a longer time counts as this."""

_NUMBER: Final = r"\d{1,12}(?:\.\d{0,12})?"
_PLAIN: Final = re.compile(_NUMBER)
_UNITS: Final = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_PART: Final = re.compile(rf"({_NUMBER})(ms|[dhms])")
_DURATION: Final = re.compile(rf"(?:{_NUMBER}(?:ms|[dhms])){{1,5}}")
_LONGEST: Final = 64  # bytes of a value that is read


def cooldown(headers: Headers, resets: Iterable[ResetFields], wall: float) -> float:
    """Return for how many seconds a key cools down after a 429.

    Args:
        headers: Those of the answer, names in lower case.
        resets: The provider's own headers about its limits.
        wall: The time of day, in seconds since 1970, for headers that hold a date.
    """
    asked = retry_after(headers, wall)
    times = [] if asked is None else [asked]
    unused: list[float] = []
    for fields in resets:
        remaining = [_number(text, 1.0) for text in _texts(headers, fields.remaining)]
        found = [_reset(text, wall) for text in _texts(headers, fields.reset)]
        # One that is used up, or that does not say, makes the client wait.
        used_up = not remaining or not all(remaining)
        (times if used_up else unused).extend(time for time in found if time is not None)
    known = times or unused
    return min(max(MIN_COOLDOWN, *known), MAX_COOLDOWN) if known else DEFAULT_COOLDOWN


def retry_after(headers: Headers, wall: float) -> float | None:
    """Return after how many seconds an answer asks for another attempt; None if it does not say."""
    times = [_retry_after(text, wall) for text in _texts(headers, b"retry-after")]
    times += [_number(text, 0.001) for text in _texts(headers, b"retry-after-ms")]
    return max((time for time in times if time is not None), default=None)


def _texts(headers: Headers, name: bytes) -> list[str]:
    """Return the values of a header that can be read, each of them: the latest counts."""
    return [
        value.decode("latin-1").strip()
        for each, value in headers
        if each == name and len(value) <= _LONGEST
    ]


def _number(text: str, unit: float) -> float | None:
    return float(text) * unit if _PLAIN.fullmatch(text) else None


def _retry_after(text: str, wall: float) -> float | None:
    seconds = _number(text, 1.0)
    if seconds is not None:
        return seconds
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError):
        return None
    return _until(date, wall)


def _reset(text: str, wall: float) -> float | None:
    """Read a duration such as `6m0s`, a number of seconds, or a date of RFC 3339."""
    if _DURATION.fullmatch(text):
        return math.fsum(float(part[1]) * _UNITS[part[2]] for part in _PART.finditer(text))
    seconds = _number(text, 1.0)
    if seconds is not None:
        return seconds
    try:
        date = datetime.fromisoformat(text.replace("Z", "+00:00").replace("z", "+00:00"))
    except ValueError:
        return None
    return _until(date, wall)


def _until(date: datetime, wall: float) -> float | None:
    if date.tzinfo is None:  # both forms are in UTC where they do not say
        date = date.replace(tzinfo=UTC)
    try:
        return max(0.0, date.timestamp() - wall)
    except (OverflowError, ValueError, OSError):
        return None
