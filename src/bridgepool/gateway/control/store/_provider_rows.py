"""The providers' rows: found, shown, added, changed and removed, inside one transaction."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final

import attrs

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
    Unset,
)
from bridgepool.gateway.control.database import Table
from bridgepool.gateway.control.store import _audit_rows as audit_rows
from bridgepool.gateway.control.store._provider_settings import (
    MASK,
    Content,
    Settings,
    content_of_draft,
    content_of_patch,
)
from bridgepool.gateway.control.store._transaction import StoreTransaction
from bridgepool.gateway.providers._access_keys import new_id

_AT_ONCE: Final = 20  # rows that are decrypted without a pause; some 20 µs each
_UNREADABLE: Final = Settings(base_url="")
_NONE: Final[Mapping[str, Settings]] = MappingProxyType({})


@attrs.frozen(kw_only=True)
class StoredRow:
    """A row; `sealed` holds the settings, encrypted, and nothing in a row that was removed."""

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
    """A living row with its settings decrypted."""

    row: StoredRow
    content: Content
    problem: str | None = None
    """Why the settings could not be decrypted; then they are empty in `content`."""

    @property
    def id(self) -> str:
        """The id of the row."""
        return self.row.id

    def view(self) -> ProviderView:
        """Mask it."""
        settings = self.content.settings
        return ProviderView(
            id=self.id,
            name=self.content.name,
            type=self.content.type,
            base_url=settings.base_url,
            enabled=self.content.enabled,
            keys=tuple(key.view() for key in settings.keys),
            key_env=settings.key_env,
            client_keys=settings.client_keys,
            headers={name: MASK for name, _value in settings.headers},
            allow_private=settings.allow_private,
            created=self.row.created,
            updated=self.row.updated,
            revision=self.row.revision,
            problem=self.problem,
        )

    def masked(self) -> dict[str, object]:
        """Return it for the audit."""
        if self.problem is None:
            return self.content.masked()
        content = self.content
        return {"name": content.name, "type": content.type, "enabled": content.enabled}


def living(tx: StoreTransaction, known: Mapping[str, Settings] = _NONE) -> list[StoredProvider]:
    """Return all living providers, in the order in which they were added.

    Args:
        tx: The transaction.
        known: Settings by what they are encrypted: those need not be decrypted again.
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


def add(tx: StoreTransaction, draft: ProviderDraft, max_keys: int) -> ProviderChange:
    """Add one that was drafted."""
    content = content_of_draft(draft, None, max_keys)
    _check_name_is_free(tx, content.name)
    stored = insert(tx, content)
    return ProviderChange(revision=tx.revision, changed=True, provider=stored.view())


def change(
    tx: StoreTransaction, name: str, patch: ProviderPatch, if_revision: int | None, max_keys: int
) -> ProviderChange:
    """Change one as the patch says."""
    present = find(tx, name)
    _check_revision(present, if_revision)
    if present.problem is not None:
        if not isinstance(patch.enabled, Unset) and patch == ProviderPatch(enabled=patch.enabled):
            stored = _switch(tx, present, patch.enabled)
            return _change(tx, stored, stored is not present)
        if isinstance(patch.base_url, Unset):
            raise InvalidChangeError(
                f"its stored settings cannot be used ({present.problem}); give base_url, keys "
                "and headers anew, switch it off, or remove it"
            )
    content = content_of_patch(present.content, patch, max_keys)
    if content.name != present.content.name:
        _check_name_is_free(tx, content.name)
    stored = update(tx, present, content)
    return _change(tx, stored, stored is not present)


def _change(tx: StoreTransaction, stored: StoredProvider, changed: bool) -> ProviderChange:
    return ProviderChange(revision=tx.revision, changed=changed, provider=stored.view())


def remove(tx: StoreTransaction, name: str, if_revision: int | None) -> ProviderChange:
    """Remove one."""
    present = find(tx, name)
    _check_revision(present, if_revision)
    delete(tx, present)
    return ProviderChange(revision=tx.revision, changed=True, provider=present.view())


def insert(tx: StoreTransaction, content: Content) -> StoredProvider:
    """Add a row whose content has been checked and whose name is free."""
    sealed, sealed_by = tx.seal(content.settings.to_json())
    row = StoredRow(
        id=f"prv_{new_id()}",
        position=PROVIDERS.next(tx.sql),
        name=content.name,
        type=content.type,
        enabled=content.enabled,
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
    sealed, sealed_by = tx.seal(content.settings.to_json())
    row = attrs.evolve(
        present.row,
        name=content.name,
        type=content.type,
        enabled=content.enabled,
        sealed=sealed,
        sealed_by=sealed_by,
    )
    return _write(tx, present, StoredProvider(row=row, content=content), fields)


def delete(tx: StoreTransaction, present: StoredProvider) -> None:
    """Remove a row: its name is free again, its secrets are gone."""
    revision = tx.move_revision(providers=True)
    row = attrs.evolve(present.row, removed=tx.now, revision=revision, sealed=None, sealed_by=None)
    PROVIDERS.update(tx.sql, row)
    audit_rows.record(tx, "provider.remove", row.id, row.name, present.masked(), None)


def _switch(tx: StoreTransaction, present: StoredProvider, enabled: bool) -> StoredProvider:
    """Enable or disable what cannot be decrypted, and leave the rest as it is."""
    if enabled == present.content.enabled:
        return present
    stored = attrs.evolve(
        present,
        row=attrs.evolve(present.row, enabled=enabled),
        content=attrs.evolve(present.content, enabled=enabled),
    )
    return _write(tx, present, stored, ("enabled",))


def _write(
    tx: StoreTransaction,
    present: StoredProvider,
    stored: StoredProvider,
    fields: tuple[str, ...],
) -> StoredProvider:
    row = attrs.evolve(stored.row, updated=tx.now, revision=tx.move_revision(providers=True))
    PROVIDERS.update(tx.sql, row)
    audit_rows.record(
        tx, "provider.update", row.id, row.name, present.masked(), stored.masked(), fields
    )
    return attrs.evolve(stored, row=row)


def _stored(
    tx: StoreTransaction, row: StoredRow, known: Mapping[str, Settings] = _NONE
) -> StoredProvider:
    settings, problem = known.get(row.sealed or ""), None
    if settings is None:
        settings, problem = _settings(tx, row.sealed)
    content = Content(name=row.name, type=row.type, enabled=row.enabled, settings=settings)
    return StoredProvider(row=row, content=content, problem=problem)


def _settings(tx: StoreTransaction, sealed: str | None) -> tuple[Settings, str | None]:
    try:
        return Settings.from_json(tx.unseal(sealed)), None
    except EncryptionError as error:
        return _UNREADABLE, str(error)
    except (ValueError, TypeError, KeyError):
        return _UNREADABLE, "it is not what this version wrote"


def _check_name_is_free(tx: StoreTransaction, name: str) -> None:
    taken = "SELECT 1 FROM providers WHERE name = ? AND removed IS NULL"
    if tx.sql.fetch_one(taken, name) is not None:
        raise NameTakenError("provider", name)


def _check_revision(present: StoredProvider, if_revision: int | None) -> None:
    if if_revision is not None and if_revision != present.row.revision:
        raise ConflictError("provider", present.content.name, if_revision, present.row.revision)
