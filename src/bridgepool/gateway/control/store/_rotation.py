"""The rotation of the encryption key: everything is encrypted anew, a few rows at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import attrs

from bridgepool.gateway.control._errors import EncryptionError
from bridgepool.gateway.control._records import RotationReport
from bridgepool.gateway.control.store import _audit_rows as audit_rows
from bridgepool.gateway.control.store import _provider_rows as provider_rows
from bridgepool.gateway.control.store import _seeding as seeding
from bridgepool.gateway.control.store._transaction import StoreTransaction

_ROWS_AT_ONCE: Final = 50  # of one transaction, so that nobody waits for long
_SEALED: Final = (provider_rows.PROVIDERS, seeding.SEEDS, audit_rows.AUDIT)

Write = Callable[[Callable[[StoreTransaction], bool]], Awaitable[bool]]
"""Runs one transaction."""


@attrs.define(eq=False)
class Rotation:
    """A rotation that is under way."""

    _table: str = ""
    _after: str | int | None = None  # the id of the last row that was looked at
    _is_audited: bool = False
    _rewritten: int = 0
    _unreadable: int = 0

    async def run(self, write: Write) -> RotationReport:
        """Re-encrypt all rows that are not under the first key, in many transactions."""
        for table in _SEALED:
            self._table, self._after = table.name, None
            while await write(self._reencrypt_some):
                pass
        return RotationReport(self._rewritten, self._unreadable)

    def _reencrypt_some(self, tx: StoreTransaction) -> bool:
        """Re-encrypt some rows; return whether there were any left."""
        current = tx.encryption.current
        condition, values = "sealed IS NOT NULL AND sealed_by <> ?", [current]
        if self._after is not None:
            condition += " AND id > ?"
        rows = tx.sql.fetch_all(
            f"SELECT id, sealed, sealed_by FROM {self._table} WHERE {condition} "  # noqa: S608 -- names of tables and columns of ours
            "ORDER BY id LIMIT ?",
            *values,
            *(() if self._after is None else (self._after,)),
            _ROWS_AT_ONCE,
        )
        readable = []
        for row_id, sealed, sealed_by in rows:
            try:
                readable.append((row_id, tx.unseal(sealed, sealed_by)))
            except EncryptionError:
                self._unreadable += 1
        if readable and not self._is_audited:
            # With the first rows: also a rotation that is cut has changed something.
            before = {"keys": sorted({sealed_by for _, _, sealed_by in rows})}
            after = {"keys": [current]}
            audit_rows.record(tx, "encryption.rotate", current, "encryption", before, after)
            self._is_audited = True
        if readable and self._table == provider_rows.PROVIDERS.name:
            tx.move_revision()  # so a backup from before, put back, is noticed
        for row_id, text in readable:
            statement = f"UPDATE {self._table} SET sealed = ?, sealed_by = ? WHERE id = ?"  # noqa: S608 -- names of tables and columns of ours
            tx.sql.execute(statement, *tx.seal(text), row_id)
        self._rewritten += len(readable)
        if rows:
            self._after = rows[-1][0]
        return bool(rows)
