"""What the command line needs of a control plane, on a store that this process opens itself.

The same by HTTP is `bridgepool.control.http_admin`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias

import attrs
import trio

from bridgepool.control.applied import AppliedReport, applied_report
from bridgepool.control.errors import NotFoundError
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
)
from bridgepool.control.store import Store

KeyKind: TypeAlias = Literal["gateway", "admin"]

# Receipts come into the store without a notice.
_LOOK_INTERVAL = 0.2


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

    async def add_provider(self, draft: ProviderDraft) -> Change[ProviderView]:
        """Add a provider."""
        ...

    async def update_provider(self, name: str, patch: ProviderPatch) -> Change[ProviderView]:
        """Change what the patch says of a provider."""
        ...

    async def remove_provider(self, name: str) -> Change[ProviderView]:
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

    async def add_client(self, client: str) -> Change[NewClient]:
        """Add a client, with its first key."""
        ...

    async def remove_client(self, client: str) -> Change[ClientView]:
        """Remove a client and revoke its keys."""
        ...

    async def add_client_key(self, client: str) -> Change[NewKey]:
        """Make one more key for a client."""
        ...

    async def revoke_client_key(self, client: str, key: str) -> Change[AccessKeyView]:
        """Revoke one key of a client."""
        ...

    async def list_keys(self, kind: KeyKind, *, revoked: bool) -> Sequence[AccessKeyView]:
        """Return the keys of gateways or admins."""
        ...

    async def create_key(self, kind: KeyKind, name: str, role: Role) -> Change[NewKey]:
        """Make a key for a gateway or an admin; the role is of admins only."""
        ...

    async def revoke_key(self, kind: KeyKind, key: str) -> Change[AccessKeyView]:
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


@attrs.frozen
class StoreAdmin:
    """An `Admin` on a store. See there for the methods."""

    _store: Store
    _actor: Actor

    async def list_providers(self) -> Sequence[ProviderView]:
        """See `Admin`."""
        return await self._store.list_providers()

    async def get_provider(self, name: str) -> ProviderView:
        """See `Admin`."""
        return await self._store.get_provider(name)

    async def add_provider(self, draft: ProviderDraft) -> Change[ProviderView]:
        """See `Admin`."""
        return await self._store.add_provider(self._actor, draft)

    async def update_provider(self, name: str, patch: ProviderPatch) -> Change[ProviderView]:
        """See `Admin`."""
        return await self._store.update_provider(self._actor, name, patch)

    async def remove_provider(self, name: str) -> Change[ProviderView]:
        """See `Admin`."""
        return await self._store.remove_provider(self._actor, name)

    async def apply_providers(
        self, drafts: Sequence[ProviderDraft], *, prune: bool, dry_run: bool
    ) -> ApplyResult:
        """See `Admin`."""
        return await self._store.apply_providers(self._actor, drafts, prune=prune, dry_run=dry_run)

    async def export_providers(self) -> Sequence[ProviderDraft]:
        """See `Admin`."""
        return await self._store.export_providers()

    async def list_clients(self) -> Sequence[ClientView]:
        """See `Admin`."""
        return await self._store.list_clients()

    async def add_client(self, client: str) -> Change[NewClient]:
        """See `Admin`."""
        return await self._store.add_client(self._actor, client)

    async def remove_client(self, client: str) -> Change[ClientView]:
        """See `Admin`."""
        return await self._store.remove_client(self._actor, client)

    async def add_client_key(self, client: str) -> Change[NewKey]:
        """See `Admin`."""
        return await self._store.add_client_key(self._actor, client)

    async def revoke_client_key(self, client: str, key: str) -> Change[AccessKeyView]:
        """See `Admin`."""
        return await self._store.revoke_client_key(self._actor, client, key)

    async def list_keys(self, kind: KeyKind, *, revoked: bool) -> Sequence[AccessKeyView]:
        """See `Admin`."""
        if kind == "gateway":
            return await self._store.list_gateway_keys(revoked=revoked)
        return await self._store.list_admin_keys(revoked=revoked)

    async def create_key(self, kind: KeyKind, name: str, role: Role) -> Change[NewKey]:
        """See `Admin`."""
        if kind == "gateway":
            return await self._store.create_gateway_key(self._actor, name)
        return await self._store.create_admin_key(self._actor, name, role)

    async def revoke_key(self, kind: KeyKind, key: str) -> Change[AccessKeyView]:
        """See `Admin`."""
        if kind == "gateway":
            return await self._store.revoke_gateway_key(self._actor, key)
        return await self._store.revoke_admin_key(self._actor, key)

    async def list_gateways(self) -> tuple[int, Sequence[GatewaySession]]:
        """See `Admin`."""
        revisions = await self._store.revisions()
        return revisions.revision, await self._store.list_gateways()

    async def applied(self, revision: int, wait: float) -> AppliedReport:
        """See `Admin`."""
        latest, gateways = await self.list_gateways()
        if revision > latest:
            raise NotFoundError("revision", str(revision))
        report = applied_report(revision, gateways, latest)
        with trio.move_on_after(wait):
            while not report.complete:
                await trio.sleep(_LOOK_INTERVAL)
                latest, gateways = await self.list_gateways()
                report = applied_report(revision, gateways, latest)
        return report

    async def audit(
        self, *, limit: int, before: int | None, name: str | None
    ) -> Sequence[AuditEntry]:
        """See `Admin`."""
        return await self._store.audit(limit=limit, before=before, name=name)
