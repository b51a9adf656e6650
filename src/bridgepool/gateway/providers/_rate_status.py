"""How clients read what is left of their limits: the headers of each API. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import attrs

RATE_HEADER_PREFIXES: Final = (b"x-ratelimit-", b"anthropic-ratelimit-")
"""How the names of all such headers begin."""


@attrs.frozen
class Rate:
    """A limit for a minute."""

    limit: int
    remaining: int
    reset: float
    """Seconds until all of it is there again."""


@attrs.frozen
class RateStatus:
    """What is left of a client's limits; None without such a limit."""

    requests: Rate | None = None
    tokens: Rate | None = None


def openai_rate_headers(status: RateStatus, now: float) -> tuple[tuple[bytes, bytes], ...]:
    """Return OpenAI's headers: ``x-ratelimit-limit-requests`` and so on.

    https://platform.openai.com/docs/guides/rate-limits
    """
    headers: list[tuple[bytes, bytes]] = []
    for name, rate in ((b"requests", status.requests), (b"tokens", status.tokens)):
        if rate is not None:
            headers += (
                (b"x-ratelimit-limit-" + name, b"%d" % rate.limit),
                (b"x-ratelimit-remaining-" + name, b"%d" % rate.remaining),
                (b"x-ratelimit-reset-" + name, _duration(rate.reset)),
            )
    return tuple(headers)


def anthropic_rate_headers(status: RateStatus, now: float) -> tuple[tuple[bytes, bytes], ...]:
    """Return Anthropic's headers: ``anthropic-ratelimit-requests-limit`` and so on.

    https://docs.anthropic.com/en/api/rate-limits
    """
    headers: list[tuple[bytes, bytes]] = []
    for name, rate in ((b"requests", status.requests), (b"tokens", status.tokens)):
        if rate is not None:
            reset = datetime.fromtimestamp(int(now + rate.reset), UTC)
            text = reset.isoformat().replace("+00:00", "Z").encode("ascii")
            headers += (
                (b"anthropic-ratelimit-" + name + b"-limit", b"%d" % rate.limit),
                (b"anthropic-ratelimit-" + name + b"-remaining", b"%d" % rate.remaining),
                (b"anthropic-ratelimit-" + name + b"-reset", text),
            )
    return tuple(headers)


def _duration(seconds: float) -> bytes:
    """Return a duration as OpenAI writes it: ``1m30s``, ``2.5s``, ``120ms``."""
    milliseconds = round(seconds * 1000)
    if milliseconds < 1000:
        return b"%dms" % milliseconds
    minutes, rest = divmod(milliseconds, 60_000)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".")
    return f"{minutes}m{text}s".encode() if minutes else f"{text}s".encode()
