"""The routes of clients, and of the keys of gateways and admins."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from bridgepool.gateway.control.api._answers import (
    AccessKeyChange,
    AccessKeysOut,
    ClientChange,
    ClientsOut,
    NewClientOut,
    NewKeyOut,
    OneClient,
)
from bridgepool.gateway.control.api._bodies import AdminKeyIn, ClientIn, GatewayKeyIn
from bridgepool.gateway.control.api._parts import (
    READS,
    WRITES,
    PathName,
    Sources,
    Who,
    new_router,
    queries,
)
from bridgepool.gateway.control.api._views import (
    client_change,
    client_out,
    key_change,
    keys_out,
    new_client,
    new_key,
)

_NONE = [queries()]
_REVOKED = [queries("revoked")]
Revoked = Annotated[bool, Query(description="Those that were revoked, too.")]


def client_routes(sources: Sources) -> APIRouter:
    """Make the routes under ``/clients``."""
    router, store = new_router(), sources.store

    @router.get("/clients", responses=READS, dependencies=_NONE)
    async def list_clients() -> ClientsOut:
        """List all clients, the oldest first."""
        revision = (await store.revisions()).revision
        views = await store.list_clients()
        return ClientsOut(revision=revision, clients=[client_out(view) for view in views])

    @router.post("/clients", status_code=201, responses=WRITES, dependencies=_NONE)
    async def add_client(client: ClientIn, who: Who) -> NewClientOut:
        """Add a client. Its first key is in the answer, and nowhere else."""
        return new_client(await store.add_client(who, client.id, key_hashes=client.key_hashes))

    @router.get("/clients/{client_id}", responses=READS, dependencies=_NONE)
    async def get_client(client_id: PathName) -> OneClient:
        """Show one client."""
        return OneClient(client=client_out(await store.get_client(client_id)))

    @router.delete("/clients/{client_id}", responses=WRITES, dependencies=_NONE)
    async def remove_client(client_id: PathName, who: Who) -> ClientChange:
        """Remove a client and revoke its keys."""
        return client_change(await store.remove_client(who, client_id))

    @router.post("/clients/{client_id}/keys", status_code=201, responses=WRITES, dependencies=_NONE)
    async def add_client_key(client_id: PathName, who: Who) -> NewKeyOut:
        """Make one more key for a client. It is in the answer, and nowhere else."""
        return new_key(await store.add_client_key(who, client_id))

    @router.delete("/clients/{client_id}/keys/{key_id}", responses=WRITES, dependencies=_NONE)
    async def revoke_client_key(client_id: PathName, key_id: PathName, who: Who) -> AccessKeyChange:
        """Revoke one key of a client."""
        return key_change(await store.revoke_client_key(who, client_id, key_id))

    return router


def key_routes(sources: Sources) -> APIRouter:
    """Make the routes under ``/gateway-keys`` and ``/admin-keys``."""
    router, store = new_router(), sources.store

    @router.get("/gateway-keys", responses=READS, dependencies=_REVOKED)
    async def list_gateway_keys(revoked: Revoked = False) -> AccessKeysOut:
        """List the keys of gateways, the oldest first."""
        return keys_out(await store.list_gateway_keys(revoked=revoked))

    @router.post("/gateway-keys", status_code=201, responses=WRITES, dependencies=_NONE)
    async def create_gateway_key(wanted: GatewayKeyIn, who: Who) -> NewKeyOut:
        """Make a key for a gateway. It is in the answer, and nowhere else."""
        return new_key(await store.create_gateway_key(who, wanted.name))

    @router.delete("/gateway-keys/{key}", responses=WRITES, dependencies=_NONE)
    async def revoke_gateway_key(key: PathName, who: Who) -> AccessKeyChange:
        """Revoke a gateway's key, which ends its connections."""
        return key_change(await store.revoke_gateway_key(who, key))

    @router.get("/admin-keys", responses=READS, dependencies=_REVOKED)
    async def list_admin_keys(revoked: Revoked = False) -> AccessKeysOut:
        """List the keys of this API, the oldest first."""
        return keys_out(await store.list_admin_keys(revoked=revoked))

    @router.post("/admin-keys", status_code=201, responses=WRITES, dependencies=_NONE)
    async def create_admin_key(wanted: AdminKeyIn, who: Who) -> NewKeyOut:
        """Make a key for this API. It is in the answer, and nowhere else."""
        return new_key(await store.create_admin_key(who, wanted.name, wanted.role))

    @router.delete("/admin-keys/{key}", responses=WRITES, dependencies=_NONE)
    async def revoke_admin_key(key: PathName, who: Who) -> AccessKeyChange:
        """Revoke a key of this API."""
        return key_change(await store.revoke_admin_key(who, key))

    return router
