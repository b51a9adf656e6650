"""The store: the one owner of providers, clients and keys, whatever database is under it.

Every method is one transaction in a worker thread. A method that changes something returns the
store's revision; what gateways can see is changed together with the revision, the audit row and
the notice to other processes, or not at all. Cancelling a write leaves it done or not done,
never half.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

from bridgepool._changes import ChangeSubscription
from bridgepool.control.records import (
    AccessKeyView,
    Actor,
    ApplyResult,
    AuditEntry,
    Change,
    ClientView,
    GatewaySession,
    NewClient,
    NewKey,
    ProviderDraft,
    ProviderPatch,
    ProviderView,
    Role,
    SeedReport,
    StoreSnapshot,
)
from bridgepool.providers import Caller, ProviderFile, Secret
from bridgepool.remote.messages import Revisions


class Store:
    """Providers, clients and keys in a database; made by `open_store`."""

    # -- what is in force

    async def revisions(self) -> Revisions:
        """Return the revision in force, and those of the last changes by kind."""
        raise NotImplementedError

    def subscribe(self) -> ChangeSubscription:
        """Open a channel of notices that the revision moved, by whatever process."""
        raise NotImplementedError

    async def snapshot(self) -> StoreSnapshot:
        """Read all that gateways serve by, consistently. The one reading that holds secrets."""
        raise NotImplementedError

    # -- providers

    async def list_providers(self) -> tuple[ProviderView, ...]:
        """Return all living providers, in the order in which they were added."""
        raise NotImplementedError

    async def get_provider(self, name: str) -> ProviderView:
        """Return one provider by its name or id.

        Raises:
            NotFoundError: There is none.
        """
        raise NotImplementedError

    async def add_provider(self, actor: Actor, draft: ProviderDraft) -> Change[ProviderView]:
        """Add a provider.

        Raises:
            InvalidChangeError: It breaks a rule; says which.
            NameTakenError: A living provider has that name.
        """
        raise NotImplementedError

    async def update_provider(
        self, actor: Actor, name: str, patch: ProviderPatch, *, if_revision: int | None = None
    ) -> Change[ProviderView]:
        """Change what the patch says of a provider, found by its name or id.

        Args:
            actor: Who asks for it.
            name: Its name, or its id.
            patch: What is to be different.
            if_revision: Change it only if this is still the revision of its row.

        Raises:
            NotFoundError: There is no such provider.
            InvalidChangeError: It would break a rule; says which.
            NameTakenError: Another living provider has the new name.
            ConflictError: Its row is not at ``if_revision`` any more.
        """
        raise NotImplementedError

    async def remove_provider(
        self, actor: Actor, name: str, *, if_revision: int | None = None
    ) -> Change[ProviderView]:
        """Remove a provider. Its name is free again; its keys are gone for good.

        Raises:
            NotFoundError: There is no such provider.
            ConflictError: Its row is not at ``if_revision`` any more.
        """
        raise NotImplementedError

    async def apply_providers(
        self,
        actor: Actor,
        drafts: Sequence[ProviderDraft],
        *,
        prune: bool = False,
        dry_run: bool = False,
    ) -> ApplyResult:
        """Make the providers as the drafts say: all of them in one revision, or none.

        Args:
            actor: Who asks for it.
            drafts: Found by name; a `KeyRef` or a header without a value keeps what is stored.
            prune: Remove the providers that no draft names.
            dry_run: Tell only what would be done.

        Raises:
            InvalidChangeError: A draft breaks a rule; says which and why, for all of them.
        """
        raise NotImplementedError

    async def export_providers(self) -> tuple[ProviderDraft, ...]:
        """Return drafts of all living providers, with keys by id and headers without values.

        Applied to the same store, they change nothing. See `documents.draft_document` for their
        form in a file.
        """
        raise NotImplementedError

    # -- clients

    async def list_clients(self) -> tuple[ClientView, ...]:
        """Return all living clients, in the order in which they were added."""
        raise NotImplementedError

    async def get_client(self, client_id: str) -> ClientView:
        """Return one client; raises `NotFoundError`."""
        raise NotImplementedError

    async def add_client(
        self, actor: Actor, client_id: str, *, key_hashes: Iterable[str] | None = None
    ) -> Change[NewClient]:
        """Add a client, with a new key, or with the hashes of keys that it has already.

        Raises:
            InvalidChangeError: The id, or a hash, is not usable.
            NameTakenError: A living client has that id.
        """
        raise NotImplementedError

    async def remove_client(self, actor: Actor, client_id: str) -> Change[ClientView]:
        """Remove a client and revoke all of its keys; raises `NotFoundError`."""
        raise NotImplementedError

    async def add_client_key(self, actor: Actor, client_id: str) -> Change[NewKey]:
        """Make one more key for a client; raises `NotFoundError`."""
        raise NotImplementedError

    async def revoke_client_key(
        self, actor: Actor, client_id: str, key_id: str
    ) -> Change[AccessKeyView]:
        """Revoke one key of a client. Unchanged if it was revoked before.

        Raises:
            NotFoundError: The client has no such key.
        """
        raise NotImplementedError

    async def authenticate_client(self, token: Secret) -> Caller | None:
        """Tell whose key this is, by one look into the database."""
        raise NotImplementedError

    # -- keys of gateways

    async def list_gateway_keys(self, *, revoked: bool = False) -> tuple[AccessKeyView, ...]:
        """Return the keys of gateways, the oldest first; with ``revoked`` those, too."""
        raise NotImplementedError

    async def create_gateway_key(self, actor: Actor, name: str) -> Change[NewKey]:
        """Make a key for the gateway of that name, which may have several.

        Raises:
            InvalidChangeError: The name is not usable.
        """
        raise NotImplementedError

    async def revoke_gateway_key(self, actor: Actor, key: str) -> Change[AccessKeyView]:
        """Revoke a gateway's key, found by its id, or by the name if only one good key has it.

        Raises:
            NotFoundError: There is no such key.
            InvalidChangeError: Several good keys have that name; say which by its id.
        """
        raise NotImplementedError

    async def authenticate_gateway(self, token: Secret) -> AccessKeyView | None:
        """Tell which gateway's key this is; None if it is nobody's, or revoked."""
        raise NotImplementedError

    # -- keys of admins

    async def list_admin_keys(self, *, revoked: bool = False) -> tuple[AccessKeyView, ...]:
        """Return the keys of the API, the oldest first; with ``revoked`` those, too."""
        raise NotImplementedError

    async def create_admin_key(self, actor: Actor, name: str, role: Role) -> Change[NewKey]:
        """Make a key for the API.

        Raises:
            InvalidChangeError: The name or the role is not usable.
        """
        raise NotImplementedError

    async def revoke_admin_key(self, actor: Actor, key: str) -> Change[AccessKeyView]:
        """Revoke a key of the API; see `revoke_gateway_key`."""
        raise NotImplementedError

    async def authenticate_admin(self, token: Secret) -> AccessKeyView | None:
        """Tell which admin's key this is; None if it is nobody's, or revoked."""
        raise NotImplementedError

    # -- seed, audit, gateways, encryption

    async def seed(self, declared: ProviderFile, *, source: str = "seed") -> SeedReport:
        """Apply a provider file that declares what is to be there at the start.

        Readers of every process wait meanwhile and see all of it. What people changed, removed
        or made under the same name since the last seed stays and is reported as drift; so is a
        row that was taken out of the file. Never raises for drift, nor for a row that breaks a
        rule of this store. The same file again changes nothing.

        Args:
            declared: What `parse_provider_file` made of it.
            source: Its name in the audit.
        """
        raise NotImplementedError

    async def audit(
        self, *, limit: int = 100, before: int | None = None, name: str | None = None
    ) -> tuple[AuditEntry, ...]:
        """Return entries of the audit, the newest first.

        Args:
            limit: At most so many, at most 1,000.
            before: Only those with a lower id: the last one's of the page before.
            name: Only those about rows of that name or id.
        """
        raise NotImplementedError

    async def record_gateways(self, sessions: Iterable[GatewaySession]) -> None:
        """Keep what is known of gateways; makes no revision.

        A session that has ended does not overwrite what another control plane recorded of a
        newer one of the same instance.
        """
        raise NotImplementedError

    async def list_gateways(self) -> tuple[GatewaySession, ...]:
        """Return what is known of gateways, by name and instance."""
        raise NotImplementedError

    async def expire_gateways(self, *, stale_after: float, forget_after: float) -> int:
        """Note as not connected those that a dead control plane has left, and forget the old.

        Args:
            stale_after: Seconds since the last contact of one that is said to be connected.
            forget_after: Seconds since the last contact of one that is not.

        Returns:
            How many rows were changed or forgotten.
        """
        raise NotImplementedError

    async def rotate_encryption(self) -> int:
        """Encrypt everything anew that is not under the first encryption key.

        In small transactions, while everybody works on; it may be cut and run again. Makes no
        revision. Afterwards the other keys are of no use to this store.

        Returns:
            How many rows were encrypted anew.
        """
        raise NotImplementedError


@asynccontextmanager
async def open_store(url: str, *, max_keys: int = 5) -> AsyncIterator[Store]:
    """Open a store.

    Args:
        url: ``path.db``, ``sqlite:path`` or ``postgresql://…``.
        max_keys: How many keys a provider may have.
    """
    raise NotImplementedError
    yield Store()
