"""`bridgepool audit`: who changed what, and when."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from bridgepool.gateway.commands._connecting import WHERE_DEFAULT, AsJson, Where, do
from bridgepool.gateway.commands._output import print_json, print_table
from bridgepool.gateway.control.operations._audit import list_audit


def audit(
    *,
    name: Annotated[str | None, Parameter(metavar="NAME")] = None,
    limit: Annotated[int, Parameter(validator=Number(gte=1, lte=1000), metavar="COUNT")] = 50,
    before: Annotated[int | None, Parameter(validator=Number(gte=1), metavar="ID")] = None,
    as_json: AsJson = False,
    where: Where = WHERE_DEFAULT,
) -> None:
    """List changes, the newest first.

    Args:
        name: Only changes of this name or id.
        limit: How many, at most 1000.
        before: Only changes older than the entry with this id.
    """
    page = do(where, list_audit, limit, before, name)
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
                ", ".join(one.fields) if one.problem is None else "unreadable",
            )
            for one in page.entries
        ),
    )
