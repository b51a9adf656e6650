"""Operations on clients."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import attrs
from msgspec import Meta

from bridgepool.gateway.control._records import (
    AccessKeyChange,
    ClientChange,
    ClientView,
    NewClient,
    NewKey,
)
from bridgepool.gateway.control.operations._operation import Context, operation
from bridgepool.gateway.control.operations._requests import NewName, PathName

KeyHashes: TypeAlias = Annotated[
    tuple[
        Annotated[
            str,
            Meta(extra_json_schema={"pattern": "^sha256:[a-z0-9]{12}:[0-9a-f]{32}:[0-9a-f]{64}$"}),
        ],
        ...,
    ],
    Meta(
        min_length=1,
        max_length=100,
        description="Hashes of keys that it has already; without them it gets a new key.",
    ),
]


@attrs.frozen
class ClientList:
    """All clients."""

    revision: int
    clients: tuple[ClientView, ...]


@attrs.frozen
class OneClient:
    """One client."""

    client: ClientView


@operation("GET", "/clients")
async def list_clients(context: Context) -> ClientList:
    """List all clients, the oldest first."""
    revision = (await context.store.revisions()).revision
    return ClientList(revision, await context.store.list_clients())


@operation("POST", "/clients", status=201, shows_key=True)
async def add_client(
    context: Context, id: NewName, key_hashes: KeyHashes | None = None
) -> NewClient:
    """Add a client. Its first key is shown only in this response."""
    return await context.store.add_client(context.actor, id, key_hashes=key_hashes)


@operation("GET", "/clients/{client_id}")
async def get_client(context: Context, client_id: PathName) -> OneClient:
    """Return one client."""
    return OneClient(await context.store.get_client(client_id))


@operation("DELETE", "/clients/{client_id}")
async def remove_client(context: Context, client_id: PathName) -> ClientChange:
    """Remove a client and revoke its keys."""
    return await context.store.remove_client(context.actor, client_id)


@operation("POST", "/clients/{client_id}/keys", status=201, shows_key=True)
async def add_client_key(context: Context, client_id: PathName) -> NewKey:
    """Make one more key for a client. It is shown only in this response."""
    return await context.store.add_client_key(context.actor, client_id)


@operation("DELETE", "/clients/{client_id}/keys/{key_id}")
async def revoke_client_key(
    context: Context, client_id: PathName, key_id: PathName
) -> AccessKeyChange:
    """Revoke one key of a client."""
    return await context.store.revoke_client_key(context.actor, client_id, key_id)
