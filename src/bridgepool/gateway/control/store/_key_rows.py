"""The rows of keys that let somebody in: of clients, gateways and admins. Hashes only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, TypeAlias

import attrs

from bridgepool._secret import Secret
from bridgepool.gateway.control._errors import InvalidChangeError, NotFoundError
from bridgepool.gateway.control._records import AccessKeyChange, AccessKeyView, NewKey, Role
from bridgepool.gateway.control.store._transaction import StoreTransaction, to_time
from bridgepool.gateway.providers import InvalidProviderError
from bridgepool.gateway.providers._access_keys import (
    ADMIN_KEYS,
    CLIENT_KEYS,
    GATEWAY_KEYS,
    KeyFormat,
    parse_hash,
)
from bridgepool.gateway.providers._clients import check_client_id

Kind: TypeAlias = Literal["client", "gateway", "admin"]

_FORMATS: Final[dict[Kind, KeyFormat]] = {
    "client": CLIENT_KEYS,
    "gateway": GATEWAY_KEYS,
    "admin": ADMIN_KEYS,
}
_SELECT: Final = (
    "SELECT id, name, role, created, revoked, position, owner, hash FROM access_keys WHERE kind = ?"
)
_GOOD: Final = f"{_SELECT} AND revoked IS NULL"


@attrs.frozen(kw_only=True)
class StoredAccessKey:
    """A row."""

    view: AccessKeyView
    position: int
    owner: str | None
    hash: str = attrs.field(repr=False)

    def masked(self) -> dict[str, object]:
        """Return it for the audit."""
        return {"id": self.view.id, "name": self.view.name, "role": self.view.role}


def list_keys(
    tx: StoreTransaction, kind: Kind, *, owner: str | None = None, revoked: bool = False
) -> list[StoredAccessKey]:
    """Return the keys of one kind, or of one client, the oldest first."""
    select = _SELECT if revoked else _GOOD
    if owner is None:
        rows = tx.sql.fetch_all(f"{select} ORDER BY position", kind)
    else:
        rows = tx.sql.fetch_all(f"{select} AND owner = ? ORDER BY position", kind, owner)
    return [_stored(*row) for row in rows]


def authenticate(tx: StoreTransaction, kind: Kind, token: Secret) -> StoredAccessKey | None:
    """Tell whose key a token is."""
    text = token.reveal().encode("utf-8", "surrogatepass")
    key_id = _FORMATS[kind].id_of(text)
    if key_id is None:
        return None
    row = tx.sql.fetch_one(f"{_GOOD} AND id = ?", kind, key_id.decode("ascii"))
    if row is None:
        return None
    stored = _stored(*row)
    return stored if parse_hash(stored.hash).matches(text) else None


def check_name(name: str) -> None:
    """Refuse a name that a client's id could not be either; raises `InvalidChangeError`."""
    try:
        check_client_id(name)
    except InvalidProviderError as error:
        raise InvalidChangeError(f"name: {error.problem}") from None


def check_are_free(tx: StoreTransaction, hashes: Iterable[str], owner: str | None) -> None:
    """Refuse hashes of keys that other clients have; raises `InvalidChangeError`."""
    for text in hashes:
        key_id = parse_hash(text).key_id
        row = tx.sql.fetch_one(f"{_GOOD} AND id = ?", "client", key_id)
        if row is not None and _stored(*row).owner != owner:
            raise InvalidChangeError(f"key_hashes: key {key_id} is another client's")


def create(tx: StoreTransaction, kind: Kind, name: str, role: Role | None = None) -> NewKey:
    """Make a key for a gateway or an admin."""
    check_name(name)
    if kind == "gateway":
        tx.move_revision()
    stored, key = make(tx, kind, name, role=role)
    tx.audit(f"{kind}_key.add", stored.view.id, name, None, stored.masked())
    return NewKey(revision=tx.revision, changed=True, access_key=stored.view, key=key)


def revoke(tx: StoreTransaction, kind: Kind, key: str) -> AccessKeyChange:
    """Revoke the key of a gateway or an admin, found by id, or by name if one has it."""
    keys = list_keys(tx, kind, revoked=True)
    found = [stored for stored in keys if stored.view.id == key]
    if not found:
        named = [stored for stored in keys if stored.view.name == key]
        found = [stored for stored in named if stored.view.revoked is None] or named[-1:]
    if not found:
        raise NotFoundError(f"{kind} key", key)
    if len(found) > 1:
        ids = ", ".join(stored.view.id for stored in found)
        raise InvalidChangeError(f"key: {len(found)} keys have that name; say which ({ids})")
    stored = found[0]
    if stored.view.revoked is not None:
        return AccessKeyChange(revision=tx.revision, changed=False, access_key=stored.view)
    if kind == "gateway":
        tx.move_revision()
    view = mark_revoked(tx, stored)
    tx.audit(f"{kind}_key.revoke", view.id, view.name, stored.masked(), None)
    return AccessKeyChange(revision=tx.revision, changed=True, access_key=view)


def make(
    tx: StoreTransaction,
    kind: Kind,
    name: str,
    *,
    role: Role | None = None,
    owner: str | None = None,
) -> tuple[StoredAccessKey, Secret]:
    """Make a key and its row; the caller moves the revision and writes the audit."""
    key = _FORMATS[kind].new()
    hashed = _FORMATS[kind].hash(key)
    return insert(tx, kind, name, hashed, role=role, owner=owner), key


def insert(
    tx: StoreTransaction,
    kind: Kind,
    name: str,
    hashed: str,
    *,
    role: Role | None = None,
    owner: str | None = None,
) -> StoredAccessKey:
    """Add the row of a hash that has been checked."""
    key_id = parse_hash(hashed).key_id
    position = tx.next_position("access_keys")
    tx.sql.execute(
        "INSERT INTO access_keys (position, id, kind, name, owner, role, hash, created, revoked) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL)",
        position,
        key_id,
        kind,
        name,
        owner,
        role,
        hashed,
        tx.now,
    )
    view = AccessKeyView(id=key_id, name=name, created=to_time(tx.now), role=role)
    return StoredAccessKey(view=view, position=position, owner=owner, hash=hashed)


def mark_revoked(tx: StoreTransaction, stored: StoredAccessKey) -> AccessKeyView:
    """Revoke a row; the caller moves the revision and writes the audit."""
    tx.sql.execute("UPDATE access_keys SET revoked = ? WHERE position = ?", tx.now, stored.position)
    return attrs.evolve(stored.view, revoked=to_time(tx.now))


def _stored(
    key_id: str,
    name: str,
    role: Role | None,
    created: str,
    revoked: str | None,
    position: int,
    owner: str | None,
    hashed: str,
) -> StoredAccessKey:
    view = AccessKeyView(
        id=key_id,
        name=name,
        created=to_time(created),
        revoked=to_time(revoked) if revoked is not None else None,
        role=role,
    )
    return StoredAccessKey(view=view, position=position, owner=owner, hash=hashed)
