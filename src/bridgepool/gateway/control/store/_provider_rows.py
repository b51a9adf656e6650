"""The providers' rows: found, shown, added, changed and removed, inside one transaction."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

import attrs
import msgspec

from bridgepool.gateway.control._errors import (
    ConflictError,
    EncryptionError,
    InvalidChangeError,
    NameTakenError,
    NotFoundError,
)
from bridgepool.gateway.control._records import (
    ProviderChange,
    ProviderDraft,
    ProviderPatch,
    ProviderView,
)
from bridgepool.gateway.control.database import Table
from bridgepool.gateway.control.store import _audit_rows as audit_rows
from bridgepool.gateway.control.store._provider_settings import (
    COLUMNS,
    Content,
    Rules,
    from_sealed,
    to_sealed,
)
from bridgepool.gateway.control.store._transaction import StoreTransaction
from bridgepool.gateway.providers._access_keys import new_id

_AT_ONCE: Final = 20  # rows that are decrypted without a pause; some 20 µs each
NONE_LEFT: Final = (
    "allow_empty: no enabled provider would be left, and gateways would refuse every request; "
    "set it (--allow-empty) if that is intended"
)
_NONE: Final[Mapping[str, Content]] = MappingProxyType({})


@attrs.frozen(kw_only=True)
class StoredRow:
    """A row; `sealed` is its encrypted document, and nothing in a row that was removed."""

    id: str
    position: int
    name: str
    type: str
    enabled: bool
    sealed: str | None = attrs.field(repr=False)
    sealed_by: str | None
    created: datetime
    updated: datetime
    removed: datetime | None = None
    revision: int


PROVIDERS: Final = Table("providers", StoredRow)


@attrs.frozen(kw_only=True)
class StoredProvider:
    """A living row with its document decrypted."""

    row: StoredRow
    content: Content
    problem: str | None = None
    """Why the document cannot be read; then `content` has only what has a column."""

    def view(self) -> ProviderView:
        """Mask it."""
        return ProviderView(
            **self.content.masked(),
            id=self.row.id,
            created=self.row.created,
            updated=self.row.updated,
            revision=self.row.revision,
            problem=self.problem,
        )

    def masked(self) -> dict[str, object]:
        """Return it for the audit."""
        if self.problem is None:
            masked: dict[str, object] = msgspec.to_builtins(self.content.masked())
            return masked
        return _columns(self.content)


def living(tx: StoreTransaction, known: Mapping[str, Content] = _NONE) -> list[StoredProvider]:
    """Return all living providers, in the order in which they were added.

    Args:
        tx: The transaction.
        known: Contents by their encrypted documents: those need not be decrypted again.
    """
    stored: list[StoredProvider] = []
    for row in PROVIDERS.select(tx.sql, "WHERE removed IS NULL ORDER BY position"):
        stored.append(_stored(tx, row, known))
        if len(stored) % _AT_ONCE == 0:
            time.sleep(0)  # lets the threads go on that wait for the interpreter's lock
    return stored


def find(tx: StoreTransaction, name: str) -> StoredProvider:
    """Return one by its name or its id; raises `NotFoundError`."""
    # Ids hold a "_" and names cannot, so one cannot be taken for the other.
    row = PROVIDERS.find(tx.sql, "WHERE removed IS NULL AND (name = ? OR id = ?)", name, name)
    if row is None:
        raise NotFoundError("provider", name)
    return _stored(tx, row)


def add(tx: StoreTransaction, draft: ProviderDraft, rules: Rules) -> ProviderChange:
    """Add one that was drafted."""
    content = rules.content_of_draft(draft)
    _check_name_is_free(tx, content.name)
    _check_fallback(tx, content)
    return _change(tx, insert(tx, content), True)


def change(
    tx: StoreTransaction,
    name: str,
    patch: ProviderPatch,
    if_revision: int | None,
    allow_empty: bool,
    rules: Rules,
) -> ProviderChange:
    """Change one as the patch says."""
    present = find(tx, name)
    _check_revision(present, if_revision)
    if present.row.enabled and patch.fields.get("enabled") is False:
        _check_another_is_enabled(tx, present, allow_empty)
    tx.repairing = present.problem is not None
    enabled = patch.fields.get("enabled")
    if isinstance(enabled, bool) and len(patch.fields) == 1:
        stored = _switch(tx, present, enabled)
        return _change(tx, stored, stored is not present)
    if present.problem is not None and "base_url" not in patch.fields:
        raise InvalidChangeError(
            f"its stored settings cannot be used ({present.problem}); give base_url, keys "
            "and headers again, switch it off, or remove it"
        )
    content = rules.content_of_patch(present.content, patch)
    if content.name != present.content.name:
        _check_name_is_free(tx, content.name)
    if patch.fields.keys() & {"fallback", "type"}:
        _check_fallback(tx, content)
    stored = update(tx, present, content)
    return _change(tx, stored, stored is not present)


def _check_fallback(tx: StoreTransaction, content: Content) -> None:
    """Refuse a provider of another type in its `fallback`; one that is not there may come."""
    for name in content.fallback:
        row = PROVIDERS.find(tx.sql, "WHERE removed IS NULL AND name = ?", name)
        if row is not None and row.type != content.type:
            raise InvalidChangeError(fallback_problem(name))


def fallback_problem(name: str) -> str:
    """Say that a provider cannot be the fallback of another."""
    return f"fallback: {name} is of another type"


def _change(tx: StoreTransaction, stored: StoredProvider, changed: bool) -> ProviderChange:
    return ProviderChange(revision=tx.revision, changed=changed, provider=stored.view())


def remove(
    tx: StoreTransaction, name: str, if_revision: int | None, allow_empty: bool
) -> ProviderChange:
    """Remove one."""
    present = find(tx, name)
    _check_revision(present, if_revision)
    if present.row.enabled:
        _check_another_is_enabled(tx, present, allow_empty)
    tx.repairing = present.problem is not None
    delete(tx, present)
    return _change(tx, present, True)


def insert(tx: StoreTransaction, content: Content) -> StoredProvider:
    """Add a row whose content has been checked and whose name is free."""
    sealed, sealed_by = tx.seal(to_sealed(content))
    row = StoredRow(
        id=f"prv_{new_id()}",
        position=PROVIDERS.next(tx.sql),
        **_columns(content),
        sealed=sealed,
        sealed_by=sealed_by,
        created=tx.now,
        updated=tx.now,
        revision=tx.move_revision(providers=True),
    )
    PROVIDERS.insert(tx.sql, row)
    stored = StoredProvider(row=row, content=content)
    audit_rows.record(tx, "provider.add", row.id, row.name, None, stored.masked())
    return stored


def update(tx: StoreTransaction, present: StoredProvider, content: Content) -> StoredProvider:
    """Give a row its new content, checked before; the same row comes back if nothing differs."""
    fields = content.differs_in(present.content)
    if not fields and present.problem is None:
        return present
    sealed, sealed_by = tx.seal(to_sealed(content))
    row = attrs.evolve(present.row, **_columns(content), sealed=sealed, sealed_by=sealed_by)
    return _write(tx, present, StoredProvider(row=row, content=content), fields)


def delete(tx: StoreTransaction, present: StoredProvider) -> None:
    """Remove a row: its name is free again, its secrets are gone."""
    revision = tx.move_revision(providers=True)
    row = attrs.evolve(present.row, removed=tx.now, revision=revision, sealed=None, sealed_by=None)
    PROVIDERS.update(tx.sql, row)
    audit_rows.record(tx, "provider.remove", row.id, row.name, present.masked(), None)


def _switch(tx: StoreTransaction, present: StoredProvider, enabled: bool) -> StoredProvider:
    """Enable or disable it and leave the rest as it is, which may break a rule of today."""
    if enabled == present.content.enabled:
        return present
    stored = attrs.evolve(
        present,
        row=attrs.evolve(present.row, enabled=enabled),
        content=attrs.evolve(present.content, enabled=enabled),
    )
    return _write(tx, present, stored, ("enabled",))


def _write(
    tx: StoreTransaction, present: StoredProvider, stored: StoredProvider, fields: tuple[str, ...]
) -> StoredProvider:
    row = attrs.evolve(stored.row, updated=tx.now, revision=tx.move_revision(providers=True))
    PROVIDERS.update(tx.sql, row)
    audit_rows.record(
        tx, "provider.update", row.id, row.name, present.masked(), stored.masked(), fields
    )
    return attrs.evolve(stored, row=row)


def _stored(
    tx: StoreTransaction, row: StoredRow, known: Mapping[str, Content] = _NONE
) -> StoredProvider:
    columns = {name: getattr(row, name) for name in COLUMNS}
    content, problem = known.get(row.sealed or ""), None
    if content is None:
        try:
            content = from_sealed(tx.unseal(row.sealed, row.sealed_by), columns)
        except (EncryptionError, ValueError) as error:
            content, problem = Content(base_url="", **columns), str(error)
    elif _columns(content) != columns:
        content = attrs.evolve(content, **columns)
    return StoredProvider(row=row, content=content, problem=problem)


def _columns(content: Content) -> dict[str, Any]:
    return {name: getattr(content, name) for name in COLUMNS}


def _check_name_is_free(tx: StoreTransaction, name: str) -> None:
    taken = "SELECT 1 FROM providers WHERE name = ? AND removed IS NULL"
    if tx.sql.fetch_one(taken, name) is not None:
        raise NameTakenError("provider", name)


def _check_another_is_enabled(
    tx: StoreTransaction, present: StoredProvider, allow_empty: bool
) -> None:
    others = "SELECT 1 FROM providers WHERE removed IS NULL AND enabled = 1 AND id <> ?"
    if not allow_empty and tx.sql.fetch_one(others, present.row.id) is None:
        raise InvalidChangeError(NONE_LEFT)


def _check_revision(present: StoredProvider, if_revision: int | None) -> None:
    if if_revision is not None and if_revision != present.row.revision:
        raise ConflictError("provider", present.content.name, if_revision, present.row.revision)
