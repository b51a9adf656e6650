"""The rows of the keys of clients, gateways and admins; they hold hashes only."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

import attrs

from bridgepool._secret import Secret
from bridgepool.gateway.control._errors import InvalidChangeError, NotFoundError
from bridgepool.gateway.control._records import (
    AccessKeyChange,
    AccessKeyView,
    KeyKind,
    NewKey,
    Role,
)
from bridgepool.gateway.control.database import Codec, Table
from bridgepool.gateway.control.store import _audit_rows as audit_rows
from bridgepool.gateway.control.store._transaction import StoreTransaction
from bridgepool.gateway.providers import ClientRules, InvalidProviderError
from bridgepool.gateway.providers._access_keys import (
    ADMIN_KEYS,
    CLIENT_KEYS,
    GATEWAY_KEYS,
    KeyFormat,
    parse_hash,
    token_bytes,
)
from bridgepool.gateway.providers._client_rules import (
    NO_RULES,
    rules_document,
    rules_from_text,
    rules_to_text,
)
from bridgepool.gateway.providers._clients import check_client_id

_FORMATS: Final[dict[KeyKind, KeyFormat]] = {
    "client": CLIENT_KEYS,
    "gateway": GATEWAY_KEYS,
    "admin": ADMIN_KEYS,
}


@attrs.frozen(kw_only=True)
class KeyRow:
    """A row; `owner` is the row of a client."""

    position: int
    id: str
    kind: KeyKind
    name: str
    owner: str | None
    role: Role | None
    hash: str = attrs.field(repr=False)
    created: datetime
    revoked: datetime | None = None
    rules: ClientRules = NO_RULES
    """Of a client's key."""

    def view(self) -> AccessKeyView:
        """Return it without its hash."""
        return AccessKeyView(
            id=self.id,
            name=self.name,
            created=self.created,
            revoked=self.revoked,
            role=self.role,
            rules=self.rules,
        )

    def masked(self) -> dict[str, object]:
        """Return it for the audit."""
        fields: dict[str, object] = {"id": self.id, "name": self.name, "role": self.role}
        return fields if self.rules == NO_RULES else {**fields, "rules": rules_document(self.rules)}


RULES_CODEC: Final = Codec(rules_to_text, rules_from_text)
KEYS: Final = Table("access_keys", KeyRow, key="position", codecs={"rules": RULES_CODEC})


def list_keys(
    tx: StoreTransaction, kind: KeyKind, *, owner: str | None = None, revoked: bool = False
) -> list[KeyRow]:
    """Return the keys of one kind, or of one client, the oldest first."""
    clauses, args = ["WHERE kind = ?"], [str(kind)]
    if not revoked:
        clauses.append("AND revoked IS NULL")
    if owner is not None:
        clauses.append("AND owner = ?")
        args.append(owner)
    return KEYS.select(tx.sql, f"{' '.join(clauses)} ORDER BY position", *args)


def authenticate(tx: StoreTransaction, kind: KeyKind, token: Secret) -> AccessKeyView | None:
    """Return whose key a token is."""
    text = token_bytes(token)
    key_id = _FORMATS[kind].id_of(text)
    row = _find_good(tx, kind, key_id.decode("ascii")) if key_id is not None else None
    if row is None:
        return None
    return row.view() if parse_hash(row.hash).matches(text) else None


def _find_good(tx: StoreTransaction, kind: KeyKind, key_id: str) -> KeyRow | None:
    return KEYS.find(tx.sql, "WHERE kind = ? AND id = ? AND revoked IS NULL", kind, key_id)


def check_are_free(tx: StoreTransaction, hashes: Iterable[str], owner: str | None) -> None:
    """Refuse hashes of keys that other clients have; raises `InvalidChangeError`."""
    for text in hashes:
        key_id = parse_hash(text).key_id
        row = _find_good(tx, "client", key_id)
        if row is not None and row.owner != owner:
            raise InvalidChangeError(f"key_hashes: key {key_id} is another client's")


def create(
    tx: StoreTransaction,
    kind: KeyKind,
    name: str,
    role: Role | None = None,
    owner: str | None = None,
    rules: ClientRules = NO_RULES,
) -> NewKey:
    """Make a key; the caller moves the revision for one of a client."""
    try:
        check_client_id(name)
    except InvalidProviderError as error:
        raise InvalidChangeError(f"name: {error.problem}") from None
    if kind == "gateway":
        tx.move_revision()
    row, key = make(tx, kind, name, role, owner, rules)
    audit_rows.record(tx, f"{kind}_key.add", row.id, name, None, row.masked())
    return NewKey(revision=tx.revision, changed=True, access_key=row.view(), key=key)


def revoke(tx: StoreTransaction, kind: KeyKind, key: str) -> AccessKeyChange:
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
        raise InvalidChangeError(
            f"key: {len(found)} keys have that name; specify one by its id ({ids})"
        )
    return revoke_row(tx, found[0])


def revoke_row(tx: StoreTransaction, row: KeyRow) -> AccessKeyChange:
    """Revoke a key, if that was not done before; the caller moves the revision for a client's."""
    if row.revoked is not None:
        return AccessKeyChange(revision=tx.revision, changed=False, access_key=row.view())
    if row.kind == "gateway":
        tx.move_revision()
    revoked = mark_revoked(tx, row)
    audit_rows.record(tx, f"{row.kind}_key.revoke", row.id, row.name, row.masked(), None)
    return AccessKeyChange(revision=tx.revision, changed=True, access_key=revoked.view())


def record_refused(tx: StoreTransaction, kind: KeyKind) -> None:
    """Write the audit of a key that was refused; of the key itself nothing is known."""
    audit_rows.record(tx, f"{kind}_key.refuse", "", tx.actor.name, None, None)


def make(
    tx: StoreTransaction,
    kind: KeyKind,
    name: str,
    role: Role | None,
    owner: str | None,
    rules: ClientRules = NO_RULES,
) -> tuple[KeyRow, Secret]:
    """Make a key and its row; the caller moves the revision and writes the audit."""
    key = _FORMATS[kind].new()
    return insert(tx, kind, name, _FORMATS[kind].hash(key), role, owner, rules), key


def insert(
    tx: StoreTransaction,
    kind: KeyKind,
    name: str,
    hashed: str,
    role: Role | None,
    owner: str | None,
    rules: ClientRules = NO_RULES,
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
        rules=rules,
    )
    KEYS.insert(tx.sql, row)
    return row


def set_rules(tx: StoreTransaction, row: KeyRow, rules: ClientRules) -> KeyRow:
    """Replace the rules of a client's key; the caller moves the revision and writes the audit."""
    changed = attrs.evolve(row, rules=rules)
    KEYS.update(tx.sql, changed)
    return changed


def mark_revoked(tx: StoreTransaction, row: KeyRow) -> KeyRow:
    """Revoke a row; the caller moves the revision and writes the audit."""
    revoked = attrs.evolve(row, revoked=tx.now)
    KEYS.update(tx.sql, revoked)
    return revoked
