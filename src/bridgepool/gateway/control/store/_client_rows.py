"""The clients' rows: found, shown, added and removed, and their keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

import attrs

from bridgepool.gateway.control._errors import (
    ConflictError,
    InvalidChangeError,
    NameTakenError,
    NotFoundError,
)
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
from bridgepool.gateway.providers import Client, ClientRules, Clients, InvalidProviderError
from bridgepool.gateway.providers._access_keys import new_id
from bridgepool.gateway.providers._client_rules import (
    NO_RULES,
    RuleChanges,
    idle_patterns,
    rule_problems,
    rules_document,
)
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
    rules: ClientRules = NO_RULES


CLIENTS: Final = Table("clients", ClientRow, codecs={"rules": key_rows.RULES_CODEC})


@attrs.frozen(kw_only=True)
class StoredClient:
    """A living row with its good keys."""

    row: ClientRow
    keys: tuple[KeyRow, ...]

    def view(self) -> ClientView:
        """Return it without hashes."""
        return ClientView(
            id=self.row.name,
            keys=tuple(key.view() for key in self.keys),
            created=self.row.created,
            revision=self.row.revision,
            rules=self.row.rules,
        )

    def masked(self) -> dict[str, object]:
        """Return it for the audit."""
        fields: dict[str, object] = {"id": self.row.name, "keys": [key.id for key in self.keys]}
        key_rules = {key.id: rules_document(key.rules) for key in self.keys}
        if self.row.rules != NO_RULES:
            fields["rules"] = rules_document(self.row.rules)
        if any(key_rules.values()):
            fields["key_rules"] = key_rules
        return fields

    def client(self) -> Client:
        """Return it as gateways know it; it has a good key."""
        return Client(
            id=self.row.name,
            key_hashes=self.hashes(),
            rules=self.row.rules,
            key_rules={key.id: key.rules for key in self.keys if key.rules != NO_RULES},
        )

    def seed_document(self) -> dict[str, object]:
        """Return what a seed can say of it."""
        return seed_document(self.row.rules, {key.hash: key.rules for key in self.keys})

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
    return Clients(stored.client() for stored in living(tx) if stored.keys)


def seed_document(rules: ClientRules, keys: Mapping[str, ClientRules]) -> dict[str, object]:
    """Return what a seed says of a client: its rules, and those of each key by its hash."""
    key_rules = {text: rules_document(keys[text]) for text in sorted(keys)}
    return {
        "keys": list(key_rules),
        "rules": rules_document(rules),
        "key_rules": {text: document for text, document in key_rules.items() if document},
    }


def add(
    tx: StoreTransaction,
    name: str,
    hashes: Iterable[str] | None,
    rules: RuleChanges | None = None,
    key_rules: RuleChanges | None = None,
) -> NewClient:
    """Add a client, with a new key, which `key_rules` are for, or with hashes."""
    made_rules = _changed(NO_RULES, rules or {})
    new_key_rules = _changed(NO_RULES, key_rules or {}, "key_rules")
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
    stored = insert(tx, name, dict.fromkeys(hashes or (), new_key_rules), made_rules)
    key = None
    if hashes is None:
        made, key = key_rows.make(tx, "client", name, None, stored.row.id, new_key_rules)
        stored = attrs.evolve(stored, keys=(made,))
    audit_rows.record(tx, "client.add", stored.row.id, name, None, stored.masked())
    return NewClient(revision=tx.revision, changed=True, client=stored.view(), key=key)


def remove(tx: StoreTransaction, name: str) -> ClientChange:
    """Remove a client and revoke its keys."""
    stored = find(tx, name)
    revision = tx.move_revision(clients=True)
    for key in stored.keys:
        key_rows.mark_revoked(tx, key)
    CLIENTS.update(tx.sql, attrs.evolve(stored.row, removed=tx.now, revision=revision))
    audit_rows.record(tx, "client.remove", stored.row.id, name, stored.masked(), None)
    return ClientChange(revision=revision, changed=True, client=stored.view())


def change(
    tx: StoreTransaction, name: str, rules: RuleChanges, if_revision: int | None
) -> ClientChange:
    """Change rules of a client."""
    stored = find(tx, name)
    if if_revision is not None and stored.row.revision != if_revision:
        raise ConflictError("client", name, if_revision, stored.row.revision)
    changed = _changed(stored.row.rules, rules)
    if changed == stored.row.rules:
        return ClientChange(revision=tx.revision, changed=False, client=stored.view())
    after = attrs.evolve(stored, row=_touch(tx, stored.row, changed))
    audit_rows.record(
        tx, "client.update", stored.row.id, name, stored.masked(), after.masked(), ("rules",)
    )
    return ClientChange(revision=tx.revision, changed=True, client=after.view())


def add_key(tx: StoreTransaction, name: str, rules: RuleChanges | None = None) -> NewKey:
    """Make one more key for a client."""
    stored = find(tx, name)
    made_rules = _changed(NO_RULES, rules or {})
    _touch(tx, stored.row)
    return key_rows.create(tx, "client", name, owner=stored.row.id, rules=made_rules)


def change_key(tx: StoreTransaction, name: str, key_id: str, rules: RuleChanges) -> AccessKeyChange:
    """Change rules of one good key of a client."""
    stored = find(tx, name)
    key = next((key for key in stored.keys if key.id == key_id), None)
    if key is None:
        raise NotFoundError("client key", key_id)
    changed = _changed(key.rules, rules)
    if changed == key.rules:
        return AccessKeyChange(revision=tx.revision, changed=False, access_key=key.view())
    _touch(tx, stored.row)
    after = key_rows.set_rules(tx, key, changed)
    audit_rows.record(
        tx, "client_key.update", key.id, name, key.masked(), after.masked(), ("rules",)
    )
    return AccessKeyChange(revision=tx.revision, changed=True, access_key=after.view())


def _changed(rules: ClientRules, changes: RuleChanges, where: str = "rules") -> ClientRules:
    changed = attrs.evolve(rules, **dict[str, Any](changes))
    problems = [f"{where}.{name}: {problem}" for name, problem in rule_problems(changed)]
    # Only of what is set now: rules that are in the store already stay as they are.
    problems += [f"{where}.{name}: {problem}" for name, problem in idle_patterns(changes)]
    if problems:
        raise InvalidChangeError(*problems)
    return changed


def revoke_key(tx: StoreTransaction, name: str, key_id: str) -> AccessKeyChange:
    """Revoke one key of a client."""
    stored = find(tx, name)
    keys = key_rows.list_keys(tx, "client", owner=stored.row.id, revoked=True)
    found = [key for key in keys if key.id == key_id]
    if not found:
        raise NotFoundError("client key", key_id)
    if found[-1].revoked is None:
        _touch(tx, stored.row)
    return key_rows.revoke_row(tx, found[-1])


def insert(
    tx: StoreTransaction,
    name: str,
    keys: Mapping[str, ClientRules],
    rules: ClientRules = NO_RULES,
) -> StoredClient:
    """Add a row, and those of its keys by their hashes, all checked before.

    The caller writes the audit.
    """
    row = ClientRow(
        id=f"cli_{new_id()}",
        position=CLIENTS.next(tx.sql),
        name=name,
        created=tx.now,
        revision=tx.move_revision(clients=True),
        rules=rules,
    )
    CLIENTS.insert(tx.sql, row)
    made = [
        key_rows.insert(tx, "client", name, text, None, row.id, its_rules)
        for text, its_rules in keys.items()
    ]
    return StoredClient(row=row, keys=tuple(made))


def replace(
    tx: StoreTransaction,
    present: StoredClient,
    keys: Mapping[str, ClientRules],
    rules: ClientRules,
) -> StoredClient:
    """Give a client exactly these keys and rules, for a seed."""
    row = _touch(tx, present.row, rules)
    kept = {key.hash: key for key in present.keys if key.hash in keys}
    for key in present.keys:
        if key.hash not in kept:
            key_rows.mark_revoked(tx, key)
    for text, its_rules in keys.items():
        if text not in kept:
            kept[text] = key_rows.insert(
                tx, "client", row.name, text, None, present.row.id, its_rules
            )
        elif kept[text].rules != its_rules:
            kept[text] = key_rows.set_rules(tx, kept[text], its_rules)
    stored = StoredClient(row=row, keys=tuple(kept.values()))
    before, after = present.seed_document(), stored.seed_document()
    fields = tuple(name for name in after if before[name] != after[name])
    audit_rows.record(
        tx, "client.update", row.id, row.name, present.masked(), stored.masked(), fields
    )
    return stored


def _touch(tx: StoreTransaction, row: ClientRow, rules: ClientRules | None = None) -> ClientRow:
    touched = attrs.evolve(
        row,
        revision=tx.move_revision(clients=True),
        rules=row.rules if rules is None else rules,
    )
    CLIENTS.update(tx.sql, touched)
    return touched
