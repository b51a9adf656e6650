"""One transaction on the store's tables: revisions and encryption."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import attrs

from bridgepool.gateway.control._encryption import EncryptionKeys
from bridgepool.gateway.control._errors import EncryptionError, StoreUnavailableError
from bridgepool.gateway.control._records import Actor, Revisions, RotationReport
from bridgepool.gateway.control.database import Transaction

PROGRAM: Final = Actor("program", "bridgepool")
"""Who makes changes that are not audited."""

_REENCRYPTED_AT_ONCE: Final = 50  # rows of one transaction, so that nobody waits for long


@attrs.define(eq=False)
class StoreTransaction:
    """One transaction on the store's tables, inside the worker thread that it runs in.

    It moves the revision at most once, however much it changes.
    """

    sql: Transaction
    encryption: EncryptionKeys
    now: datetime
    """The time, for people."""
    actor: Actor = PROGRAM
    """Who makes the change."""
    _revision: int | None = attrs.field(default=None, init=False)

    def revisions(self) -> Revisions:
        """Return the revisions in force."""
        row = self.sql.fetch_one("SELECT revision, providers_revision, clients_revision FROM state")
        if row is None:
            raise StoreUnavailableError("the store is damaged: restore it from a backup")
        return Revisions(*row)

    def unseal(self, sealed: str | None) -> str:
        """Decrypt a sealed column; raises `EncryptionError`."""
        if sealed is None:
            raise EncryptionError("it was removed, and its secrets with it")
        return self.encryption.decrypt(sealed.encode("ascii")).decode("utf-8")

    @property
    def changed(self) -> bool:
        """Whether the revision was moved."""
        return self._revision is not None

    @property
    def revision(self) -> int:
        """The revision as it will be after this transaction."""
        return self._revision if self._revision is not None else self.revisions().revision

    def move_revision(self, *, providers: bool = False, clients: bool = False) -> int:
        """Move the revision, because gateways can see what is about to change.

        Args:
            providers: Something about providers changes.
            clients: Something about clients changes.
        """
        if self._revision is None:
            self._revision = self.revisions().revision + 1
            self.sql.execute("UPDATE state SET revision = ?", self._revision)
            self.sql.notify()
        if providers:
            self.sql.execute("UPDATE state SET providers_revision = ?", self._revision)
        if clients:
            self.sql.execute("UPDATE state SET clients_revision = ?", self._revision)
        return self._revision

    def seal(self, text: str) -> tuple[str, str]:
        """Encrypt for a sealed column; returns that, and the name of the key."""
        sealed = self.encryption.encrypt(text.encode("utf-8")).decode("ascii")
        return sealed, self.encryption.current

    def reencrypt(
        self, table: str, after: str | int | None
    ) -> tuple[RotationReport, str | int | None]:
        """Re-encrypt some rows under the first key.

        Args:
            table: A table with sealed columns.
            after: The id of the last row that was looked at.

        Returns:
            What was done, and the id of the last row; None when no row was left.
        """
        condition, values = "sealed IS NOT NULL AND sealed_by <> ?", [self.encryption.current]
        if after is not None:
            condition += " AND id > ?"
        rows = self.sql.fetch_all(
            f"SELECT id, sealed FROM {table} WHERE {condition} ORDER BY id LIMIT ?",  # noqa: S608 -- names of tables and columns of ours
            *values,
            *(() if after is None else (after,)),
            _REENCRYPTED_AT_ONCE,
        )
        unreadable = 0
        for row_id, sealed in rows:
            try:
                text = self.unseal(sealed)
            except EncryptionError:
                unreadable += 1
            else:
                statement = f"UPDATE {table} SET sealed = ?, sealed_by = ? WHERE id = ?"  # noqa: S608 -- names of tables and columns of ours
                self.sql.execute(statement, *self.seal(text), row_id)
        report = RotationReport(len(rows) - unreadable, unreadable)
        return report, rows[-1][0] if rows else None
