"""The seed: a provider file that declares what is to be there, beside what people decide.

Theory of operation. For each row that a seed declared, the store keeps what it said then. So
there are three versions of a row: what the seed *said* last, what it *wants* now, and what is
there (*now*). If nobody touched it (now = said), the seed's wish is done. If now = wants already,
there is nothing to do. Else it was changed by hand, and manual changes win: that is drift.
A row that was removed by hand is not made again; one that left the file is not removed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, Literal, TypeAlias

import attrs

from bridgepool.gateway.control._errors import EncryptionError, InvalidChangeError, NotFoundError
from bridgepool.gateway.control._records import Drift, SeedReport
from bridgepool.gateway.control.database import Table
from bridgepool.gateway.control.store import _audit_rows as audit_rows
from bridgepool.gateway.control.store import _client_rows as client_rows
from bridgepool.gateway.control.store import _key_rows as key_rows
from bridgepool.gateway.control.store import _provider_rows as provider_rows
from bridgepool.gateway.control.store._client_rows import StoredClient
from bridgepool.gateway.control.store._provider_rows import StoredProvider
from bridgepool.gateway.control.store._provider_settings import Rules, seed_defaults
from bridgepool.gateway.control.store._transaction import StoreTransaction
from bridgepool.gateway.providers import Client, Provider, ProviderFile
from bridgepool.gateway.providers._access_keys import parse_hash
from bridgepool.gateway.providers._client_rules import NO_RULES

Kind: TypeAlias = Literal["provider", "client"]
Fields: TypeAlias = Mapping[str, object]
Stored: TypeAlias = StoredProvider | StoredClient


@attrs.frozen(kw_only=True)
class SeedRow:
    """What the last seed said of a row, encrypted."""

    id: str
    kind: Kind
    name: str
    row_id: str
    sealed: str | None
    sealed_by: str | None


SEEDS: Final = Table("seeds", SeedRow)


@attrs.frozen
class _Record:
    """What the last seed said of a row."""

    row_id: str
    said: Fields | None
    """None when it cannot be decrypted any more."""


@attrs.define(eq=False)
class _Seeding:
    tx: StoreTransaction
    rules: Rules
    applied: list[str] = attrs.field(factory=list)
    drift: list[Drift] = attrs.field(factory=list)

    def provider(self, provider: Provider, record: _Record | None) -> None:
        """Apply one provider."""
        name = provider.name
        stored = self._find_provider(record.row_id if record is not None else name, name)
        present = stored.content if stored is not None else None
        content = self.rules.content_of_provider(provider, present)
        wants = content.seed_document()
        if stored is not None and stored.problem is not None:
            raise InvalidChangeError(f"cannot be used ({stored.problem})")
        now = present.seed_document() if present is not None else None
        if _is_to_be_done(record, stored, now, wants):
            if stored is None:
                stored = provider_rows.insert(self.tx, content)
            else:
                stored = provider_rows.update(self.tx, stored, content)
            self.applied.append(name)
        self._remember("provider", name, stored, record, wants)

    def client(self, client: Client, record: _Record | None) -> None:
        """Apply one client."""
        stored = self._find_client(client.id)
        keys = {
            text: client.key_rules.get(parse_hash(text).key_id, NO_RULES)
            for text in client.key_hashes
        }
        wants: Fields = client_rows.seed_document(client.rules, keys)
        now: Fields | None = stored.seed_document() if stored is not None else None
        if _is_to_be_done(record, stored, now, wants):
            key_rows.check_are_free(
                self.tx, client.key_hashes, stored.row.id if stored is not None else None
            )
            if stored is None:
                stored = client_rows.insert(self.tx, client.id, keys, client.rules)
                audit_rows.record(
                    self.tx, "client.add", stored.row.id, client.id, None, stored.masked()
                )
            else:
                stored = client_rows.replace(self.tx, stored, keys, client.rules)
            self.applied.append(client.id)
        self._remember("client", client.id, stored, record, wants)

    def left_out(self, kind: Kind, name: str, record: _Record) -> None:
        """Deal with a row that the seed does not declare any more."""
        if kind == "provider":
            stored: Stored | None = self._find_provider(record.row_id, "")
        else:
            stored = self._find_client(name)
        if stored is None or stored.row.id != record.row_id:
            self.tx.sql.execute("DELETE FROM seeds WHERE id = ?", f"{kind} {name}")
        else:
            reason = "is not in the seed any more; it stays until it is removed"
            self.drift.append(Drift(kind, name, reason))

    def _find_provider(self, row_id: str, name: str) -> StoredProvider | None:
        for text in (row_id, name):
            with suppress(NotFoundError):
                return provider_rows.find(self.tx, text)
        return None

    def _find_client(self, name: str) -> StoredClient | None:
        with suppress(NotFoundError):
            return client_rows.find(self.tx, name)
        return None

    def _remember(
        self,
        kind: Kind,
        name: str,
        stored: Stored | None,
        record: _Record | None,
        wants: Fields,
    ) -> None:
        if stored is None:
            return
        if record is not None and record.row_id == stored.row.id and record.said == wants:
            return
        sealed, sealed_by = self.tx.seal(json.dumps(wants))
        row = SeedRow(
            id=f"{kind} {name}",
            kind=kind,
            name=name,
            row_id=stored.row.id,
            sealed=sealed,
            sealed_by=sealed_by,
        )
        SEEDS.upsert(self.tx.sql, row)


def seed(tx: StoreTransaction, declared: ProviderFile, rules: Rules) -> SeedReport:
    """Apply what a provider file declares; see the head of this module."""
    seeding = _Seeding(tx, rules)
    records = _records(tx)
    for provider in declared.providers:
        try:
            seeding.provider(provider, records.pop(("provider", provider.name), None))
        except InvalidChangeError as error:
            seeding.drift.append(Drift("provider", provider.name, str(error)))
    for client in declared.clients.rows:
        try:
            seeding.client(client, records.pop(("client", client.id), None))
        except InvalidChangeError as error:
            seeding.drift.append(Drift("client", client.id, str(error)))
    for (kind, name), record in records.items():
        seeding.left_out(kind, name, record)
    return SeedReport(tx.revision, tx.changed, tuple(seeding.applied), tuple(seeding.drift))


def _is_to_be_done(
    record: _Record | None, stored: Stored | None, now: Fields | None, wants: Fields
) -> bool:
    """Tell whether the seed's wish is to be done; raises `InvalidChangeError` for drift."""
    if now == wants:
        return False
    if record is None:
        if now is None:
            return True
        raise InvalidChangeError(
            f"was made by hand, and differs from the seed in {_difference(now, wants)}"
        )
    if now is None or stored is None:
        raise InvalidChangeError("was removed by hand")
    if stored.row.id != record.row_id:
        raise InvalidChangeError(
            "was removed and recreated by hand, and differs from the seed in "
            f"{_difference(now, wants)}"
        )
    if record.said is None:
        raise InvalidChangeError("may have been changed by hand: the last seed cannot be decrypted")
    if now != record.said:
        raise InvalidChangeError(f"was changed by hand: {_difference(now, record.said)}")
    return True


def _difference(one: Fields, other: Fields) -> str:
    return ", ".join(name for name, value in one.items() if value != other.get(name))


def _records(tx: StoreTransaction) -> dict[tuple[Kind, str], _Record]:
    records: dict[tuple[Kind, str], _Record] = {}
    for row in SEEDS.select(tx.sql, "ORDER BY id"):
        try:
            said = json.loads(tx.unseal(row.sealed, row.sealed_by))
            if row.kind == "provider":
                said = seed_defaults(said)
            else:
                said = {"rules": {}, "key_rules": {}, **said}
        except (EncryptionError, ValueError):
            said = None
        records[row.kind, row.name] = _Record(row.row_id, said)
    return records
