"""The access log: one line per request, made in a few microseconds and written elsewhere.

A request's task only formats its line and appends it to a list. One writer task hands
what has gathered to a thread a few times a second, so a slow disk or a stuck pipe never
holds a request up; beyond a bound lines are dropped and counted instead of kept in memory.

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
from json.encoder import encode_basestring_ascii as quoted

import attrs
import trio

from bridgepool._services import open_service_nursery
from bridgepool.gateway.serving._listening import StartError
from bridgepool.gateway.serving._logs import LogFormat, use_json

logger = logging.getLogger("bridgepool.gateway")

_GATHER = 0.02  # seconds between the first line and the write that takes it along
_MAX_WAITING = 8 * 2**20  # bytes kept for a sink that does not take them
_LAST_FLUSH = 2.0  # seconds that closing waits for the sink


class Outcome(enum.Enum):
    """How a request ended."""

    COMPLETE = "complete"
    """The provider's whole answer went to the client, whatever its status."""
    REFUSED = "refused"
    """The gateway answered itself; `code` says what."""
    UPSTREAM_CUT = "upstream_cut"
    """The provider's answer broke off after its start; the client's was cut too."""
    CLIENT_GONE = "client_gone"
    """The client left, or the server stopped, before the answer was complete."""
    DRAIN_DEADLINE = "drain_deadline"
    """The bridge had to close under the request: its drain deadline passed."""
    FAILED = "failed"
    """An error of the gateway itself; the log has the traceback."""


@attrs.define(eq=False)
class AccessRecord:
    """What is known about one request; the gateway fills it in while it serves."""

    method: str
    """`*` if it is none of HTTP's own."""
    path: str = ""
    """Set at the request's end: the provider's name and the words of its API; `*` stands for
    every other segment, such as an id, or a key that a client put there. Without the query."""
    started: float = attrs.field(factory=time.perf_counter)
    """`time.perf_counter()` when the request's head was in."""
    client: str = "-"
    """The client's id, `-` before it is known."""
    key: str = "-"
    """Which of the client's keys."""
    provider: str = "-"
    generation: int = 0
    """The generation that served it; 0 where none did."""
    status: int = 0
    """The status sent; 0 if nothing was."""
    bytes_sent: int = 0
    """Bytes of body."""
    first_byte: float = 0.0
    """`time.perf_counter()` when the answer's start was sent; 0 if none was."""
    ended: float = 0.0
    outcome: Outcome = Outcome.COMPLETE
    code: str = ""
    """The refusal's code, or why the stream was cut."""


AccessLog = Callable[[AccessRecord], None]
"""What the gateway calls once for every request, after its end. Must not block or raise."""


def _milliseconds(record: AccessRecord) -> tuple[float, float]:
    first = (record.first_byte - record.started) * 1e3 if record.first_byte else -1.0
    return first, (record.ended - record.started) * 1e3


_second = (0, "")  # the last second that was formatted, and its text


def _now() -> str:
    """The wall clock as RFC 3339 in UTC; the date part is formatted once a second."""
    global _second  # a cache of one value: no state that anyone could observe
    now = time.time()
    whole = int(now)
    second, text = _second
    if second != whole:
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
        _second = (whole, text)
    return f"{text}.{int((now - whole) * 1000):03d}Z"


def json_line(record: AccessRecord) -> bytes:
    """Format one record as a line of JSON. Every field is always there, in this order."""
    first, duration = _milliseconds(record)
    return (
        f'{{"time":"{_now()}","event":"request","client":{quoted(record.client)},'
        f'"key":{quoted(record.key)},"provider":{quoted(record.provider)},'
        f'"generation":{record.generation},"method":{quoted(record.method)},'
        f'"path":{quoted(record.path)},"status":{record.status},"bytes":{record.bytes_sent},'
        f'"first_byte_ms":{f"{first:.3f}" if first >= 0 else "null"},'
        f'"duration_ms":{duration:.3f},"outcome":"{record.outcome._value_}",'
        f'"code":{quoted(record.code)}}}\n'
    ).encode()


def console_line(record: AccessRecord) -> bytes:
    """Format one record for people."""
    _, duration = _milliseconds(record)
    clean = ascii(record.path)[1:-1]
    code = f" ({record.code})" if record.code else ""
    return (
        f"{_now()[11:23]} {record.client:<12} {record.provider}@{record.generation} "
        f"{ascii(record.method)[1:-1]} {clean} {record.status or '---'} {record.bytes_sent} B "
        f"{duration:.1f} ms {record.outcome._value_}{code}\n"
    ).encode()


@attrs.define(eq=False)
class LineWriter:
    """Gathers lines, and writes them from one background task.

    Args:
        write: takes all the bytes it is given; called in a thread, with many whole lines at
            once. An `OSError` from it is logged once, and its lines are counted as dropped.
    """

    _write: Callable[[bytes], object]
    _lines: list[bytes] = attrs.field(init=False, factory=list)
    _waiting: int = attrs.field(init=False, default=0)  # bytes appended and not yet written
    _wake: trio.Event = attrs.field(init=False, factory=trio.Event)
    _dropped: int = attrs.field(init=False, default=0)
    _failing: bool = attrs.field(init=False, default=False)  # the last write failed: reported

    @property
    def dropped(self) -> int:
        """Lines that were not written, because the sink was too slow or refused them."""
        return self._dropped

    def append(self, line: bytes) -> None:
        """Take one line, its newline included; drop it when the sink is far behind."""
        if self._waiting > _MAX_WAITING:
            self._dropped += 1
            return
        if not self._lines:
            self._wake.set()
        self._lines.append(line)
        self._waiting += len(line)

    async def run(  # noqa: ASYNC114  # the linter cannot be told of every startable
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Write what is appended, until cancelled.

        Cancellation: takes up to two seconds more for the lines that are still waiting.
        """
        task_status.started()
        try:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                await trio.sleep(_GATHER)
                await self._flush()
        finally:
            with trio.move_on_after(_LAST_FLUSH, shield=True):
                await self._flush()

    async def _flush(self) -> None:
        lines, self._lines = self._lines, []
        if not lines:
            await trio.lowlevel.checkpoint()
            return
        try:
            # A write that hangs is left behind in its thread: it must not hold up the end.
            await trio.to_thread.run_sync(self._write, b"".join(lines), abandon_on_cancel=True)
        except OSError as error:
            self._dropped += len(lines)
            if not self._failing:
                logger.warning("the access log cannot be written: %s", error)
            self._failing = True
        else:
            self._failing = False
        finally:
            self._waiting -= sum(map(len, lines))


def write_to(fd: int) -> Callable[[bytes], None]:
    """Make a sink for `LineWriter` of an open file descriptor, which stays the caller's."""

    def write(data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]

    return write


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
