"""The routes of providers."""

from __future__ import annotations

from fastapi import APIRouter

from bridgepool.gateway.control._records import ProviderPatch
from bridgepool.gateway.control.api._answers import (
    ApplyOut,
    ExportOut,
    OneProvider,
    ProviderChange,
    ProvidersOut,
)
from bridgepool.gateway.control.api._bodies import ApplyIn, DraftIn, PatchIn
from bridgepool.gateway.control.api._parts import (
    READS,
    WRITES,
    IfRevision,
    PathName,
    Sources,
    Who,
    new_router,
    queries,
)
from bridgepool.gateway.control.api._views import (
    apply_out,
    draft_out,
    provider_change,
    provider_out,
)

_NONE = [queries()]
_IF = [queries("if_revision")]


def provider_routes(sources: Sources) -> APIRouter:
    """Make the routes under ``/providers``, and those of all providers at once."""
    router, store = new_router(), sources.store

    @router.get("/providers", responses=READS, dependencies=_NONE)
    async def list_providers() -> ProvidersOut:
        """List all providers, the oldest first."""
        revision = (await store.revisions()).revision
        views = await store.list_providers()
        return ProvidersOut(revision=revision, providers=[provider_out(view) for view in views])

    @router.post("/providers", status_code=201, responses=WRITES, dependencies=_NONE)
    async def add_provider(draft: DraftIn, who: Who) -> ProviderChange:
        """Add a provider."""
        return provider_change(await store.add_provider(who, draft.draft()))

    @router.get("/providers/{name}", responses=READS, dependencies=_NONE)
    async def get_provider(name: PathName) -> OneProvider:
        """Show one provider, by its name or id."""
        return OneProvider(provider=provider_out(await store.get_provider(name)))

    @router.patch("/providers/{name}", responses=WRITES, dependencies=_IF)
    async def update_provider(
        name: PathName, patch: PatchIn, who: Who, if_revision: IfRevision = None
    ) -> ProviderChange:
        """Change what the body says of a provider, and nothing else."""
        return provider_change(
            await store.update_provider(who, name, patch.patch(), if_revision=if_revision)
        )

    @router.delete("/providers/{name}", responses=WRITES, dependencies=_IF)
    async def remove_provider(
        name: PathName, who: Who, if_revision: IfRevision = None
    ) -> ProviderChange:
        """Remove a provider; its name is free again."""
        return provider_change(await store.remove_provider(who, name, if_revision=if_revision))

    @router.post("/providers/{name}/enable", responses=WRITES, dependencies=_IF)
    async def enable_provider(
        name: PathName, who: Who, if_revision: IfRevision = None
    ) -> ProviderChange:
        """Enable a provider."""
        patch = ProviderPatch(enabled=True)
        return provider_change(
            await store.update_provider(who, name, patch, if_revision=if_revision)
        )

    @router.post("/providers/{name}/disable", responses=WRITES, dependencies=_IF)
    async def disable_provider(
        name: PathName, who: Who, if_revision: IfRevision = None
    ) -> ProviderChange:
        """Disable a provider; gateways answer 503 for it."""
        patch = ProviderPatch(enabled=False)
        return provider_change(
            await store.update_provider(who, name, patch, if_revision=if_revision)
        )

    @router.post("/apply", responses=WRITES, dependencies=_NONE)
    async def apply_providers(wanted: ApplyIn, who: Who) -> ApplyOut:
        """Make the providers as the drafts say: all of it in one revision, or nothing."""
        result = await store.apply_providers(
            who,
            [draft.draft() for draft in wanted.providers],
            prune=wanted.prune,
            dry_run=wanted.dry_run,
        )
        return apply_out(result, wanted.dry_run)

    @router.get("/export", responses=READS, dependencies=_NONE)
    async def export_providers() -> ExportOut:
        """Return every provider as a draft that keeps its keys and headers."""
        revision = (await store.revisions()).revision
        drafts = await store.export_providers()
        return ExportOut(revision=revision, providers=[draft_out(draft) for draft in drafts])

    return router
