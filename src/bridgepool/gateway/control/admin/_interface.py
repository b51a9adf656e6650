"""What the command line needs of a control plane, wherever it reaches it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias

from bridgepool.gateway.control._applied import AppliedReport
from bridgepool.gateway.control._records import (
    AccessKeyChange,
    AccessKeyView,
    ApplyResult,
    AuditEntry,
    ClientChange,
    ClientView,
    GatewaySession,
    NewClient,
    NewKey,
    ProviderChange,
    ProviderDraft,
    ProviderPatch,
    ProviderView,
    Role,
)

KeyKind: TypeAlias = Literal["gateway", "admin"]


class Admin(Protocol):
    """Reads and changes what a control plane owns; every method is a checkpoint.

    Each may raise what the `Store`'s method of that name raises, and by HTTP `AdminError`.
    """

    async def list_providers(self) -> Sequence[ProviderView]:
        """Return all living providers."""
        ...

    async def get_provider(self, name: str) -> ProviderView:
        """Return one provider by its name or id."""
        ...

    async def add_provider(self, draft: ProviderDraft) -> ProviderChange:
        """Add a provider."""
        ...

    async def update_provider(self, name: str, patch: ProviderPatch) -> ProviderChange:
        """Change what the patch says of a provider."""
        ...

    async def remove_provider(self, name: str) -> ProviderChange:
        """Remove a provider."""
        ...

    async def apply_providers(
        self, drafts: Sequence[ProviderDraft], *, prune: bool, dry_run: bool
    ) -> ApplyResult:
        """Make the providers as the drafts say."""
        ...

    async def export_providers(self) -> Sequence[ProviderDraft]:
        """Return drafts of all providers, without secrets."""
        ...

    async def list_clients(self) -> Sequence[ClientView]:
        """Return all clients with their good keys."""
        ...

    async def add_client(self, client: str) -> NewClient:
        """Add a client, with its first key."""
        ...

    async def remove_client(self, client: str) -> ClientChange:
        """Remove a client and revoke its keys."""
        ...

    async def add_client_key(self, client: str) -> NewKey:
        """Make one more key for a client."""
        ...

    async def revoke_client_key(self, client: str, key: str) -> AccessKeyChange:
        """Revoke one key of a client."""
        ...

    async def list_keys(self, kind: KeyKind, *, revoked: bool) -> Sequence[AccessKeyView]:
        """Return the keys of gateways or admins."""
        ...

    async def create_key(self, kind: KeyKind, name: str, role: Role) -> NewKey:
        """Make a key for a gateway or an admin; the role is of admins only."""
        ...

    async def revoke_key(self, kind: KeyKind, key: str) -> AccessKeyChange:
        """Revoke a key by its id, or by its name if only one has it."""
        ...

    async def list_gateways(self) -> tuple[int, Sequence[GatewaySession]]:
        """Return the revision in force, and what is known of gateways."""
        ...

    async def applied(self, revision: int, wait: float) -> AppliedReport:
        """Tell what each gateway made of a revision, after at most `wait` seconds."""
        ...

    async def audit(
        self, *, limit: int, before: int | None, name: str | None
    ) -> Sequence[AuditEntry]:
        """Return entries of the audit, the newest first."""
        ...
