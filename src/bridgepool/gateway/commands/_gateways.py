"""`bridgepool gateways`: who follows the control plane, and by which revision they serve."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from bridgepool.gateway.commands._connecting import WHERE_DEFAULT, Where, ask
from bridgepool.gateway.commands._output import print_json, print_table, report_applied
from bridgepool.gateway.commands._root import app


@app.command
def gateways(
    *,
    revision: int | None = None,
    wait: float | None = None,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
    where: Where = WHERE_DEFAULT,
) -> None:
    """List the gateways: connected or not, the revision each serves by, what it rejected.

    Args:
        revision: Say instead what each made of this revision; exit status 1 if it is not
            applied on every connected gateway.
        wait: With --revision: seconds to wait until no gateway is pending.
        as_json: For programs.
        where: Where the gateways are known.
    """
    from bridgepool.gateway.control.operations._gateways import list_gateways, wait_long

    if revision is not None and as_json:
        report = ask(where, lambda admin: wait_long(admin, revision, wait or 0.0))
        print_json(report)
        sys.exit(0 if report.complete and report.applied else 1)
    if revision is not None:
        sys.exit(report_applied(where, revision, wait or 0.0))
    found = ask(where, lambda admin: admin.do(list_gateways))
    if as_json:
        print_json(found)
        return
    print(f"revision in force: {found.revision}")
    print_table(
        ("GATEWAY", "INSTANCE", "CONNECTED", "REVISION", "REJECTED", "LAST CONTACT", "SOFTWARE"),
        (
            (
                one.gateway,
                one.instance,
                one.connected,
                one.revision,
                "; ".join(f"{bad.name}: {bad.reason}" for bad in one.rejected),
                one.last_contact,
                one.software,
            )
            for one in found.gateways
        ),
    )
