"""Where the access logs of the programs go; each program has its own record of a request."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from bridgepool.gateway.serving._line_writer import LineWriter
from bridgepool.gateway.serving._listening import StartError
from bridgepool.gateway.serving._logs import LogFormat, ProgramLogs, use_json

R = TypeVar("R")


def make_access_log(
    target: str,
    log_format: LogFormat,
    logs: ProgramLogs,
    *,
    json_line: Callable[[R], bytes],
    console_line: Callable[[R], bytes],
) -> Callable[[R], None] | None:
    """Return the access log of a program; None if it has none.

    Args:
        target: A file to append to, `-` for standard output, or `none`.
        log_format: The format of a line; `auto` is `console` on a terminal, else `json`.
        logs: The logs of the program.
        json_line: Formats a record as JSON.
        console_line: Formats a record for people.

    Raises:
        StartError: The file cannot be opened, or the argument was left out.
    """
    if target == "none":
        return None
    writer = open_log(target, logs, "access log")
    as_json = use_json(log_format, sys.stdout) if target == "-" else log_format != "console"
    line = json_line if as_json else console_line

    def log(record: R) -> None:
        writer.append(line(record))

    return log


def open_log(target: str, logs: ProgramLogs, name: str) -> LineWriter:
    """Return the writer of a log whose place an option gives.

    Args:
        target: A file to append to, or `-` for standard output.
        logs: The logs of the program.
        name: Of the log, and with `-` between its words of the option.

    Raises:
        StartError: The file cannot be opened, or the argument was left out.
    """
    option = f"--{name.replace(' ', '-')}"
    if target.startswith("--"):
        raise StartError(f"{option} {target}: is an option; for such a file write ./{target}")
    if target == "-":
        return logs.stdout
    try:
        return logs.open_file(target, name)
    except OSError as error:
        raise StartError(f"{option} {target}: {error.strerror}") from None


def timestamp() -> str:
    """Return the wall clock as RFC 3339 in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
