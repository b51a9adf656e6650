"""`bridgepool keys`: the keys of clients, gateways and admins."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

from cyclopts import App, Parameter

from bridgepool.gateway.commands._clients import NO_NEW_RULES, NewRules, read_rules
from bridgepool.gateway.commands._connecting import (
    NO_WAIT,
    WHERE_DEFAULT,
    AsJson,
    Wait,
    Where,
    administer,
    do,
)
from bridgepool.gateway.commands._output import print_json, print_table, report_change, report_key
from bridgepool.gateway.commands._root import fail
from bridgepool.gateway.control._records import AccessKeyView, NewClient, NewKey
from bridgepool.gateway.control.operations import Admin, _clients, _keys

keys = App(name="keys")

Kind = Literal["client", "gateway", "admin"]


@keys.command(name="list")
def list_(
    kind: Kind | None = None,
    *,
    revoked: bool = False,
    as_json: AsJson = False,
    where: Where = WHERE_DEFAULT,
) -> None:
    """List keys by their public ids; of a key itself only a hash is stored.

    Args:
        kind: Only the keys of clients, of gateways, or of admins.
        revoked: Include revoked keys of gateways and admins.
    """

    async def collect(admin: Admin) -> list[tuple[Kind, AccessKeyView]]:
        found: list[tuple[Kind, AccessKeyView]] = []
        if kind in (None, "client"):
            clients = (await admin.do(_clients.list_clients)).clients
            found += [("client", key) for client in clients for key in client.keys]
        if kind in (None, "gateway"):
            listed = await admin.do(_keys.list_gateway_keys, revoked)
            found += [("gateway", key) for key in listed.keys]
        if kind in (None, "admin"):
            listed = await admin.do(_keys.list_admin_keys, revoked)
            found += [("admin", key) for key in listed.keys]
        return found

    found = administer(where, collect)
    if as_json:
        print_json([{"kind": of, "key": key} for of, key in found])
        return
    print_table(
        ("KIND", "NAME", "KEY ID", "ROLE", "CREATED", "REVOKED"),
        ((of, key.name, key.id, key.role, key.created, key.revoked) for of, key in found),
    )


@keys.command
def create(
    kind: Kind,
    name: str,
    *,
    role: Annotated[
        Literal["read", "write"] | None, Parameter(show_default=lambda _: "read")
    ] = None,
    rules: NewRules = NO_NEW_RULES,
    wait: Wait = NO_WAIT,
    where: Where = WHERE_DEFAULT,
) -> None:
    """Make a key and print it on standard output. It is not shown again.

    Args:
        kind: Whose key: `client` for a program that calls gateways, `gateway` for a gateway that
            follows a control plane, `admin` for the API and these commands. A client that does not
            exist yet is added; `bridgepool clients create` adds one with rules of its own.
        name: The id of the client, or the name of the gateway or admin.
        role: The role of an admin key: read, or write.
        rules: The rules of this key, beside those of the client.
    """
    given = read_rules(rules)
    if given and kind != "client":
        fail(f"a {kind} key has no rules; they are for keys of clients")
    if role is not None and kind != "admin":
        fail(f"a {kind} key has no role; --role is for keys of admins")

    async def make(admin: Admin) -> NewKey | NewClient:
        if kind == "gateway":
            return await admin.do(_keys.create_gateway_key, name)
        if kind == "admin":
            return await admin.do(_keys.create_admin_key, name, role or "read")
        clients = (await admin.do(_clients.list_clients)).clients
        if any(client.id == name for client in clients):
            return await admin.do(_clients.add_client_key, name, given)
        return await admin.do(_clients.add_client, name, key_rules=given)

    sys.exit(report_key(where, f"{kind} {name}", administer(where, make), wait))


@keys.command
def revoke(
    kind: Kind,
    name: str,
    key: str | None = None,
    *,
    wait: Wait = NO_WAIT,
    where: Where = WHERE_DEFAULT,
) -> None:
    """Revoke a key. A gateway's sessions end within a second; a client's next request is refused.

    Args:
        kind: A key of a client, of a gateway, or of an admin.
        name: The id of the client; else the id of the key, or its name if only one key has it.
        key: The id of one key of a client; without it the client is removed with all keys.
    """
    if kind == "client" and key is not None:
        one = do(where, _clients.revoke_client_key, name, key)
        sys.exit(report_change(where, one, f"revoked {key} of {name}", wait))
    if kind == "client":
        gone = do(where, _clients.remove_client, name)
        sys.exit(report_change(where, gone, f"removed client {name}", wait))
    if key is not None:
        fail(f"a {kind} key is named by its id alone: bridgepool keys revoke {kind} {key}")
    operation = _keys.revoke_gateway_key if kind == "gateway" else _keys.revoke_admin_key
    change = do(where, operation, name)
    what = f"revoked {change.access_key.id} of {kind} {change.access_key.name}"
    sys.exit(report_change(where, change, what, wait))
