"""Operations on usage."""

from __future__ import annotations

from datetime import date
from typing import Annotated, TypeAlias

from msgspec import Meta

from bridgepool.gateway.control._errors import InvalidChangeError
from bridgepool.gateway.control._usage import (
    GROUPINGS,
    UsageFilter,
    UsagePage,
    UsageReport,
    parse_groups,
)
from bridgepool.gateway.control.operations._operation import Context, operation
from bridgepool.gateway.control.operations._requests import NAME_PATTERN
from bridgepool.gateway.usage._records import is_record_id


def _day(description: str) -> Meta:
    # Its form is checked by `_filter`, whose message tells how a day is written.
    return Meta(max_length=64, description=description, extra_json_schema={"format": "date"})


Since: TypeAlias = Annotated[str, _day("The first day, in UTC, such as 2026-01-31.")]
Until: TypeAlias = Annotated[str, _day("The day after the last, in UTC, such as 2026-02-01.")]
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=256, pattern=NAME_PATTERN)]
Text: TypeAlias = Annotated[str, Meta(min_length=1, max_length=256)]


def _filter(since: str | None, until: str | None, *others: str | None) -> UsageFilter:
    for name, day in (("since", since), ("until", until)):
        try:
            good = day is None or date.fromisoformat(day).isoformat() == day
        except ValueError:
            good = False
        if not good:
            raise InvalidChangeError(f"{name}: is not a day such as 2026-01-31")
    if since is not None and until is not None and until <= since:
        raise InvalidChangeError("until: is not after since; it is the day after the last one")
    client, provider, model, gateway, session = others
    return UsageFilter(
        since=since,
        until=until,
        client=client,
        provider=provider,
        model=model,
        gateway=gateway,
        session=session,
    )


@operation("GET", "/usage")
async def sum_usage(
    context: Context,
    by: Annotated[
        str,
        Meta(
            max_length=100,
            description=f"What to sum by: some of {', '.join(GROUPINGS)}, joined by commas.",
        ),
    ] = "",
    since: Since | None = None,
    until: Until | None = None,
    client: Name | None = None,
    provider: Name | None = None,
    model: Text | None = None,
    gateway: Name | None = None,
    session: Text | None = None,
) -> UsageReport:
    """Sum what requests have used."""
    names = parse_groups(by)
    if not set(names) <= set(GROUPINGS):
        raise InvalidChangeError(f"by: is not made of {', '.join(GROUPINGS)}")
    which = _filter(since, until, client, provider, model, gateway, session)
    return await context.store.usage.sums(names, which)


@operation("GET", "/usage/records")
async def list_usage(
    context: Context,
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100,
    before_id: Annotated[
        str,
        Meta(
            max_length=256,
            description="Only records with a lower id: the last one's of the page before.",
        ),
    ]
    | None = None,
    since: Since | None = None,
    until: Until | None = None,
    client: Name | None = None,
    provider: Name | None = None,
    model: Text | None = None,
    gateway: Name | None = None,
    session: Text | None = None,
) -> UsagePage:
    """List usage records, the newest first."""
    usage = context.store.usage
    # That of a record which was removed meanwhile is as good.
    if before_id is not None and not is_record_id(before_id) and not await usage.has(before_id):
        raise InvalidChangeError("before_id: is not the id of a usage record, as the list shows it")
    which = _filter(since, until, client, provider, model, gateway, session)
    return await usage.page(limit, before_id, which)
