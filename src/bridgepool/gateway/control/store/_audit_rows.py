"""Read the audit; `StoreTransaction.audit` writes it."""

from __future__ import annotations

import json
from typing import Any

from bridgepool.gateway.control._errors import EncryptionError
from bridgepool.gateway.control._records import Actor, AuditEntry
from bridgepool.gateway.control.database import Value
from bridgepool.gateway.control.store._transaction import StoreTransaction, to_time

_MOST = 1000


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
    rows = tx.sql.fetch_all(
        "SELECT id, at, actor_kind, actor_name, action, kind, row_id, name, revision, sealed "  # noqa: S608 -- ours
        f"FROM audit WHERE {' AND '.join(conditions)} ORDER BY id DESC LIMIT ?",
        *values,
        max(0, min(limit, _MOST)),
    )
    return tuple(_entry(tx, *row) for row in rows)


def _entry(
    tx: StoreTransaction,
    number: int,
    at: str,
    actor_kind: str,
    actor_name: str,
    action: str,
    kind: str,
    row_id: str,
    name: str,
    revision: int,
    sealed: str,
) -> AuditEntry:
    # JSON has no closer static type; we wrote it.
    content: dict[str, Any]
    try:
        content = json.loads(tx.unseal(sealed))
    except (EncryptionError, ValueError):
        content = {"before": None, "after": None, "fields": []}
    return AuditEntry(
        id=number,
        at=to_time(at),
        actor=Actor(actor_kind, actor_name),
        action=action,
        kind=kind,
        row_id=row_id,
        name=name,
        revision=revision,
        before=content["before"],
        after=content["after"],
        fields=tuple(content["fields"]),
    )
