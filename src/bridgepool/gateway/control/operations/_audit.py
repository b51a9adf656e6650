"""Operations on the audit."""

from __future__ import annotations

from typing import Annotated

import attrs
from msgspec import Meta

from bridgepool.gateway.control._records import NAME_PATTERN, AuditEntry
from bridgepool.gateway.control.operations._operation import Context, operation
from bridgepool.gateway.control.operations._requests import MAX_INTEGER


@attrs.frozen
class AuditPage:
    """A page of the audit."""

    entries: tuple[AuditEntry, ...]
    next: int | None
    """The ``before`` of the next page; None on the last page."""


@operation("GET", "/audit")
async def list_audit(
    context: Context,
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100,
    before: Annotated[
        int, Meta(ge=0, le=MAX_INTEGER, description="Only entries that are older than this id.")
    ]
    | None = None,
    name: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=256,
            pattern=NAME_PATTERN,
            description="Only entries about rows with this name or id.",
        ),
    ]
    | None = None,
) -> AuditPage:
    """List the changes, the newest first."""
    entries = await context.store.audit(limit=limit, before=before, name=name)
    full = len(entries) == limit and entries[-1].id > 1
    return AuditPage(entries, entries[-1].id if full else None)
