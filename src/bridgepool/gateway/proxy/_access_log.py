"""The access log: one line per request, formatted in microseconds and written in a thread.

A request's task only formats its line and appends it to a list. One writer task passes the
collected lines to a thread a few times a second, so that a slow disk or a stuck pipe never delays
a request. Beyond a limit, lines are dropped and counted.

No line holds a header value, a query string or a body: that is where secrets travel. Of the
path it has what `_redaction` lets through, so that a key in it is not shown.
"""

from __future__ import annotations

import enum
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

import attrs
import msgspec
import trio

from bridgepool._services import open_service_nursery
from bridgepool.gateway.serving._listening import StartError
from bridgepool.gateway.serving._logs import LogFormat, use_json

logger = logging.getLogger("bridgepool.gateway")

_FLUSH_INTERVAL: Final = 0.02  # seconds from the first line to the write that includes it
_MAX_BUFFERED: Final = 8 * 2**20  # bytes kept for a sink that is behind
_CLOSE_TIMEOUT: Final = 2.0  # seconds that closing waits for the sink

_encode = msgspec.json.Encoder().encode


class Outcome(enum.Enum):
    """How a request ended."""

    COMPLETE = "complete"
    """The client got the provider's whole response, whatever its status."""
    REFUSED = "refused"
    """The gateway refused the request; `code` names the refusal."""
    UPSTREAM_CUT = "upstream_cut"
    """The provider's response broke off after its start; the client's was cut, too."""
    CLIENT_GONE = "client_gone"
    """The client left, or the server stopped, before the response was complete."""
    DRAIN_DEADLINE = "drain_deadline"
    """The bridge was closed during the request: its drain deadline had passed."""
    FAILED = "failed"
    """An error of the gateway; the log has the traceback."""


@attrs.define(eq=False)
class AccessRecord:
    """The record of one request; the gateway fills it in while it serves."""

    method: str
    """`*` if it is none of HTTP's own."""
    path: str = ""
    """The path without its query: the provider's name and the words of its API; `*` replaces
    every other segment, such as an id, or a key that a client put there. Set at the end."""
    started: float = attrs.field(factory=time.perf_counter)
    """`time.perf_counter()` when the request's head was complete."""
    client: str = "-"
    """The client's id, `-` before it is known."""
    key: str = "-"
    """The id of the client's key."""
    provider: str = "-"
    generation: int = 0
    """The generation that served it; 0 if none did."""
    status: int = 0
    """The status sent to the client; 0 if none was."""
    bytes_sent: int = 0
    """Bytes of the response body."""
    first_byte: float = 0.0
    """`time.perf_counter()` when the response head was sent; 0 if none was."""
    ended: float = 0.0
    outcome: Outcome = Outcome.COMPLETE
    code: str = ""
    """The code of the refusal, or of the error that cut the response."""


AccessLog = Callable[[AccessRecord], None]
"""Called once for every request, after its end. Must not block or raise."""


def json_line(record: AccessRecord) -> bytes:
    """Format one record as a line of JSON. Every field is always there, in this order."""
    first, duration = _milliseconds(record)
    fields = {
        "time": _timestamp(),
        "event": "request",
        "client": record.client,
        "key": record.key,
        "provider": record.provider,
        "generation": record.generation,
        "method": record.method,
        "path": record.path,
        "status": record.status,
        "bytes": record.bytes_sent,
        "first_byte_ms": first,
        "duration_ms": duration,
        "outcome": record.outcome,
        "code": record.code,
    }
    return _encode(fields) + b"\n"


def console_line(record: AccessRecord) -> bytes:
    """Format one record for people."""
    _, duration = _milliseconds(record)
    path, method = ascii(record.path)[1:-1], ascii(record.method)[1:-1]
    code = f" ({record.code})" if record.code else ""
    return (
        f"{_timestamp()[11:23]} {record.client:<12} {record.provider}@{record.generation} "
        f"{method} {path} {record.status or '---'} {record.bytes_sent} B "
        f"{duration:.1f} ms {record.outcome.value}{code}\n"
    ).encode()


def _milliseconds(record: AccessRecord) -> tuple[float | None, float]:
    """Return the time to the first byte, if one was sent, and to the end."""
    first = round((record.first_byte - record.started) * 1e3, 3) if record.first_byte else None
    return first, round((record.ended - record.started) * 1e3, 3)


def _timestamp() -> str:
    """Return the wall clock as RFC 3339 in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@attrs.define(eq=False)
class LineWriter:
    """Collects lines and writes them from one background task.

    Args:
        write: writes all the bytes it is given; called in a thread, with many whole lines at
            once. An `OSError` from it is logged once, and its lines are counted as dropped.
    """

    _write: Callable[[bytes], object]
    _lines: list[bytes] = attrs.field(init=False, factory=list)
    _buffered: int = attrs.field(init=False, default=0)  # bytes appended and not yet written
    _wake: trio.Event = attrs.field(init=False, factory=trio.Event)
    dropped: int = attrs.field(init=False, default=0)
    """Lines that were not written, because the sink was too slow or refused them."""
    _failing: bool = attrs.field(init=False, default=False)  # the last write failed: reported

    def append(self, line: bytes) -> None:
        """Append one line with its newline; drop it when the sink is far behind."""
        if self._buffered > _MAX_BUFFERED:
            self.dropped += 1
            return
        if not self._lines:
            self._wake.set()
        self._lines.append(line)
        self._buffered += len(line)

    async def run(  # noqa: ASYNC114 -- the linter cannot be told of every startable
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Write appended lines until cancelled.

        Cancellation: the lines that are left are written, for at most two seconds.
        """
        task_status.started()
        try:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                await trio.sleep(_FLUSH_INTERVAL)
                await self._flush()
        finally:
            with trio.move_on_after(_CLOSE_TIMEOUT, shield=True):
                await self._flush()

    async def _flush(self) -> None:
        lines, self._lines = self._lines, []
        if not lines:
            await trio.lowlevel.checkpoint()
            return
        try:
            # A write that hangs is abandoned in its thread: it must not delay the shutdown.
            await trio.to_thread.run_sync(self._write, b"".join(lines), abandon_on_cancel=True)
        except OSError as error:
            self.dropped += len(lines)
            if not self._failing:
                logger.warning("access log cannot be written", extra={"error": str(error)})
            self._failing = True
        else:
            self._failing = False
        finally:
            self._buffered -= sum(map(len, lines))


def write_to(fd: int) -> Callable[[bytes], None]:
    """Return a sink for `LineWriter` on a file descriptor, which the caller closes."""

    def write(data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]

    return write


@asynccontextmanager
async def open_access_log(target: str, log_format: LogFormat) -> AsyncIterator[AccessLog | None]:
    """Open the access log and its writer task.

    Args:
        target: a file to append to, `-` for standard output, or `none`.
        log_format: the format of a line; `auto` is `console` on a terminal, else `json`.

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
