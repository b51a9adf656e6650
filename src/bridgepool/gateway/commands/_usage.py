"""`bridgepool usage`: who has used what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from bridgepool.gateway.commands._connecting import WHERE_DEFAULT, AsJson, Where, administer
from bridgepool.gateway.commands._output import print_json, print_table
from bridgepool.gateway.commands._root import app, fail


@app.command
def usage(
    *,
    by: str = "client,model",
    each: bool = False,
    since: str | None = None,
    until: str | None = None,
    client: str | None = None,
    provider: str | None = None,
    model: str | None = None,
    gateway: str | None = None,
    session: str | None = None,
    limit: Annotated[int, Parameter(validator=Number(gte=1, lte=1000), metavar="COUNT")] = 50,
    before: str | None = None,
    as_csv: Annotated[bool, Parameter(name="--csv", help="Print CSV.")] = False,
    as_json: AsJson = False,
    where: Where = WHERE_DEFAULT,
) -> None:
    """Sum what requests have used, or list the records with --each. Days are those of UTC.

    Args:
        by: What to sum by: some of day, client, provider, model, gateway and client_kind, joined
            by commas; "" for one sum.
        each: List the records, the newest first, instead of sums.
        since: The first day, as YYYY-MM-DD.
        until: The day after the last one.
        client: Only of this client.
        provider: Only of this provider.
        model: Only of this model.
        gateway: Only of this gateway.
        session: Only of this session.
        limit: With --each: how many, at most 1000.
        before: With --each: only records older than the one with this id.
    """
    from bridgepool.gateway.control.operations._usage import list_usage, sum_usage

    which = (since, until, client, provider, model, gateway, session)
    rows: Sequence[object]
    heads: tuple[str, ...]
    if each:
        page = administer(where, lambda admin: admin.do(list_usage, limit, before, *which))
        rows = page.records
        heads = (
            "time", "client", "provider", "answered_model", "session", "outcome", "status",
            "input_tokens", "output_tokens", "complete", "id",
        )  # fmt: skip
    else:
        report = administer(where, lambda admin: admin.do(sum_usage, by, *which))
        rows = report.sums
        groups = [name for name in by.split(",") if name]
        heads = (
            *groups, "requests", "refused", "complete", "input_tokens", "output_tokens",
            "cached_read_tokens", "cached_write_tokens", "reasoning_tokens",
        )  # fmt: skip
        if report.truncated:
            fail("there are more groups than an answer holds: filter, or group by less")
    if as_json:
        print_json(rows)
    elif as_csv:
        _print_csv(rows, heads if not each else None)
    else:
        titles = [head.removesuffix("_tokens").replace("_", " ").upper() for head in heads]
        print_table(titles, ([getattr(row, head) for head in heads] for row in rows))


def _print_csv(rows: Iterable[object], heads: Sequence[str] | None) -> None:
    """Print rows as CSV, with these columns, or with all of a usage record's."""
    import csv
    import sys

    import attrs

    from bridgepool.gateway.usage._records import UsageRecord

    names = heads or [field.name for field in attrs.fields(UsageRecord)]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_cell(getattr(row, name)) for name in names] for row in rows)


def _cell(value: object) -> object:
    """Return a value for CSV; no text that a spreadsheet would run as a formula."""
    if isinstance(value, tuple):
        value = " ".join(map(str, value))
    if isinstance(value, str) and len(value) > 1 and value[0] in "=+-@\t\r":
        return f"'{value}"
    return value
