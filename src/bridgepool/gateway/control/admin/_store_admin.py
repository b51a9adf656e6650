"""What the command line needs of a control plane, on a store that this process opens itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs
import trio

from bridgepool.gateway.control._applied import AppliedReport, applied_report
from bridgepool.gateway.control._errors import NotFoundError
from bridgepool.gateway.control._records import (
    AccessKeyChange,
    AccessKeyView,
    Actor,
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
from bridgepool.gateway.control.admin._interface import KeyKind
from bridgepool.gateway.control.store import Store

_LOOK_INTERVAL: Final = 0.2  # receipts come into the store without a notice


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

    async def add_provider(self, draft: ProviderDraft) -> ProviderChange:
        """See `Admin`."""
        return await self._store.add_provider(self._actor, draft)

    async def update_provider(self, name: str, patch: ProviderPatch) -> ProviderChange:
        """See `Admin`."""
        return await self._store.update_provider(self._actor, name, patch)

    async def remove_provider(self, name: str) -> ProviderChange:
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

    async def add_client(self, client: str) -> NewClient:
        """See `Admin`."""
        return await self._store.add_client(self._actor, client)

    async def remove_client(self, client: str) -> ClientChange:
        """See `Admin`."""
        return await self._store.remove_client(self._actor, client)

    async def add_client_key(self, client: str) -> NewKey:
        """See `Admin`."""
        return await self._store.add_client_key(self._actor, client)

    async def revoke_client_key(self, client: str, key: str) -> AccessKeyChange:
        """See `Admin`."""
        return await self._store.revoke_client_key(self._actor, client, key)

    async def list_keys(self, kind: KeyKind, *, revoked: bool) -> Sequence[AccessKeyView]:
        """See `Admin`."""
        if kind == "gateway":
            return await self._store.list_gateway_keys(revoked=revoked)
        return await self._store.list_admin_keys(revoked=revoked)

    async def create_key(self, kind: KeyKind, name: str, role: Role) -> NewKey:
        """See `Admin`."""
        if kind == "gateway":
            return await self._store.create_gateway_key(self._actor, name)
        return await self._store.create_admin_key(self._actor, name, role)

    async def revoke_key(self, kind: KeyKind, key: str) -> AccessKeyChange:
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
