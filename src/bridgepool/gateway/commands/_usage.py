"""`bridgepool usage`: who has used what."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Final, TypedDict, Unpack

import attrs
from cyclopts import Parameter
from cyclopts.validators import Number

from bridgepool.gateway.commands._connecting import WHERE_DEFAULT, AsJson, Where, do
from bridgepool.gateway.commands._output import print_json, print_table
from bridgepool.gateway.commands._root import fail
from bridgepool.gateway.control._usage import UsageSum, parse_groups
from bridgepool.gateway.control.operations._usage import list_usage, sum_usage
from bridgepool.gateway.usage._records import UsageRecord

_LIMIT: Final = 50
_NOTHING: Final = (
    "no usage records match; gateways keep them in the store if they run with --store-usage"
)
_SUM_HEADS: Final = (
    "requests", "refused", "complete", "input_tokens", "output_tokens",
    "cached_read_tokens", "cached_write_tokens", "reasoning_tokens",
)  # fmt: skip
_RECORD_HEADS: Final = (
    "time", "client", "provider", "fallback_from", "model", "session", "outcome",
    "status", "input_tokens", "output_tokens", "complete", "cost", "id",
)  # fmt: skip


class Which(TypedDict, total=False):
    """Which records count.

    Args:
        since: The first day, as YYYY-MM-DD.
        until: The day after the last one.
        client: Only of this client.
        provider: Only of this provider.
        model: Only of this model.
        gateway: Only of this gateway.
        session: Only of this session.
    """

    since: Annotated[str, Parameter(metavar="DAY")]
    until: Annotated[str, Parameter(metavar="DAY")]
    client: Annotated[str, Parameter(metavar="ID")]
    provider: Annotated[str, Parameter(metavar="NAME")]
    model: Annotated[str, Parameter(metavar="MODEL")]
    gateway: Annotated[str, Parameter(metavar="NAME")]
    session: Annotated[str, Parameter(metavar="ID")]


def usage(
    *,
    by: Annotated[
        str | None, Parameter(metavar="FIELDS", show_default=lambda _: "client,model")
    ] = None,
    each: bool = False,
    limit: Annotated[
        int | None,
        Parameter(
            validator=Number(gte=1, lte=1000), metavar="COUNT", show_default=lambda _: str(_LIMIT)
        ),
    ] = None,
    before: Annotated[str | None, Parameter(metavar="ID")] = None,
    as_csv: Annotated[bool, Parameter(name="--csv", help="Print CSV.")] = False,
    as_json: AsJson = False,
    where: Where = WHERE_DEFAULT,
    **which: Unpack[Which],
) -> None:
    """Sum what requests have used, or list the records.

    Args:
        by: What to sum by: some of day, client, key, provider, model, gateway, client_kind and
            session, joined by commas; "" for one sum.
        each: List the records, the newest first, instead of sums.
        limit: With --each: how many, at most 1000.
        before: With --each: only records older than the one with this id.
    """
    if as_csv and as_json:
        fail("give one of --csv and --json")
    if each and by is not None:
        fail("--by sums, and --each lists: give one of them")
    if not each and (limit is not None or before is not None):
        fail("--limit and --before require --each")
    groups = "client,model" if by is None else by
    if each:
        page = do(where, list_usage, limit or _LIMIT, before, **which)
        rows: Sequence[object] = page.records
    else:
        report = do(where, sum_usage, groups, **which)
        if report.truncated:
            fail("there are more groups than an answer holds: filter, or group by less")
        rows = report.sums
    if not rows:
        print(_NOTHING, file=sys.stderr)
    if as_json:
        print_json(rows)
    elif each and as_csv:
        heads = attrs.fields_dict(UsageRecord)
        _print_csv(heads, ([getattr(one, head) for head in heads] for one in page.records))
    elif each:
        titles = [_title(head) for head in _RECORD_HEADS]
        print_table(titles, (_short_record(record) for record in page.records))
    else:
        _print_sums(parse_groups(groups), report.sums, as_csv=as_csv)


def _print_sums(groups: Sequence[str], sums: Sequence[UsageSum], *, as_csv: bool) -> None:
    """Print sums, with a column for the costs in each currency."""
    currencies = sorted({currency for one in sums for currency in one.costs})
    money = [f"cost_{currency}" for currency in currencies]
    heads = [*groups, *_SUM_HEADS, *money, "unpriced", "priced_as_unknown"]
    rows = []
    for one in sums:
        costs = [one.costs.get(currency) for currency in currencies]
        shown = costs if as_csv else map(_amount, costs)
        known = [getattr(one, head) for head in (*groups, *_SUM_HEADS)]
        rows.append([*known, *shown, one.unpriced, one.priced_as_unknown])
    if as_csv:
        _print_csv(heads, rows)
    else:
        print_table([_title(head) for head in heads], rows)


def _title(head: str) -> str:
    return head.removesuffix("_tokens").replace("_", " ").upper()


def _amount(cost: float | None) -> str | None:
    """Return an amount of money for people: never 0 for what is a little more."""
    if cost is None:
        return None
    return "<0.000001" if 0 < cost < 1e-6 else f"{cost:.6f}"


def _short_record(record: UsageRecord) -> list[object]:
    """Return the cells of a record for people."""
    cells = {head: getattr(record, head) for head in _RECORD_HEADS}
    cells["model"] = record.answered_model or record.model  # as in sums
    if record.cost is not None:
        cells["cost"] = f"{_amount(record.cost)} {record.currency}"
    return list(cells.values())


def _print_csv(heads: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(map(_cell, heads))
    writer.writerows([_cell(value) for value in row] for row in rows)


def _cell(value: object) -> object:
    """Return a value for CSV; no text that a spreadsheet would run as a formula."""
    if isinstance(value, tuple):
        value = " ".join(map(str, value))
    if isinstance(value, str) and len(value) > 1 and value[0] in "=+-@\t\r":
        return f"'{value}"
    return value
