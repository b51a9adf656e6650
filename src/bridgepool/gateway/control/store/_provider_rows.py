"""The providers' rows: found, shown, added, changed and removed, inside one transaction."""

from __future__ import annotations

import time
from collections.abc import Mapping
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
from bridgepool.gateway.control.database import Row
from bridgepool.gateway.control.store._provider_settings import (
    MASK,
    Content,
    Settings,
    content_of_draft,
    content_of_patch,
)
from bridgepool.gateway.control.store._transaction import StoreTransaction, to_time
from bridgepool.gateway.providers._access_keys import new_id

_SELECT: Final = (
    "SELECT id, name, type, enabled, sealed, created, updated, revision FROM providers "
    "WHERE removed IS NULL"
)
_AT_ONCE: Final = 20  # rows that are decrypted without a pause; some 20 µs each
_UNREADABLE: Final = Settings(base_url="")
_NONE: Final[Mapping[str, Settings]] = MappingProxyType({})


@attrs.frozen(kw_only=True)
class StoredProvider:
    """A living row."""

    id: str
    content: Content
    created: str
    updated: str
    revision: int
    problem: str | None
    """Why the settings could not be decrypted; then they are empty in `content`."""
    sealed: str = attrs.field(repr=False)
    """The settings as they are in the row."""

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
            created=to_time(self.created),
            updated=to_time(self.updated),
            revision=self.revision,
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
    for row in tx.sql.fetch_all(f"{_SELECT} ORDER BY position"):
        stored.append(_stored(tx, row, known))
        if len(stored) % _AT_ONCE == 0:
            time.sleep(0)  # lets the threads go on that wait for the interpreter's lock
    return stored


def find(tx: StoreTransaction, name: str) -> StoredProvider:
    """Return one by its name or its id; raises `NotFoundError`."""
    # Ids hold a "_" and names cannot, so one cannot be taken for the other.
    row = tx.sql.fetch_one(f"{_SELECT} AND (name = ? OR id = ?)", name, name)
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
    revision = tx.move_revision(providers=True)
    sealed, sealed_by = tx.seal(content.settings.to_json())
    stored = StoredProvider(
        id=f"prv_{new_id()}",
        content=content,
        created=tx.now,
        updated=tx.now,
        revision=revision,
        problem=None,
        sealed=sealed,
    )
    tx.sql.execute(
        "INSERT INTO providers (id, position, name, type, enabled, sealed, sealed_by, created, "
        "updated, removed, revision) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, ?)",
        stored.id,
        tx.next_position("providers"),
        content.name,
        content.type,
        int(content.enabled),
        sealed,
        sealed_by,
        stored.created,
        stored.updated,
        revision,
    )
    tx.audit("provider.add", stored.id, content.name, None, stored.masked())
    return stored


def update(tx: StoreTransaction, present: StoredProvider, content: Content) -> StoredProvider:
    """Give a row its new content, checked before; the same row comes back if nothing differs."""
    fields = content.differs_in(present.content)
    if not fields and present.problem is None:
        return present
    revision = tx.move_revision(providers=True)
    sealed, sealed_by = tx.seal(content.settings.to_json())
    stored = attrs.evolve(
        present,
        content=content,
        updated=tx.now,
        revision=revision,
        problem=None,
        sealed=sealed,
    )
    tx.sql.execute(
        "UPDATE providers SET name = ?, type = ?, enabled = ?, sealed = ?, sealed_by = ?, "
        "updated = ?, revision = ? WHERE id = ?",
        content.name,
        content.type,
        int(content.enabled),
        sealed,
        sealed_by,
        stored.updated,
        revision,
        stored.id,
    )
    tx.audit("provider.update", stored.id, content.name, present.masked(), stored.masked(), fields)
    return stored


def delete(tx: StoreTransaction, present: StoredProvider) -> None:
    """Remove a row: its name is free again, its secrets are gone."""
    revision = tx.move_revision(providers=True)
    tx.sql.execute(
        "UPDATE providers SET removed = ?, revision = ?, sealed = NULL, sealed_by = NULL "
        "WHERE id = ?",
        tx.now,
        revision,
        present.id,
    )
    tx.audit("provider.remove", present.id, present.content.name, present.masked(), None)


def _switch(tx: StoreTransaction, present: StoredProvider, enabled: bool) -> StoredProvider:
    """Switch on or off what cannot be decrypted, and leave the rest as it is."""
    if enabled == present.content.enabled:
        return present
    revision = tx.move_revision(providers=True)
    content = attrs.evolve(present.content, enabled=enabled)
    stored = attrs.evolve(present, content=content, updated=tx.now, revision=revision)
    tx.sql.execute(
        "UPDATE providers SET enabled = ?, updated = ?, revision = ? WHERE id = ?",
        int(enabled),
        stored.updated,
        revision,
        stored.id,
    )
    tx.audit(
        "provider.update",
        stored.id,
        content.name,
        present.masked(),
        stored.masked(),
        ("enabled",),
    )
    return stored


def _stored(
    tx: StoreTransaction, row: Row, known: Mapping[str, Settings] = _NONE
) -> StoredProvider:
    row_id, name, type_, enabled, sealed, created, updated, revision = row
    settings, problem = known.get(sealed), None
    if settings is None:
        settings, problem = _settings(tx, sealed)
    return StoredProvider(
        id=row_id,
        content=Content(name=name, type=type_, enabled=bool(enabled), settings=settings),
        created=created,
        updated=updated,
        revision=revision,
        problem=problem,
        sealed=sealed,
    )


def _settings(tx: StoreTransaction, sealed: str) -> tuple[Settings, str | None]:
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
    if if_revision is not None and if_revision != present.revision:
        raise ConflictError("provider", present.content.name, if_revision, present.revision)
