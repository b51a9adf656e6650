"""Operations on the keys of gateways and admins."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import attrs
from msgspec import Meta

from bridgepool.gateway.control._records import AccessKeyChange, AccessKeyView, NewKey, Role
from bridgepool.gateway.control.operations._operation import Context, operation
from bridgepool.gateway.control.operations._requests import NewName, PathName

Revoked: TypeAlias = Annotated[bool, Meta(description="Include the revoked keys.")]


@attrs.frozen
class AccessKeyList:
    """Keys of one kind."""

    keys: tuple[AccessKeyView, ...]


@operation("GET", "/gateway-keys")
async def list_gateway_keys(context: Context, revoked: Revoked = False) -> AccessKeyList:
    """List the keys of gateways, the oldest first."""
    return AccessKeyList(await context.store.list_keys("gateway", revoked=revoked))


@operation("POST", "/gateway-keys", status=201, shows_key=True)
async def create_gateway_key(context: Context, name: NewName) -> NewKey:
    """Make a key for a gateway. It is shown only in this response."""
    return await context.store.create_gateway_key(context.actor, name)


@operation("DELETE", "/gateway-keys/{key}")
async def revoke_gateway_key(context: Context, key: PathName) -> AccessKeyChange:
    """Revoke a gateway's key, which ends its connections."""
    return await context.store.revoke_key(context.actor, "gateway", key)


@operation("GET", "/admin-keys")
async def list_admin_keys(context: Context, revoked: Revoked = False) -> AccessKeyList:
    """List the keys of this API, the oldest first."""
    return AccessKeyList(await context.store.list_keys("admin", revoked=revoked))


@operation("POST", "/admin-keys", status=201, shows_key=True)
async def create_admin_key(context: Context, name: NewName, role: Role) -> NewKey:
    """Make a key for this API. It is shown only in this response."""
    return await context.store.create_admin_key(context.actor, name, role)


@operation("DELETE", "/admin-keys/{key}")
async def revoke_admin_key(context: Context, key: PathName) -> AccessKeyChange:
    """Revoke a key of this API."""
    return await context.store.revoke_key(context.actor, "admin", key)
