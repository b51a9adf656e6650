"""Output of the commands: tables for people, JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, TextIO, TypeAlias

import msgspec

from bridgepool.gateway.commands._connecting import Wait, Where, administer
from bridgepool.gateway.commands._root import fail
from bridgepool.gateway.control._records import (
    AccessKeyChange,
    ApplyResult,
    ClientChange,
    EpochChange,
    NewClient,
    NewKey,
    ProviderChange,
)
from bridgepool.gateway.control.operations._gateways import wait_long

Change: TypeAlias = ProviderChange | ClientChange | AccessKeyChange | ApplyResult | EpochChange

_UNLIMITED_WIDTH: Final = 10_000  # columns
_LEAST_WRAPPED: Final = 30  # columns for the last one, below which the terminal wraps whole rows


def print_json(value: object) -> None:
    """Print a record, or a list or mapping of records, as JSON."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_table(
    heads: Sequence[str], rows: Iterable[Sequence[object]], file: TextIO | None = None
) -> None:
    """Print rows in columns, one line each; on standard output, unless another file is given.

    On a terminal the last column, which may hold a sentence, is wrapped, if there is room for it.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    cells = [[_cell(value) for value in row] for row in rows]
    for number, head in enumerate(heads, start=1):
        table.add_column(head, no_wrap=number < len(heads))
    for row in cells:
        table.add_row(*map(Text, row))
    console = Console(highlight=False)
    others = zip(*(line[:-1] for line in [list(heads), *cells]), strict=True)
    room = console.width - sum(max(map(len, column)) + 2 for column in others)
    if not console.is_terminal or room < _LEAST_WRAPPED:
        console.width = _UNLIMITED_WIDTH
    with console.capture() as capture:
        console.print(table, crop=False)
    for line in capture.get().splitlines():
        print(line.rstrip(), file=file)  # without the padding of the last column


def value_text(value: object) -> str:
    """Return a value as people write it: no decimals that say nothing."""
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return ", ".join(map(value_text, value)) if isinstance(value, list | tuple) else str(value)


def _cell(value: object) -> str:
    """Return the text of a cell, with its control characters escaped."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    text = value_text(value)
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text) or "-"


def report_change(options: Where, change: Change, what: str, wait: Wait) -> int:
    """Report what a write did; with `wait`, also where it is live. Returns the exit status."""
    if not change.changed:
        print(f"{what}: nothing to change (revision {change.revision})")
    else:
        print(f"{what} (revision {change.revision})")
    return 0 if wait.wait is None else report_applied(options, change.revision, wait)


def report_key(options: Where, whose: str, made: NewKey | NewClient, wait: Wait) -> int:
    """Print a key that was made, alone on standard output; returns the exit status."""
    if made.key is None:
        fail("the control plane made no key for that client")
    key_id = made.client.keys[0].id if isinstance(made, NewClient) else made.access_key.id
    shown = f"key {key_id}, shown only now (revision {made.revision})"
    print(f"{whose}: {shown}", file=sys.stderr)
    print(made.key.reveal(), flush=True)
    if wait.wait is None:
        return 0
    return report_applied(options, made.revision, wait, file=sys.stderr)


def report_applied(
    options: Where,
    revision: int,
    wait: Wait,
    *,
    as_json: bool = False,
    file: TextIO | None = None,
) -> int:
    """Wait until a revision is live and report where; returns the exit status."""
    seconds, expect = wait.wait or 0.0, wait.expect
    report = administer(
        options, lambda admin: wait_long(admin, revision, seconds, expect, wait.min)
    )
    if not report.connected:
        line = (
            "no gateway is connected, so none has confirmed the change; those with --store never do"
        )
        print(line, file=sys.stderr)
    if report.missing:
        print(f"not live on {', '.join(report.missing)}, expected by --expect", file=sys.stderr)
    if as_json:
        print_json(report)
    elif report.gateways:
        print_table(
            ("GATEWAY", "INSTANCE", "STATE", "REVISION", "REASON"),
            (
                (
                    one.gateway,
                    one.instance,
                    one.state,
                    one.revision,
                    "; ".join(f"{bad.name}: {bad.reason}" for bad in one.rejected),
                )
                for one in report.gateways
            ),
            file,
        )
    return 0 if report.applied else 1
