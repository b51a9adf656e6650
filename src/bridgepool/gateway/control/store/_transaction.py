"""One transaction on the store's tables: revisions and encryption."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Final

import attrs

from bridgepool.gateway.control._encryption import EncryptionKeys
from bridgepool.gateway.control._errors import EncryptionError, StoreUnavailableError
from bridgepool.gateway.control._records import Actor
from bridgepool.gateway.control._revisions import Revisions
from bridgepool.gateway.control.database import Transaction

PROGRAM: Final = Actor("program", "bridgepool")
"""Who makes changes that are not audited."""


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
    repairing: bool = False
    """Encrypt, although no provider was encrypted with a key that is known here."""
    _revision: int | None = attrs.field(default=None, init=False)
    _keys_fit: bool = attrs.field(default=False, init=False)  # checked before

    def revisions(self) -> Revisions:
        """Return the revisions in force."""
        row = self.sql.fetch_one(
            "SELECT revision, providers_revision, clients_revision, epoch, mark FROM state"
        )
        if row is None:
            raise StoreUnavailableError("the store is damaged: restore it from a backup")
        return Revisions(*row)

    def unseal(self, sealed: str | None, sealed_by: str | None) -> str:
        """Decrypt a sealed column; raises `EncryptionError`.

        Args:
            sealed: The column.
            sealed_by: The name of the key, in the column beside it.
        """
        if sealed is None:
            raise EncryptionError("it was removed, and its secrets with it")
        try:
            return self.encryption.decrypt(sealed.encode("ascii")).decode("utf-8")
        except EncryptionError:
            if sealed_by in self.encryption.names:
                raise
        raise EncryptionError(
            f"it was encrypted with the key {sealed_by}, and the keys here are {self.encryption}: "
            "add that key, on a line of its own"
        )

    @property
    def changed(self) -> bool:
        """Whether the revision was moved."""
        return self._revision is not None

    @property
    def revision(self) -> int:
        """The revision as it will be after this transaction."""
        return self._revision if self._revision is not None else self.revisions().revision

    def move_revision(self, *, providers: bool = False, clients: bool = False) -> int:
        """Move the revision, because what programs read of the store is about to change.

        Args:
            providers: Something about providers changes.
            clients: Something about clients changes.
        """
        if self._revision is None:
            self._revision = self.revisions().revision + 1
            mark = secrets.token_hex(8)
            self.sql.execute("UPDATE state SET revision = ?, mark = ?", self._revision, mark)
            self.sql.notify()
        if providers:
            self.sql.execute("UPDATE state SET providers_revision = ?", self._revision)
        if clients:
            self.sql.execute("UPDATE state SET clients_revision = ?", self._revision)
        return self._revision

    def seal(self, text: str) -> tuple[str, str]:
        """Encrypt for a sealed column; returns that, and the name of the key.

        Raises:
            EncryptionError: There are providers, and none of them was encrypted with a key that is
                known here: this key is a wrong one.
        """
        if not self.repairing and not self._keys_fit:
            self._check_keys()
            self._keys_fit = True
        sealed = self.encryption.encrypt(text.encode("utf-8")).decode("ascii")
        return sealed, self.encryption.current

    def seal_unless_wrong(self, text: str) -> tuple[str | None, str | None]:
        """Encrypt, or return nothing if a repair is made with a key of which there is no provider.

        What a wrong key has encrypted would keep the right one from being replaced.
        """
        if self.repairing and not self._keys_fit:
            try:
                self._check_keys()
            except EncryptionError:
                return None, None
        return self.seal(text)

    def _check_keys(self) -> None:
        names = self.encryption.names
        living = "FROM providers WHERE removed IS NULL"
        marks = ", ".join("?" for _ in names)
        known = f"SELECT 1 {living} AND sealed_by IN ({marks}) LIMIT 1"
        if self.sql.fetch_one(known, *names) is not None:
            return
        others = self.sql.fetch_all(f"SELECT DISTINCT sealed_by {living} ORDER BY sealed_by")
        if others:
            raise EncryptionError(
                f"nothing was changed: the encryption keys {self.encryption} are not those of the "
                f"store, whose providers are encrypted with {', '.join(by for (by,) in others)}; "
                "use that key. If it is lost, set base_url, keys and headers of each provider "
                "again, or remove it"
            )
