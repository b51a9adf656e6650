"""Where the access log of the process goes."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bridgepool._services import open_service_nursery
from bridgepool.gateway.proxy._access_log import (
    AccessLog,
    AccessRecord,
    LineWriter,
    console_line,
    json_line,
    write_to,
)
from bridgepool.gateway.serving._listening import StartError
from bridgepool.gateway.serving._logs import LogFormat, use_json


@asynccontextmanager
async def open_access_log(target: str, log_format: LogFormat) -> AsyncIterator[AccessLog | None]:
    """Open where the line per request goes, with its writer task.

    Args:
        target: a file to append to, `-` for standard output, or `none`.
        log_format: how a line looks; auto is JSON but on a terminal.

    Raises:
        StartError: the file cannot be opened.
    """
    if target == "none":
        yield None
        return
    as_json = use_json(log_format, sys.stdout) if target == "-" else log_format != "console"
    line = json_line if as_json else console_line
    descriptor = 1
    if target != "-":
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            descriptor = os.open(target, flags, 0o640)
        except OSError as error:
            raise StartError(f"--access-log {target}: {error.strerror}") from None
    writer = LineWriter(write_to(descriptor))

    def log(record: AccessRecord) -> None:
        writer.append(line(record))

    try:
        async with open_service_nursery() as nursery:
            nursery.start_soon(writer.run)
            try:
                yield log
            finally:
                nursery.cancel_scope.cancel()
    finally:
        if descriptor != 1:
            os.close(descriptor)
