"""`bridgepool audit`: who changed what, and when."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from bridgepool.gateway.commands._connecting import WHERE_DEFAULT, Where, ask
from bridgepool.gateway.commands._output import print_json, print_table
from bridgepool.gateway.commands._root import app


@app.command
def audit(
    *,
    name: str | None = None,
    limit: int = 50,
    before: int | None = None,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
    where: Where = WHERE_DEFAULT,
) -> None:
    """List changes, the newest first. Secrets are masked; --json has each row before and after.

    Args:
        name: Only those of this name or id.
        limit: How many, at most 1000.
        before: Only those older than the entry of this id.
        as_json: For programs.
        where: Where the audit is.
    """
    from bridgepool.gateway.control.operations._audit import list_audit

    page = ask(where, lambda admin: admin.do(list_audit, limit, before, name))
    if as_json:
        print_json(page.entries)
        return
    print_table(
        ("ID", "WHEN", "WHO", "WHAT", "NAME", "REVISION", "FIELDS"),
        (
            (
                one.id,
                one.at,
                f"{one.actor.kind} {one.actor.name}",
                one.action,
                one.name,
                one.revision,
                ", ".join(one.fields),
            )
            for one in page.entries
        ),
    )
