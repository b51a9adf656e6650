"""The encryption keys of an open store, which may be replaced while it is used."""

from __future__ import annotations

import attrs

from bridgepool.gateway.control._encryption import EncryptionKeys
from bridgepool.gateway.control._errors import EncryptionError
from bridgepool.gateway.control.store import _audit_rows as audit_rows
from bridgepool.gateway.control.store import _reading as reading
from bridgepool.gateway.control.store._programs import Run
from bridgepool.gateway.control.store._transaction import StoreTransaction


@attrs.define(eq=False)
class Keyring:
    """The keys that transactions use."""

    keys: EncryptionKeys

    async def replace(self, keys: EncryptionKeys, read: Run, write: Run) -> None:
        """See `Store.use_keys`."""
        found = await read(_count_readable, keys)
        before, self.keys = self.keys, keys
        if found:
            try:
                await write(_note_readable, found)
            except BaseException:
                self.keys = before
                raise


def _count_readable(tx: StoreTransaction, keys: EncryptionKeys) -> int:
    """Return how many more providers other keys can read; raises if they cannot read one more."""
    other = StoreTransaction(tx.sql, keys, tx.now)
    before = {row.name for row in reading.read_unreadable(tx, {})}
    after = {row.name: row for row in reading.read_unreadable(other, {})}
    for name in after.keys() - before:
        raise EncryptionError(f"provider {name}: {after[name].reason}")
    return len(before) - len(after)


def _note_readable(tx: StoreTransaction, found: int) -> None:
    """Move the revision, so that all who follow the store read it again."""
    tx.move_revision(providers=True)
    now = tx.encryption.current
    audit_rows.record(tx, "encryption.keys", now, "encryption", None, {"readable_again": found})
