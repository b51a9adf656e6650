"""The clients' rows: found, shown, added and removed, and their keys."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

import attrs

from bridgepool.gateway.control._errors import InvalidChangeError, NameTakenError, NotFoundError
from bridgepool.gateway.control._records import (
    AccessKeyChange,
    ClientChange,
    ClientView,
    NewClient,
    NewKey,
)
from bridgepool.gateway.control.database import Table
from bridgepool.gateway.control.store import _audit_rows as audit_rows
from bridgepool.gateway.control.store import _key_rows as key_rows
from bridgepool.gateway.control.store._key_rows import KeyRow
from bridgepool.gateway.control.store._transaction import StoreTransaction
from bridgepool.gateway.providers import Client, Clients, InvalidProviderError
from bridgepool.gateway.providers._access_keys import new_id
from bridgepool.gateway.providers._clients import check_client_id


@attrs.frozen(kw_only=True)
class ClientRow:
    """A row."""

    id: str
    position: int
    name: str
    created: datetime
    removed: datetime | None = None
    revision: int


CLIENTS: Final = Table("clients", ClientRow)


@attrs.frozen(kw_only=True)
class StoredClient:
    """A living row with its good keys."""

    row: ClientRow
    keys: tuple[KeyRow, ...]

    @property
    def id(self) -> str:
        """The id of the row."""
        return self.row.id

    def view(self) -> ClientView:
        """Return it without hashes."""
        return ClientView(
            id=self.row.name,
            keys=tuple(key.view() for key in self.keys),
            created=self.row.created,
            revision=self.row.revision,
        )

    def masked(self) -> dict[str, object]:
        """Return it for the audit."""
        return {"id": self.row.name, "keys": [key.id for key in self.keys]}

    def hashes(self) -> tuple[str, ...]:
        """Return the hashes of its keys."""
        return tuple(key.hash for key in self.keys)


def living(tx: StoreTransaction) -> list[StoredClient]:
    """Return all living clients, in the order in which they were added."""
    keys: dict[str, list[KeyRow]] = {}
    for key in key_rows.list_keys(tx, "client"):
        keys.setdefault(key.owner or "", []).append(key)
    return [
        StoredClient(row=row, keys=tuple(keys.get(row.id, ())))
        for row in CLIENTS.select(tx.sql, "WHERE removed IS NULL ORDER BY position")
    ]


def find(tx: StoreTransaction, name: str) -> StoredClient:
    """Return one by the client's id; raises `NotFoundError`."""
    row = _find_living(tx, name)
    if row is None:
        raise NotFoundError("client", name)
    return StoredClient(row=row, keys=tuple(key_rows.list_keys(tx, "client", owner=row.id)))


def _find_living(tx: StoreTransaction, name: str) -> ClientRow | None:
    return CLIENTS.find(tx.sql, "WHERE removed IS NULL AND name = ?", name)


def known(tx: StoreTransaction) -> Clients:
    """Return the clients by whose keys gateways authenticate: those that have a good key."""
    return Clients(
        Client(id=stored.row.name, key_hashes=stored.hashes())
        for stored in living(tx)
        if stored.keys
    )


def add(tx: StoreTransaction, name: str, hashes: Iterable[str] | None) -> NewClient:
    """Add a client, with a new key or with hashes."""
    try:
        if hashes is None:
            check_client_id(name)
        else:
            hashes = Clients([Client(id=name, key_hashes=hashes)]).rows[0].key_hashes
    except InvalidProviderError as error:
        raise InvalidChangeError(str(error)) from None
    if _find_living(tx, name) is not None:
        raise NameTakenError("client", name)
    key_rows.check_are_free(tx, hashes or (), None)
    stored = insert(tx, name, hashes or ())
    key = None
    if hashes is None:
        made, key = key_rows.make(tx, "client", name, None, stored.id)
        stored = attrs.evolve(stored, keys=(made,))
    audit_rows.record(tx, "client.add", stored.id, name, None, stored.masked())
    return NewClient(revision=tx.revision, changed=True, client=stored.view(), key=key)


def remove(tx: StoreTransaction, name: str) -> ClientChange:
    """Remove a client and revoke its keys."""
    stored = find(tx, name)
    revision = tx.move_revision(clients=True)
    for key in stored.keys:
        key_rows.mark_revoked(tx, key)
    CLIENTS.update(tx.sql, attrs.evolve(stored.row, removed=tx.now, revision=revision))
    audit_rows.record(tx, "client.remove", stored.id, name, stored.masked(), None)
    return ClientChange(revision=revision, changed=True, client=stored.view())


def add_key(tx: StoreTransaction, name: str) -> NewKey:
    """Make one more key for a client."""
    stored = find(tx, name)
    _touch(tx, stored.row)
    return key_rows.create(tx, "client", name, owner=stored.id)


def revoke_key(tx: StoreTransaction, name: str, key_id: str) -> AccessKeyChange:
    """Revoke one key of a client."""
    stored = find(tx, name)
    keys = key_rows.list_keys(tx, "client", owner=stored.id, revoked=True)
    found = [key for key in keys if key.id == key_id]
    if not found:
        raise NotFoundError("client key", key_id)
    if found[-1].revoked is None:
        _touch(tx, stored.row)
    return key_rows.revoke_row(tx, found[-1])


def insert(tx: StoreTransaction, name: str, hashes: Iterable[str]) -> StoredClient:
    """Add a row, and those of its hashes, all checked before; the caller writes the audit."""
    row = ClientRow(
        id=f"cli_{new_id()}",
        position=CLIENTS.next(tx.sql),
        name=name,
        created=tx.now,
        revision=tx.move_revision(clients=True),
    )
    CLIENTS.insert(tx.sql, row)
    keys = tuple(key_rows.insert(tx, "client", name, text, None, row.id) for text in hashes)
    return StoredClient(row=row, keys=keys)


def set_hashes(
    tx: StoreTransaction, present: StoredClient, hashes: tuple[str, ...]
) -> StoredClient:
    """Give a client exactly these keys, for a seed."""
    row = _touch(tx, present.row)
    kept = {key.hash: key for key in present.keys if key.hash in hashes}
    for key in present.keys:
        if key.hash not in kept:
            key_rows.mark_revoked(tx, key)
    for text in hashes:
        if text not in kept:
            kept[text] = key_rows.insert(tx, "client", row.name, text, None, present.id)
    stored = StoredClient(row=row, keys=tuple(kept.values()))
    audit_rows.record(
        tx, "client.update", row.id, row.name, present.masked(), stored.masked(), ("keys",)
    )
    return stored


def _touch(tx: StoreTransaction, row: ClientRow) -> ClientRow:
    touched = attrs.evolve(row, revision=tx.move_revision(clients=True))
    CLIENTS.update(tx.sql, touched)
    return touched
