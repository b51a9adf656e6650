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
    values = {name: value for name, value in headers if len(value) <= _LONGEST}
    times = [retry_after(headers, wall)]
    unused: list[float | None] = []
    for fields in resets:
        remaining = _number(_text(values.get(fields.remaining)), 1.0)
        time = _reset(_text(values.get(fields.reset)), wall)
        (unused if remaining else times).append(time)
    known = [time for time in times if time is not None]
    known = known or [time for time in unused if time is not None]
    return min(max(MIN_COOLDOWN, *known), MAX_COOLDOWN) if known else DEFAULT_COOLDOWN


def retry_after(headers: Headers, wall: float) -> float | None:
    """Return after how many seconds an answer asks for another attempt; None if it does not say."""
    values = {name: value for name, value in headers if len(value) <= _LONGEST}
    return max(
        (
            time
            for time in (
                _retry_after(values.get(b"retry-after"), wall),
                _number(_text(values.get(b"retry-after-ms")), 0.001),
            )
            if time is not None
        ),
        default=None,
    )


def _text(value: bytes | None) -> str | None:
    return value.decode("latin-1").strip() if value is not None else None


def _number(text: str | None, unit: float) -> float | None:
    return float(text) * unit if text is not None and _PLAIN.fullmatch(text) else None


def _retry_after(value: bytes | None, wall: float) -> float | None:
    text = _text(value)
    if text is None:
        return None
    seconds = _number(text, 1.0)
    if seconds is not None:
        return seconds
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError):
        return None
    return _until(date, wall)


def _reset(text: str | None, wall: float) -> float | None:
    """Read a duration such as `6m0s`, a number of seconds, or a date of RFC 3339."""
    if text is None:
        return None
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
