"""The routes that tell how it stands: gateways, revisions, the audit, health."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi.responses import JSONResponse
from pydantic import AfterValidator

from bridgepool.gateway.control.api._answers import (
    AppliedOut,
    AuditOut,
    GatewaysOut,
    HealthOut,
    ReadyOut,
    RevisionOut,
)
from bridgepool.gateway.control.api._bodies import MAX_INTEGER, NAME_PATTERN, Name, sound_name
from bridgepool.gateway.control.api._errors import ErrorBody, error_answer
from bridgepool.gateway.control.api._parts import READS, Sources, new_router, queries
from bridgepool.gateway.control.api._views import applied_out, audit_out, gateways_out

MAX_WAIT = 60.0
"""Seconds for which a question may be kept open."""
_NONE = [queries()]


def status_routes(sources: Sources) -> APIRouter:
    """Make the routes under ``/gateways``, ``/revision``, ``/revisions`` and ``/audit``."""
    router, store, hub = new_router(), sources.store, sources.hub

    @router.get("/gateways", responses=READS, dependencies=_NONE)
    async def list_gateways() -> GatewaysOut:
        """List the gateways that are known, whichever control plane they are connected to."""
        revision = (await store.revisions()).revision
        return gateways_out(revision, await hub.gateways())

    @router.get("/revision", responses=READS, dependencies=_NONE)
    async def get_revision() -> RevisionOut:
        """Tell the revisions in force."""
        return RevisionOut.model_validate(await store.revisions())

    @router.get("/revisions/{revision}/applied", responses=READS, dependencies=[queries("wait")])
    async def wait_applied(
        revision: Annotated[int, Path(ge=0, le=MAX_INTEGER)],
        wait: Annotated[
            float,
            Query(
                ge=0,
                le=MAX_WAIT,
                allow_inf_nan=False,
                description="Seconds to wait until no connected gateway is pending.",
            ),
        ] = 0.0,
    ) -> AppliedOut:
        """Tell what each gateway made of a revision."""
        return applied_out(await hub.wait_applied(revision, wait))

    @router.get("/audit", responses=READS, dependencies=[queries("limit", "before", "name")])
    async def list_audit(
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        before: Annotated[
            int | None, Query(ge=0, le=MAX_INTEGER, description="Only older ones than this id.")
        ] = None,
        name: Annotated[
            Annotated[Name, AfterValidator(sound_name)] | None,
            Query(
                description="Of rows with this name or id.",
                json_schema_extra={"pattern": NAME_PATTERN},
            ),
        ] = None,
    ) -> AuditOut:
        """List the changes, the newest first."""
        return audit_out(await store.audit(limit=limit, before=before, name=name), limit)

    return router


def health_routes(sources: Sources) -> APIRouter:
    """Make the routes that need no key."""
    router, hub = APIRouter(), sources.hub

    @router.get("/healthz")
    async def healthz() -> HealthOut:  # noqa: ASYNC124  # sync ones run in threads
        """Tell that the process runs."""
        return HealthOut(status="ok")

    @router.get("/readyz", response_model=ReadyOut, responses={503: {"model": ErrorBody}})
    async def readyz() -> ReadyOut | JSONResponse:  # noqa: ASYNC124  # see above
        """Tell whether the store can be read, and that the process is not about to end."""
        status = hub.status()
        if status.ending:
            return error_answer(503, "draining", "the control plane is about to end")
        if status.store_problem is not None:
            return error_answer(503, "store_unavailable", status.store_problem)
        return ReadyOut(status="ready", revision=status.revisions.revision)

    return router
