"""The audit: who changed what, written in the transaction of the change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import attrs

from bridgepool.gateway.control._errors import EncryptionError
from bridgepool.gateway.control._records import Actor, AuditEntry
from bridgepool.gateway.control.database import Table, Value
from bridgepool.gateway.control.store._transaction import StoreTransaction

_MOST: Final = 1000
_NOTHING: Final[Mapping[str, Any]] = {"before": None, "after": None, "fields": []}


@attrs.frozen
class AuditRow:
    """A row; what differs from an `AuditEntry` is the actor in two columns, and the sealed part."""

    id: int
    at: datetime
    actor_kind: str
    actor_name: str
    action: str
    kind: str
    row_id: str
    name: str
    revision: int
    sealed: str | None
    sealed_by: str | None


AUDIT: Final = Table("audit", AuditRow)


def record(
    tx: StoreTransaction,
    action: str,
    row_id: str,
    name: str,
    before: Mapping[str, object] | None,
    after: Mapping[str, object] | None,
    fields: tuple[str, ...] = (),
) -> None:
    """Note one change, its row masked before and after."""
    content = json.dumps({"before": before, "after": after, "fields": fields})
    sealed, sealed_by = tx.seal_unless_wrong(content)
    row = AuditRow(
        id=AUDIT.next(tx.sql, "id"),
        at=tx.now,
        actor_kind=tx.actor.kind,
        actor_name=tx.actor.name,
        action=action,
        kind=action.partition(".")[0],
        row_id=row_id,
        name=name,
        revision=tx.revision,
        sealed=sealed,
        sealed_by=sealed_by,
    )
    AUDIT.insert(tx.sql, row)


def page(
    tx: StoreTransaction, limit: int, before: int | None, name: str | None
) -> tuple[AuditEntry, ...]:
    """Return entries, the newest first."""
    conditions, values = ["1 = 1"], list[Value]()
    if before is not None:
        conditions.append("id < ?")
        values.append(before)
    if name is not None:
        conditions.append("(name = ? OR row_id = ?)")
        values += [name, name]
    clauses = f"WHERE {' AND '.join(conditions)} ORDER BY id DESC LIMIT ?"
    rows = AUDIT.select(tx.sql, clauses, *values, max(0, min(limit, _MOST)))
    return tuple(_entry(tx, row) for row in rows)


def _entry(tx: StoreTransaction, row: AuditRow) -> AuditEntry:
    # JSON has no closer static type; we wrote it.
    content: Mapping[str, Any]
    problem = None
    try:
        if row.sealed is None:
            raise EncryptionError("it was made without the encryption key of the store")
        content = json.loads(tx.unseal(row.sealed, row.sealed_by))
    except (EncryptionError, ValueError) as error:
        content, problem = _NOTHING, str(error)
    return AuditEntry(
        id=row.id,
        at=row.at,
        actor=Actor(row.actor_kind, row.actor_name),
        action=row.action,
        kind=row.kind,
        row_id=row.row_id,
        name=row.name,
        revision=row.revision,
        before=content["before"],
        after=content["after"],
        fields=tuple(content["fields"]),
        problem=problem,
    )
