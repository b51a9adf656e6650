"""`bridgepool keys`: who may use gateways, follow the control plane, and change it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from bridgepool.gateway.commands._connecting import WHERE_DEFAULT, Where, ask
from bridgepool.gateway.commands._output import print_json, print_table, tell_change
from bridgepool.gateway.commands._root import app, fail

if TYPE_CHECKING:
    from bridgepool.gateway.control._records import AccessKeyView, NewKey
    from bridgepool.gateway.control.admin import Admin

keys = App(
    name="keys",
    help="Make, list and revoke the keys of clients, gateways and admins.",
    default_parameter=Parameter(negative=""),
)
app.command(keys)

Kind = Literal["client", "gateway", "admin"]


@keys.command(name="list")
def list_(
    kind: Kind | None = None,
    *,
    revoked: bool = False,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
    where: Where = WHERE_DEFAULT,
) -> None:
    """List keys. What is shown are their public ids: a key itself is kept as a hash only.

    Args:
        kind: Only those of clients, of gateways, or of admins.
        revoked: The revoked ones of gateways and admins, too.
        as_json: For programs.
        where: Where the keys are.
    """

    async def collect(admin: Admin) -> list[tuple[Kind, AccessKeyView]]:
        found: list[tuple[Kind, AccessKeyView]] = []
        if kind in (None, "client"):
            clients = await admin.list_clients()
            found += [("client", key) for client in clients for key in client.keys]
        if kind in (None, "gateway"):
            found += [("gateway", key) for key in await admin.list_keys("gateway", revoked=revoked)]
        if kind in (None, "admin"):
            found += [("admin", key) for key in await admin.list_keys("admin", revoked=revoked)]
        return found

    found = ask(where, collect)
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
    role: Literal["read", "write"] = "read",
    wait: Annotated[float | None, Parameter(name="--wait")] = None,
    where: Where = WHERE_DEFAULT,
) -> None:
    """Make a key and print it, this once, on standard output: `... > gateway.key`.

    Args:
        kind: Of a client (made with its first key), of a gateway, or of an admin.
        name: Whose it is: the client's id, the gateway's or the admin's name.
        role: Of an admin: read, or write.
        wait: Seconds to wait until it is live on every connected gateway, and say where on
            standard error.
        where: Where the keys are.
    """
    if kind == "client":
        key_id, key, revision = ask(
            where, lambda admin: _create_of_client(admin, name), may_make=True
        )
    else:
        made = ask(where, lambda admin: admin.create_key(kind, name, role), may_make=True)
        key_id, key, revision = _parts(made)
    print(f"{kind} {name}: key {key_id}, shown only now (revision {revision})", file=sys.stderr)
    print(key, flush=True)
    if wait is not None:
        report = ask(where, lambda admin: admin.applied(revision, wait))
        live = sum(one.state in ("applied", "rejected") for one in report.gateways)
        pending = sum(one.state == "pending" for one in report.gateways)
        print(f"live on {live} gateways, pending on {pending}", file=sys.stderr)
        sys.exit(0 if report.complete else 1)


@keys.command
def revoke(
    kind: Kind,
    name: str,
    key: str | None = None,
    *,
    wait: Annotated[float | None, Parameter(name="--wait")] = None,
    where: Where = WHERE_DEFAULT,
) -> None:
    """Revoke a key. A gateway's sessions end within a second; a client's next request is refused.

    Args:
        kind: Of a client, a gateway, or an admin.
        name: The client's id; of the others the key's id, or the name if only one key has it.
        key: Of a client: the id of one key; without it the client is removed with all keys.
        wait: Seconds to wait until it is live on every connected gateway, and say where.
        where: Where the keys are.
    """
    if kind == "client" and key is not None:
        one = ask(where, lambda admin: admin.revoke_client_key(name, key))
        sys.exit(tell_change(where, one.revision, one.changed, f"revoked {key} of {name}", wait))
    if kind == "client":
        gone = ask(where, lambda admin: admin.remove_client(name))
        sys.exit(tell_change(where, gone.revision, gone.changed, f"removed client {name}", wait))
    if key is not None:
        fail(f"the key of a {kind} is named by its id alone: bridgepool keys revoke {kind} {key}")
    change = ask(where, lambda admin: admin.revoke_key(kind, name))
    what = f"revoked {change.access_key.id} of {kind} {change.access_key.name}"
    sys.exit(tell_change(where, change.revision, change.changed, what, wait))


async def _create_of_client(admin: Admin, name: str) -> tuple[str, str, int]:
    if any(client.id == name for client in await admin.list_clients()):
        return _parts(await admin.add_client_key(name))
    change = await admin.add_client(name)
    key = change.key
    if key is None:
        fail("the control plane made no key for that client")
    return change.client.keys[0].id, key.reveal(), change.revision


def _parts(change: NewKey) -> tuple[str, str, int]:
    return change.access_key.id, change.key.reveal(), change.revision
