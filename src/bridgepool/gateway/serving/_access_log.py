"""Where the access logs of the programs go; each program has its own record of a request."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

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
    if target.startswith("--"):
        raise StartError(f"--access-log {target}: is an option; for such a file write ./{target}")
    if target == "-":
        writer, as_json = logs.stdout, use_json(log_format, sys.stdout)
    else:
        try:
            writer = logs.open_file(target, "access log")
        except OSError as error:
            raise StartError(f"--access-log {target}: {error.strerror}") from None
        as_json = log_format != "console"
    line = json_line if as_json else console_line

    def log(record: R) -> None:
        writer.append(line(record))

    return log


def timestamp() -> str:
    """Return the wall clock as RFC 3339 in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
