"""The clients' rows: found, shown, added and removed, and their keys."""

from __future__ import annotations

from collections.abc import Iterable
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
from bridgepool.gateway.control.store import _key_rows as key_rows
from bridgepool.gateway.control.store._key_rows import StoredAccessKey
from bridgepool.gateway.control.store._transaction import StoreTransaction, to_time
from bridgepool.gateway.providers import Client, Clients, InvalidProviderError
from bridgepool.gateway.providers._access_keys import new_id
from bridgepool.gateway.providers._clients import check_client_id

_SELECT: Final = "SELECT id, name, created, revision FROM clients WHERE removed IS NULL"


@attrs.frozen(kw_only=True)
class StoredClient:
    """A living row with its good keys."""

    id: str
    name: str
    created: str
    revision: int
    keys: tuple[StoredAccessKey, ...]

    def view(self) -> ClientView:
        """Return it without hashes."""
        return ClientView(
            id=self.name,
            keys=tuple(key.view for key in self.keys),
            created=to_time(self.created),
            revision=self.revision,
        )

    def masked(self) -> dict[str, object]:
        """Return it for the audit."""
        return {"id": self.name, "keys": [key.view.id for key in self.keys]}

    def hashes(self) -> tuple[str, ...]:
        """Return the hashes of its keys."""
        return tuple(key.hash for key in self.keys)


def living(tx: StoreTransaction) -> list[StoredClient]:
    """Return all living clients, in the order in which they were added."""
    keys: dict[str, list[StoredAccessKey]] = {}
    for key in key_rows.list_keys(tx, "client"):
        keys.setdefault(key.owner or "", []).append(key)
    return [
        StoredClient(
            id=row_id,
            name=name,
            created=created,
            revision=revision,
            keys=tuple(keys.get(row_id, ())),
        )
        for row_id, name, created, revision in tx.sql.fetch_all(f"{_SELECT} ORDER BY position")
    ]


def find(tx: StoreTransaction, name: str) -> StoredClient:
    """Return one by the client's id; raises `NotFoundError`."""
    row = tx.sql.fetch_one(f"{_SELECT} AND name = ?", name)
    if row is None:
        raise NotFoundError("client", name)
    row_id, name, created, revision = row
    keys = key_rows.list_keys(tx, "client", owner=row_id)
    return StoredClient(id=row_id, name=name, created=created, revision=revision, keys=tuple(keys))


def known(tx: StoreTransaction) -> Clients:
    """Return the clients as gateways ask them; one without a good key is nobody."""
    return Clients(
        Client(id=stored.name, key_hashes=stored.hashes()) for stored in living(tx) if stored.keys
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
    if tx.sql.fetch_one(f"{_SELECT} AND name = ?", name) is not None:
        raise NameTakenError("client", name)
    key_rows.check_are_free(tx, hashes or (), None)
    stored = insert(tx, name, hashes or ())
    key = None
    if hashes is None:
        made, key = key_rows.make(tx, "client", name, owner=stored.id)
        stored = attrs.evolve(stored, keys=(made,))
    tx.audit("client.add", stored.id, name, None, stored.masked())
    return NewClient(revision=tx.revision, changed=True, client=stored.view(), key=key)


def remove(tx: StoreTransaction, name: str) -> ClientChange:
    """Remove a client and revoke its keys."""
    stored = find(tx, name)
    revision = tx.move_revision(clients=True)
    for key in stored.keys:
        key_rows.mark_revoked(tx, key)
    tx.sql.execute(
        "UPDATE clients SET removed = ?, revision = ? WHERE id = ?",
        tx.now,
        revision,
        stored.id,
    )
    tx.audit("client.remove", stored.id, name, stored.masked(), None)
    return ClientChange(revision=revision, changed=True, client=stored.view())


def add_key(tx: StoreTransaction, name: str) -> NewKey:
    """Make one more key for a client."""
    stored = find(tx, name)
    revision = _touch(tx, stored)
    made, key = key_rows.make(tx, "client", name, owner=stored.id)
    tx.audit("client_key.add", made.view.id, name, None, made.masked())
    return NewKey(revision=revision, changed=True, access_key=made.view, key=key)


def revoke_key(tx: StoreTransaction, name: str, key_id: str) -> AccessKeyChange:
    """Revoke one key of a client."""
    stored = find(tx, name)
    keys = key_rows.list_keys(tx, "client", owner=stored.id, revoked=True)
    found = [key for key in keys if key.view.id == key_id]
    if not found:
        raise NotFoundError("client key", key_id)
    key = found[-1]
    if key.view.revoked is not None:
        return AccessKeyChange(revision=tx.revision, changed=False, access_key=key.view)
    revision = _touch(tx, stored)
    view = key_rows.mark_revoked(tx, key)
    tx.audit("client_key.revoke", view.id, name, key.masked(), None)
    return AccessKeyChange(revision=revision, changed=True, access_key=view)


def insert(tx: StoreTransaction, name: str, hashes: Iterable[str]) -> StoredClient:
    """Add a row, and those of its hashes, all checked before; the caller writes the audit."""
    revision = tx.move_revision(clients=True)
    row_id = f"cli_{new_id()}"
    tx.sql.execute(
        "INSERT INTO clients (id, position, name, created, removed, revision) "
        "VALUES (?, ?, ?, ?, NULL, ?)",
        row_id,
        tx.next_position("clients"),
        name,
        tx.now,
        revision,
    )
    keys = tuple(key_rows.insert(tx, "client", name, text, owner=row_id) for text in hashes)
    return StoredClient(id=row_id, name=name, created=tx.now, revision=revision, keys=keys)


def set_hashes(
    tx: StoreTransaction, present: StoredClient, hashes: tuple[str, ...]
) -> StoredClient:
    """Give a client exactly these keys, for a seed."""
    revision = _touch(tx, present)
    kept = {key.hash: key for key in present.keys if key.hash in hashes}
    for key in present.keys:
        if key.hash not in kept:
            key_rows.mark_revoked(tx, key)
    for text in hashes:
        if text not in kept:
            kept[text] = key_rows.insert(tx, "client", present.name, text, owner=present.id)
    stored = attrs.evolve(present, revision=revision, keys=tuple(kept.values()))
    tx.audit("client.update", stored.id, stored.name, present.masked(), stored.masked(), ("keys",))
    return stored


def _touch(tx: StoreTransaction, stored: StoredClient) -> int:
    revision = tx.move_revision(clients=True)
    tx.sql.execute("UPDATE clients SET revision = ? WHERE id = ?", revision, stored.id)
    return revision
