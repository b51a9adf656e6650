"""The rows of the keys of clients, gateways and admins; they hold hashes only."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final, Literal, TypeAlias

import attrs

from bridgepool._secret import Secret
from bridgepool.gateway.control._errors import InvalidChangeError, NotFoundError
from bridgepool.gateway.control._records import AccessKeyChange, AccessKeyView, NewKey, Role
from bridgepool.gateway.control.database import Table
from bridgepool.gateway.control.store import _audit_rows as audit_rows
from bridgepool.gateway.control.store._transaction import StoreTransaction
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


@attrs.frozen(kw_only=True)
class KeyRow:
    """A row; `owner` is the row of a client."""

    position: int
    id: str
    kind: Kind
    name: str
    owner: str | None
    role: Role | None
    hash: str = attrs.field(repr=False)
    created: datetime
    revoked: datetime | None = None

    def view(self) -> AccessKeyView:
        """Return it without its hash."""
        return AccessKeyView(
            id=self.id,
            name=self.name,
            created=self.created,
            revoked=self.revoked,
            role=self.role,
        )

    def masked(self) -> dict[str, object]:
        """Return it for the audit."""
        return {"id": self.id, "name": self.name, "role": self.role}


KEYS: Final = Table("access_keys", KeyRow, key="position")


def list_keys(
    tx: StoreTransaction, kind: Kind, *, owner: str | None = None, revoked: bool = False
) -> list[KeyRow]:
    """Return the keys of one kind, or of one client, the oldest first."""
    clauses, args = ["WHERE kind = ?"], [str(kind)]
    if not revoked:
        clauses.append("AND revoked IS NULL")
    if owner is not None:
        clauses.append("AND owner = ?")
        args.append(owner)
    return KEYS.select(tx.sql, f"{' '.join(clauses)} ORDER BY position", *args)


def views(tx: StoreTransaction, kind: Kind, revoked: bool) -> tuple[AccessKeyView, ...]:
    """Return the keys of one kind, the oldest first, without their hashes."""
    return tuple(row.view() for row in list_keys(tx, kind, revoked=revoked))


def authenticate(tx: StoreTransaction, kind: Kind, token: Secret) -> AccessKeyView | None:
    """Return whose key a token is."""
    text = token.reveal().encode("utf-8", "surrogatepass")
    key_id = _FORMATS[kind].id_of(text)
    row = _find_good(tx, kind, key_id.decode("ascii")) if key_id is not None else None
    if row is None:
        return None
    return row.view() if parse_hash(row.hash).matches(text) else None


def _find_good(tx: StoreTransaction, kind: Kind, key_id: str) -> KeyRow | None:
    return KEYS.find(tx.sql, "WHERE kind = ? AND id = ? AND revoked IS NULL", kind, key_id)


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
        row = _find_good(tx, "client", key_id)
        if row is not None and row.owner != owner:
            raise InvalidChangeError(f"key_hashes: key {key_id} is another client's")


def create(tx: StoreTransaction, kind: Kind, name: str, role: Role | None = None) -> NewKey:
    """Make a key for a gateway or an admin."""
    check_name(name)
    if kind == "gateway":
        tx.move_revision()
    stored, key = make(tx, kind, name, role=role)
    audit_rows.record(tx, f"{kind}_key.add", stored.id, name, None, stored.masked())
    return NewKey(revision=tx.revision, changed=True, access_key=stored.view(), key=key)


def revoke(tx: StoreTransaction, kind: Kind, key: str) -> AccessKeyChange:
    """Revoke the key of a gateway or an admin, found by id, or by name if one has it."""
    keys = list_keys(tx, kind, revoked=True)
    found = [stored for stored in keys if stored.id == key]
    if not found:
        named = [stored for stored in keys if stored.name == key]
        found = [stored for stored in named if stored.revoked is None] or named[-1:]
    if not found:
        raise NotFoundError(f"{kind} key", key)
    if len(found) > 1:
        ids = ", ".join(stored.id for stored in found)
        raise InvalidChangeError(f"key: {len(found)} keys have that name; say which ({ids})")
    stored = found[0]
    if stored.revoked is not None:
        return AccessKeyChange(revision=tx.revision, changed=False, access_key=stored.view())
    if kind == "gateway":
        tx.move_revision()
    revoked = mark_revoked(tx, stored)
    audit_rows.record(tx, f"{kind}_key.revoke", stored.id, stored.name, stored.masked(), None)
    return AccessKeyChange(revision=tx.revision, changed=True, access_key=revoked.view())


def make(
    tx: StoreTransaction,
    kind: Kind,
    name: str,
    *,
    role: Role | None = None,
    owner: str | None = None,
) -> tuple[KeyRow, Secret]:
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
) -> KeyRow:
    """Add the row of a hash that has been checked."""
    row = KeyRow(
        position=KEYS.next(tx.sql),
        id=parse_hash(hashed).key_id,
        kind=kind,
        name=name,
        owner=owner,
        role=role,
        hash=hashed,
        created=tx.now,
    )
    KEYS.insert(tx.sql, row)
    return row


def mark_revoked(tx: StoreTransaction, row: KeyRow) -> KeyRow:
    """Revoke a row; the caller moves the revision and writes the audit."""
    revoked = attrs.evolve(row, revoked=tx.now)
    KEYS.update(tx.sql, revoked)
    return revoked
