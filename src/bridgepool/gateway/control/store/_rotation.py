"""Encrypting anew under the first key, a few rows a transaction, so that nobody waits long."""

from __future__ import annotations

from typing import Final

import attrs

from bridgepool.gateway.control._errors import EncryptionError
from bridgepool.gateway.control.database import Value
from bridgepool.gateway.control.store._transaction import StoreTransaction

_BATCH: Final = 50
_TABLES: Final = ("providers", "seeds", "audit")


@attrs.define(eq=False)
class Rotation:
    """How far a rotation has come. Cut short, a new one goes on with what is left."""

    rewritten: int = 0
    unreadable: int = 0
    _table: int = 0
    _last: str | int | None = None  # the id of the last row that was looked at

    @property
    def done(self) -> bool:
        """Whether all tables have been looked through."""
        return self._table == len(_TABLES)

    def step(self, tx: StoreTransaction) -> Rotation:
        """Encrypt the next rows anew; returns how far it has come then."""
        table = _TABLES[self._table]
        condition = "sealed IS NOT NULL AND sealed_by <> ?"
        values: list[Value] = [tx.encryption.current]
        if self._last is not None:
            condition += " AND id > ?"
            values.append(self._last)
        rows = tx.sql.fetch_all(
            f"SELECT id, sealed FROM {table} WHERE {condition} ORDER BY id LIMIT ?",  # noqa: S608 -- ours
            *values,
            _BATCH,
        )
        rewritten = 0
        for row_id, sealed in rows:
            try:
                text = tx.unseal(sealed)
            except EncryptionError:
                continue
            tx.sql.execute(
                f"UPDATE {table} SET sealed = ?, sealed_by = ? WHERE id = ?",  # noqa: S608 -- ours
                *tx.seal(text),
                row_id,
            )
            rewritten += 1
        return Rotation(
            self.rewritten + rewritten,
            self.unreadable + len(rows) - rewritten,
            self._table if rows else self._table + 1,
            rows[-1][0] if rows else None,
        )
