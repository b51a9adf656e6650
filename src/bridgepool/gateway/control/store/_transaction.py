"""One transaction on the store's tables: revisions, encryption, audit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import attrs

from bridgepool.gateway.control._encryption import EncryptionKeys
from bridgepool.gateway.control._errors import StoreUnavailableError
from bridgepool.gateway.control._records import Actor
from bridgepool.gateway.control.database import Transaction
from bridgepool.remote._messages import Revisions

PROGRAM: Final = Actor("program", "bridgepool")
"""Who makes changes that are not audited."""


@attrs.define(eq=False)
class StoreTransaction:
    """One transaction on the store's tables, inside the worker thread that it runs in.

    It moves the revision at most once, however much it changes; the audit rows and the notice to
    other processes belong to the same transaction.
    """

    sql: Transaction
    encryption: EncryptionKeys
    now: str
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

    def unseal(self, sealed: str) -> str:
        """Decrypt a sealed column."""
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

    def next_position(self, table: str, column: str = "position") -> int:
        """Return an unused number above all of a table: writers are serialized."""
        [(highest,)] = self.sql.fetch_all(f"SELECT MAX({column}) FROM {table}")  # noqa: S608 -- ours
        return (highest or 0) + 1

    def audit(
        self,
        action: str,
        row_id: str,
        name: str,
        before: Mapping[str, object] | None,
        after: Mapping[str, object] | None,
        fields: tuple[str, ...] = (),
    ) -> None:
        """Note one change, its row masked before and after."""
        sealed = self.seal(json.dumps({"before": before, "after": after, "fields": fields}))
        self.sql.execute(
            "INSERT INTO audit (id, at, actor_kind, actor_name, action, kind, row_id, name, "
            "revision, sealed, sealed_by) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            self.next_position("audit", "id"),
            self.now,
            self.actor.kind,
            self.actor.name,
            action,
            action.partition(".")[0],
            row_id,
            name,
            self.revision,
            *sealed,
        )


def to_text(moment: datetime) -> str:
    """Write a time for a column; in this form texts sort as times do."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def to_time(text: str) -> datetime:
    """Read a time from a column."""
    return datetime.fromisoformat(text)
