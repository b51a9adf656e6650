"""Backups of a store that is open: all of its rows, put back by one transaction of any engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from bridgepool.gateway.control.database import Transaction, Value
from bridgepool.gateway.control.store import Store

_TABLES: Final = (
    "state", "epochs", "providers", "clients", "access_keys", "audit", "seeds", "gateways",
)  # fmt: skip


@attrs.frozen
class Backup:
    """The rows of each table."""

    tables: dict[str, Sequence[Sequence[Value]]]


async def back_up(store: Store) -> Backup:
    """Read everything."""

    def read(tx: Transaction) -> Backup:
        return Backup({table: tx.fetch_all(f"SELECT * FROM {table}") for table in _TABLES})

    return await store._database.read(read)


async def restore(store: Store, backup: Backup) -> None:
    """Put everything back as it was, under whoever has the store open; no epoch is renewed."""

    def write(tx: Transaction) -> None:
        for table, rows in backup.tables.items():
            tx.execute(f"DELETE FROM {table}")
            for row in rows:
                marks = ", ".join("?" for _ in row)
                tx.execute(f"INSERT INTO {table} VALUES ({marks})", *row)
        tx.notify()

    await store._database.write(write)
