"""Questions about the usage in a store, and their answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal, TypeAlias, TypedDict, get_args

import attrs
from msgspec import Meta

from bridgepool.gateway.control._records import NAME_PATTERN
from bridgepool.gateway.usage._records import UsageRecord

Grouping: TypeAlias = Literal[
    "day", "client", "key", "provider", "model", "gateway", "client_kind", "session"
]
GROUPINGS: Final[tuple[str, ...]] = get_args(Grouping)
"""What sums can be made by, in the order of their columns."""
MAX_SUMS: Final = 10_000
"""The most sums of an answer."""


def parse_groups(by: str) -> list[str]:
    """Return the names in a list that commas join, each once."""
    return list(dict.fromkeys(name.strip() for name in by.split(",") if name.strip()))


def _day(description: str) -> Meta:
    # Its form is checked by the operations, whose message tells how a day is written.
    return Meta(max_length=64, description=description, extra_json_schema={"format": "date"})


Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=256, pattern=NAME_PATTERN)] | None
Text: TypeAlias = Annotated[str, Meta(min_length=1, max_length=256)] | None


class UsageFilter(TypedDict, total=False):
    """Which records count, and the queries for that. What is missing or None admits all.

    ``since`` is the first day, `YYYY-MM-DD` in UTC, and ``until`` the day after the last one.
    ``model`` is the model that answered; the model that was asked for, if that is not known.
    ``client``, ``provider``, ``gateway`` and ``session`` are those of the record.
    """

    since: Annotated[str, _day("The first day, in UTC, such as 2026-01-31.")] | None
    until: Annotated[str, _day("The day after the last, in UTC, such as 2026-02-01.")] | None
    client: Name
    provider: Name
    model: Text
    gateway: Name
    session: Text


# Without slots, since msgspec writes those in another order than that of the fields.
@attrs.frozen(kw_only=True, slots=False)
class UsageSum:
    """The sum of the records of one group. What it is not grouped by is None."""

    day: str | None = None
    """`YYYY-MM-DD` in UTC."""
    client: str | None = None
    key: str | None = None
    """The id of the client's key."""
    provider: str | None = None
    model: str | None = None
    gateway: str | None = None
    client_kind: str | None = None
    session: str | None = None
    requests: int
    """All requests."""
    refused: int
    """Requests that the gateway refused."""
    complete: int
    """Requests whose final counts are known."""
    input_tokens: int
    output_tokens: int
    cached_read_tokens: int
    cached_write_tokens: int
    reasoning_tokens: int
    costs: Mapping[str, float] = attrs.field(factory=dict)
    """Currency -> the sum of the costs that are known. Those of two currencies are never added."""
    unpriced: int = 0
    """Requests whose cost is not known; see `UsageRecord.cost`."""
    priced_as_unknown: int = 0
    """Requests of models that the price table has no row for."""


@attrs.frozen
class UsageReport:
    """Sums of usage."""

    sums: tuple[UsageSum, ...]
    """In the order of their groups."""
    truncated: bool = False
    """There are more groups than an answer holds; filter, or group by less."""


@attrs.frozen
class UsagePage:
    """A page of usage records."""

    records: tuple[UsageRecord, ...]
    """The newest first."""
    next: str | None
    """The ``before_id`` of the next page; None on the last page."""
