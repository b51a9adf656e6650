"""The store: the one owner of providers, clients and keys, whatever database is under it.

Every method is one transaction in a worker thread. A method that changes something returns the
store's revision; what gateways can see is changed together with the revision, the audit row and
the notice to other processes, or not at all. Cancelling a write leaves it done or not done,
never half.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Literal, TypeVar, TypeVarTuple

import attrs
import trio

from bridgepool._changes import ChangeSubscription
from bridgepool._secret import Secret
from bridgepool.gateway.control._encryption import EncryptionKeys
from bridgepool.gateway.control._gateway_session import GatewaySession
from bridgepool.gateway.control._records import (
    AccessKeyChange,
    AccessKeyView,
    Actor,
    ApplyResult,
    AuditEntry,
    ClientChange,
    ClientView,
    EpochChange,
    KeyKind,
    NewClient,
    NewKey,
    ProviderChange,
    ProviderDraft,
    ProviderPatch,
    ProviderView,
    Role,
    RotationReport,
    SeedReport,
    StoreSnapshot,
)
from bridgepool.gateway.control._revisions import Revisions
from bridgepool.gateway.control.database import Database, Transaction
from bridgepool.gateway.control.store import _applying as applying
from bridgepool.gateway.control.store import _audit_rows as audit_rows
from bridgepool.gateway.control.store import _client_rows as client_rows
from bridgepool.gateway.control.store import _epochs as epochs
from bridgepool.gateway.control.store import _gateway_rows as gateway_rows
from bridgepool.gateway.control.store import _key_rows as key_rows
from bridgepool.gateway.control.store import _provider_rows as provider_rows
from bridgepool.gateway.control.store import _reading as reading
from bridgepool.gateway.control.store import _seeding as seeding
from bridgepool.gateway.control.store._gateway_rows import GatewayExpiry, Staleness
from bridgepool.gateway.control.store._keyring import Keyring
from bridgepool.gateway.control.store._programs import Programs
from bridgepool.gateway.control.store._provider_settings import Rules
from bridgepool.gateway.control.store._reading import LastReading
from bridgepool.gateway.control.store._rotation import Rotation
from bridgepool.gateway.control.store._transaction import PROGRAM, StoreTransaction
from bridgepool.gateway.control.store._usage_rows import StoredUsage
from bridgepool.gateway.providers import ProviderFile
from bridgepool.gateway.providers._client_rules import RuleChanges
from bridgepool.remote import RejectedRow

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@attrs.define(eq=False)
class Store:
    """Providers, clients and keys in a database; made by `open_store`.

    Every async method is a checkpoint.
    """

    _database: Database
    _keyring: Keyring
    _clock: Callable[[], float]
    _rules: Rules
    _last: LastReading = attrs.field(factory=LastReading, init=False)
    _staleness: Staleness = attrs.field(factory=Staleness, init=False)

    # -- what is in force

    async def revisions(self) -> Revisions:
        """Return the revision in force, and those of the last changes by kind."""
        return await self._read(StoreTransaction.revisions)

    def subscribe(self) -> ChangeSubscription:
        """Open a channel of notices that the revision moved, by whatever process."""
        return self._database.subscribe()

    async def snapshot(self) -> StoreSnapshot:
        """Read all that gateways serve by, consistently: the one answer that holds secrets."""
        snapshot, known = await self._read(reading.read_snapshot, self._last.known)
        self._last.replace(known, snapshot.unreadable)
        return snapshot

    async def check_readable(self) -> None:
        """Refuse to serve a store of which no provider can be read; raises `EncryptionError`."""
        reading.check_readable(await self.snapshot())

    async def unreadable(self) -> tuple[RejectedRow, ...]:
        """Return the providers that cannot be read now, and why."""
        return await self._read(reading.read_unreadable, self._last.known)

    # -- providers

    async def list_providers(self) -> tuple[ProviderView, ...]:
        """Return all living providers, in the order in which they were added."""
        return await self._read(lambda tx: tuple(row.view() for row in provider_rows.living(tx)))

    async def get_provider(self, name: str) -> ProviderView:
        """Return one provider by its name or id; raises `NotFoundError`."""
        return await self._read(lambda tx: provider_rows.find(tx, name).view())

    async def add_provider(self, actor: Actor, draft: ProviderDraft) -> ProviderChange:
        """Add a provider.

        Raises:
            InvalidChangeError: It breaks a rule; says which.
            NameTakenError: A living provider has that name.
        """
        return await self._write(actor, provider_rows.add, draft, self._rules)

    async def update_provider(
        self,
        actor: Actor,
        name: str,
        patch: ProviderPatch,
        *,
        if_revision: int | None = None,
        allow_empty: bool = False,
    ) -> ProviderChange:
        """Change what the patch says of a provider, found by its name or id.

        Args:
            actor: Who makes the change, for the audit.
            name: Its name, or its id.
            patch: The fields that change.
            if_revision: Only if this is still the revision of its row.
            allow_empty: It may be the last enabled provider that is disabled.

        Raises:
            NotFoundError: There is no such provider.
            InvalidChangeError: It would break a rule; says which.
            NameTakenError: Another living provider has the new name.
            ConflictError: Its row is not at ``if_revision`` any more.
        """
        return await self._write(
            actor, provider_rows.change, name, patch, if_revision, allow_empty, self._rules
        )

    async def remove_provider(
        self,
        actor: Actor,
        name: str,
        *,
        if_revision: int | None = None,
        allow_empty: bool = False,
    ) -> ProviderChange:
        """Remove a provider. Its name is free again; its keys are gone for good.

        Without ``allow_empty`` the last enabled one stays, and `InvalidChangeError` is raised.
        Raises `NotFoundError`, or `ConflictError` as `update_provider` does.
        """
        return await self._write(actor, provider_rows.remove, name, if_revision, allow_empty)

    async def apply_providers(
        self,
        actor: Actor,
        drafts: Sequence[ProviderDraft],
        *,
        prune: bool = False,
        dry_run: bool = False,
        allow_empty: bool = False,
    ) -> ApplyResult:
        """Make the providers match the drafts: all of them in one revision, or none.

        Args:
            actor: Who makes the change, for the audit.
            drafts: Found by name; a `KeyRef` or a header without a value keeps what is stored.
            prune: Remove the providers that no draft names.
            dry_run: Only report what would be done.
            allow_empty: No enabled provider need be left.

        Raises:
            InvalidChangeError: Drafts break rules, or no enabled provider is left; names each.
        """
        how = (drafts, self._rules, prune, dry_run, allow_empty)
        if dry_run:
            return await self._read(applying.apply, *how)
        return await self._write(actor, applying.apply, *how)

    async def export_providers(self) -> tuple[ProviderDraft, ...]:
        """Return drafts of all living providers, with keys by id and headers without values.

        Applied to the same store, they change nothing. See `parse_draft` for their
        form in a file.
        """
        return await self._read(applying.export)

    # -- clients

    async def list_clients(self) -> tuple[ClientView, ...]:
        """Return all living clients, in the order in which they were added."""
        return await self._read(lambda tx: tuple(row.view() for row in client_rows.living(tx)))

    async def get_client(self, client_id: str) -> ClientView:
        """Return one client; raises `NotFoundError`."""
        return await self._read(lambda tx: client_rows.find(tx, client_id).view())

    async def add_client(
        self,
        actor: Actor,
        client_id: str,
        *,
        key_hashes: Iterable[str] | None = None,
        rules: RuleChanges | None = None,
        key_rules: RuleChanges | None = None,
    ) -> NewClient:
        """Add a client, with a new key, or with the hashes of keys that it has already.

        `rules` are its own, `key_rules` those of each of these keys. Raises `InvalidChangeError`,
        or `NameTakenError` if a living client has that id.
        """
        hashes = tuple(key_hashes) if key_hashes is not None else None
        return await self._write(actor, client_rows.add, client_id, hashes, rules, key_rules)

    async def update_client(
        self, actor: Actor, client_id: str, rules: RuleChanges, *, if_revision: int | None = None
    ) -> ClientChange:
        """Change rules of a client; raises as `update_provider` does."""
        return await self._write(actor, client_rows.change, client_id, rules, if_revision)

    async def remove_client(self, actor: Actor, client_id: str) -> ClientChange:
        """Remove a client and revoke all of its keys; raises `NotFoundError`."""
        return await self._write(actor, client_rows.remove, client_id)

    async def add_client_key(
        self, actor: Actor, client_id: str, rules: RuleChanges | None = None
    ) -> NewKey:
        """Make one more key for a client; raises `NotFoundError`, `InvalidChangeError`."""
        return await self._write(actor, client_rows.add_key, client_id, rules)

    async def update_client_key(
        self, actor: Actor, client_id: str, key_id: str, rules: RuleChanges
    ) -> AccessKeyChange:
        """Change rules of one of its keys; raises `NotFoundError`, `InvalidChangeError`."""
        return await self._write(actor, client_rows.change_key, client_id, key_id, rules)

    async def revoke_client_key(self, actor: Actor, client_id: str, key_id: str) -> AccessKeyChange:
        """Revoke one key of a client, if that was not done before; raises `NotFoundError`."""
        return await self._write(actor, client_rows.revoke_key, client_id, key_id)

    # -- keys

    async def authenticate(self, kind: KeyKind, token: Secret) -> AccessKeyView | None:
        """Return the key of that kind, None if it is unknown or revoked; one query."""
        return await self._read(key_rows.authenticate, kind, token)

    async def list_keys(self, kind: KeyKind, *, revoked: bool = False) -> tuple[AccessKeyView, ...]:
        """Return the keys of one kind, the oldest first; with ``revoked`` the revoked ones, too."""
        return await self._read(
            lambda tx: tuple(row.view() for row in key_rows.list_keys(tx, kind, revoked=revoked))
        )

    async def create_gateway_key(self, actor: Actor, name: str) -> NewKey:
        """Make a key for a gateway, which may have several; raises `InvalidChangeError`."""
        return await self._write(actor, key_rows.create, "gateway", name)

    async def create_admin_key(self, actor: Actor, name: str, role: Role) -> NewKey:
        """Make a key for the API; raises `InvalidChangeError` for a bad name."""
        return await self._write(actor, key_rows.create, "admin", name, role)

    async def revoke_key(
        self, actor: Actor, kind: Literal["gateway", "admin"], key: str
    ) -> AccessKeyChange:
        """Revoke a key of a gateway or an admin, found by its id, or by its name.

        Raises:
            NotFoundError: There is no such key.
            InvalidChangeError: Several valid keys have that name; give the id of one.
        """
        return await self._write(actor, key_rows.revoke, kind, key)

    # -- seed, audit, gateways, encryption

    async def seed(self, declared: ProviderFile, *, source: str = "seed") -> SeedReport:
        """Apply a provider file that declares what is to be there at the start.

        Readers of every process wait meanwhile and see all of it. What people changed, removed
        or made under the same name since the last seed stays and is reported as drift; so is a
        row that was taken out of the file. Never raises for drift, nor for a row that breaks a
        rule of this store. The same file again changes nothing. `source` is its name in the audit.
        """
        return await self._database.write(
            lambda sql: seeding.seed(
                self._transaction(sql, Actor("seed", source)), declared, self._rules
            ),
            seeding=True,
        )

    async def audit(
        self, *, limit: int = 100, before: int | None = None, name: str | None = None
    ) -> tuple[AuditEntry, ...]:
        """Return entries of the audit, the newest first.

        Args:
            limit: At most so many, at most 1,000.
            before: Only those with a lower id.
            name: Only those about rows of that name or id.
        """
        return await self._read(audit_rows.page, limit, before, name)

    async def record_refused_key(self, kind: Literal["admin", "gateway"], peer: str) -> None:
        """Note in the audit that an unknown key from an address was refused; no revision."""
        await self._write(Actor("stranger", peer), key_rows.record_refused, kind)

    async def record_gateways(self, sessions: Iterable[GatewaySession]) -> None:
        """Keep what is known of gateways; makes no revision.

        A session that has ended does not overwrite a newer one of the same instance.
        """
        rows = tuple(sessions)
        await self._write(PROGRAM, gateway_rows.record, rows)

    async def touch_gateways(self, control_plane: str) -> int:
        """Note that those connected to a control plane still are; return how many it has."""
        return await self._write(PROGRAM, gateway_rows.touch, control_plane)

    async def forget_gateway(self, actor: Actor, name: str) -> int:
        """Forget the offline processes of a gateway, or one by its instance; return how many.

        Raises `NotFoundError`, or `InvalidChangeError` if none of them is offline.
        """
        return await self._write(actor, gateway_rows.forget, name)

    async def list_gateways(self) -> tuple[GatewaySession, ...]:
        """Return what is known of gateways, by name and instance."""
        return await self._read(gateway_rows.list_all)

    async def expire_gateways(self, expiry: GatewayExpiry) -> int:
        """Note as reconnecting those that a dead control plane has left, and forget the old.

        It goes by how long a last contact stayed the same: call it regularly. Returns how many rows
        were changed or forgotten.
        """
        return await self._write(PROGRAM, self._staleness.expire, trio.current_time(), expiry)

    async def renew_epoch(self, actor: Actor, seen: Revisions | None = None) -> EpochChange:
        """Begin a new epoch, as a backup was restored; with `seen` only if that shows in it."""
        return await self._write(actor, epochs.renew, seen)

    async def rotate_encryption(self, actor: Actor) -> RotationReport:
        """Re-encrypt what is not under the first encryption key; may be cut and run again.

        Makes revisions, so that a backup from before shows. Raises `EncryptionError` if a running
        program lacks the first key; see `Programs`.
        """
        await self.programs.check_keys()
        return await Rotation().run(partial(self._write, actor))

    async def use_keys(self, actor: Actor, keys: EncryptionKeys) -> None:
        """Use other keys; raises `EncryptionError` if they read less than the current ones."""
        await self._keyring.replace(keys, self._read, partial(self._write, actor))

    @property
    def programs(self) -> Programs:
        """The running programs that have the store open."""
        return Programs(self._read, partial(self._write, PROGRAM))

    @property
    def usage(self) -> StoredUsage:
        """The usage records that gateways report; they make no revision."""
        return StoredUsage(self._read, partial(self._write, PROGRAM))

    # -- transactions

    async def _read(self, function: Callable[[StoreTransaction, *Ts], T], *args: *Ts) -> T:
        return await self._database.read(lambda sql: function(self._transaction(sql), *args))

    async def _write(
        self, actor: Actor, function: Callable[[StoreTransaction, *Ts], T], *args: *Ts
    ) -> T:
        return await self._database.write(
            lambda sql: function(self._transaction(sql, actor), *args)
        )

    def _transaction(self, sql: Transaction, actor: Actor = PROGRAM) -> StoreTransaction:
        now = datetime.fromtimestamp(self._clock(), UTC)
        return StoreTransaction(sql, self._keyring.keys, now, actor)
