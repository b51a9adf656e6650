"""`bridgepool gateways`: the gateways of a control plane, and the revision that each serves."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from bridgepool.gateway.commands._connecting import NO_WAIT, WHERE_DEFAULT, AsJson, Wait, Where, do
from bridgepool.gateway.commands._output import print_json, print_table, report_applied
from bridgepool.gateway.commands._root import fail
from bridgepool.gateway.control._gateway_session import GatewaySession
from bridgepool.gateway.control.operations._gateways import forget_gateway, list_gateways

gateways = App(name="gateways")


@gateways.default
def list_(
    *,
    revision: Annotated[int | None, Parameter(validator=Number(gte=0), metavar="REVISION")] = None,
    wait: Wait = NO_WAIT,
    as_json: AsJson = False,
    where: Where = WHERE_DEFAULT,
) -> None:
    """List the gateways, the revision that each serves, and what it rejected.

    Args:
        revision: Report instead the state of this revision on each gateway; exit status 1 unless
            every connected gateway has applied it.
    """
    if revision is not None:
        sys.exit(report_applied(where, revision, wait, as_json=as_json))
    if wait.wait is not None:
        fail("--wait requires --revision")
    found = do(where, list_gateways)
    if as_json:
        print_json(found)
        return
    print(f"revision in force: {found.revision}")
    if found.unreadable:
        print(f"providers that cannot be read: {len(found.unreadable)}")
        for one in found.unreadable:
            print(f"  {one.name}: {one.reason}")
    users = Counter((one.gateway, one.key_id) for one in found.gateways if one.connected)
    for (name, key), count in users.items():
        if count > 1:
            print(
                f"gateway {name}: {count} processes use its key {key}; make a key for each of them"
            )
    print_table(
        ("GATEWAY", "INSTANCE", "CONNECTED", "REVISION", "REJECTED", "LAST CONTACT", "SOFTWARE"),
        (
            (
                one.gateway,
                one.instance,
                _connection(one),
                _revision(one, found.epoch),
                "; ".join(f"{bad.name}: {bad.reason}" for bad in one.rejected),
                one.last_contact,
                one.software,
            )
            for one in found.gateways
        ),
    )


@gateways.command
def forget(name: str, *, where: Where = WHERE_DEFAULT) -> None:
    """Forget a gateway that is offline and will not come back, such as one whose machine is gone.

    Args:
        name: The name of the gateway, or the instance of one of its processes.
    """
    found = do(where, forget_gateway, name)
    processes = "process" if found.forgotten == 1 else "processes"
    print(f"forgot {name}: {found.forgotten} {processes}")


def _connection(session: GatewaySession) -> str | bool:
    """Show whether a gateway is connected, and if not, why."""
    if session.reconnecting:
        return "reconnecting"
    return "stopped" if session.stopped else session.connected


def _revision(session: GatewaySession, epoch: str) -> str | int | None:
    """Show the revision that a gateway serves, and whether it is of an epoch that has ended."""
    if session.revision is None or session.epoch == epoch:
        return session.revision
    return f"{session.revision} (old epoch)"
