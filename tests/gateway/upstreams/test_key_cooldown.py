"""How long a key cools down, by the headers of a 429."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgepool.gateway.providers import ANTHROPIC, OPENAI, Headers
from bridgepool.gateway.upstreams._key_cooldown import MAX_COOLDOWN, MIN_COOLDOWN, cooldown

NOW = datetime(2025, 6, 1, 12, 0, 0, tzinfo=UTC)
WALL = NOW.timestamp()


def at(seconds: float) -> bytes:
    return format_datetime(NOW + timedelta(seconds=seconds), usegmt=True).encode()


def rfc3339(seconds: float) -> bytes:
    return (NOW + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ").encode()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ((), 60),
        (((b"retry-after", b"7"),), 7),
        (((b"retry-after", b"1.5"),), 1.5),
        (((b"retry-after", at(90)),), 90),
        (((b"retry-after", at(-90)),), MIN_COOLDOWN),
        (((b"retry-after-ms", b"2500"),), 2.5),
        (((b"retry-after", b"2"), (b"retry-after-ms", b"9000")), 9),
        (((b"retry-after", b"9"), (b"retry-after-ms", b"2000")), 9),
        (((b"retry-after", b"9"), (b"retry-after", b"2")), 9),
        (((b"retry-after", b"2"), (b"retry-after", b"soon")), 2),
        (((b"retry-after", b"0"),), MIN_COOLDOWN),
        (((b"retry-after", b"999999999999"),), MAX_COOLDOWN),
        (((b"retry-after", b"9" * 70),), 60),
        (((b"retry-after", b"soon"),), 60),
        (((b"retry-after", b"-5"),), 60),
        (((b"retry-after", b"nan"),), 60),
        (((b"retry-after", b"1e300"),), 60),
        (((b"retry-after-ms", b"soon"), (b"retry-after", b"3")), 3),
    ],
)
def test_what_a_429_says_about_the_time(headers: Headers, seconds: float) -> None:
    assert cooldown(headers, OPENAI.reset_fields, WALL) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b"1s", 1), (b"6m0s", 360), (b"1h2m3.5s", 3723.5), (b"1500ms", 1.5), (b"2m59.56s", 179.56),
        (b"1d", 86400), (b"20", 20), (b"6m 0s", 60), (b"s", 60), (b"5s5", 60), (b"1s" * 6, 60),
    ],
)  # fmt: skip
def test_openais_durations(text: bytes, seconds: float) -> None:
    headers = ((b"x-ratelimit-reset-tokens", text), (b"x-ratelimit-remaining-tokens", b"0"))
    assert cooldown(headers, OPENAI.reset_fields, WALL) == pytest.approx(seconds)


def test_anthropics_dates_and_the_later_one_wins() -> None:
    headers = (
        (b"anthropic-ratelimit-requests-remaining", b"0"),
        (b"anthropic-ratelimit-requests-reset", rfc3339(20)),
        (b"anthropic-ratelimit-output-tokens-remaining", b"0"),
        (b"anthropic-ratelimit-output-tokens-reset", rfc3339(45)),
        (b"retry-after", b"30"),
    )
    assert cooldown(headers, ANTHROPIC.reset_fields, WALL) == pytest.approx(45)


def test_a_limit_that_is_not_used_up_counts_only_where_nothing_else_does() -> None:
    reset = (
        (b"x-ratelimit-remaining-requests", b"58"),
        (b"x-ratelimit-reset-requests", b"6m0s"),
    )
    assert cooldown(((b"retry-after", b"3"), *reset), OPENAI.reset_fields, WALL) == 3
    assert cooldown(reset, OPENAI.reset_fields, WALL) == 360


_NAMES = [b"retry-after", b"retry-after-ms"]
for _kind in (OPENAI, ANTHROPIC):
    _NAMES += [name for fields in _kind.reset_fields for name in (fields.remaining, fields.reset)]
_VALUES = st.binary(max_size=80) | st.sampled_from(
    [b"0", b"1", b"6m0s", b"99999999999999d", b"9999-12-31T23:59:59+00:00", b"0001-01-01T00:00:00Z",
     b"Fri, 31 Dec 9999 23:59:59 GMT", b"Mon, 01 Jan 0001 00:00:00 +2359", b"2025-06-01"]
)  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(_NAMES), _VALUES), max_size=6).map(tuple))
def test_no_header_makes_a_time_that_is_out_of_bounds(headers: Headers) -> None:
    for kind in (OPENAI, ANTHROPIC):
        assert MIN_COOLDOWN <= cooldown(headers, kind.reset_fields, WALL) <= MAX_COOLDOWN
