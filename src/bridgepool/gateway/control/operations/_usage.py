"""Operations on usage."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Unpack

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
from bridgepool.gateway.usage._records import is_record_id


def _check_days(since: str | None, until: str | None) -> None:
    for name, day in (("since", since), ("until", until)):
        try:
            good = day is None or date.fromisoformat(day).isoformat() == day
        except ValueError:
            good = False
        if not good:
            raise InvalidChangeError(f"{name}: is not a day such as 2026-01-31")
    if since is not None and until is not None and until <= since:
        raise InvalidChangeError("until: is not after since; it is the day after the last one")


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
    **which: Unpack[UsageFilter],
) -> UsageReport:
    """Sum what requests have used."""
    names = parse_groups(by)
    if not set(names) <= set(GROUPINGS):
        raise InvalidChangeError(f"by: is not made of {', '.join(GROUPINGS)}")
    _check_days(which.get("since"), which.get("until"))
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
    **which: Unpack[UsageFilter],
) -> UsagePage:
    """List usage records, the newest first."""
    usage = context.store.usage
    # That of a record which was removed meanwhile is as good.
    if before_id is not None and not is_record_id(before_id) and not await usage.has(before_id):
        raise InvalidChangeError("before_id: is not the id of a usage record, as the list shows it")
    _check_days(which.get("since"), which.get("until"))
    return await usage.page(limit, before_id, which)
