"""The logs of the programs: rendering, and streams that never block.

The library logs by the standard `logging` and formats nothing. Only this module uses structlog,
for people at a terminal: it takes as long to import as a third of a gateway, so lines for programs
are rendered without it.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, TextIO, cast

import attrs

from bridgepool.gateway.serving._line_writer import (
    DEFAULT_BUFFER,
    LineWriter,
    LogFile,
    Sink,
    close_writers,
    write_to,
)

if TYPE_CHECKING:
    from structlog.typing import Processor

LogFormat = Literal["auto", "json", "console"]
# What each record has; all else was given as `extra`.
_STANDARD_FIELDS = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


def use_json(log_format: LogFormat, out: TextIO) -> bool:
    """Return whether to write JSON: when asked to, or when `out` is not a terminal."""
    return log_format == "json" or (log_format == "auto" and not out.isatty())


@attrs.define(eq=False)
class ProgramLogs:
    """The logs of a program. Made by `open_program_logs`."""

    stdout: LineWriter
    """The writer of standard output."""
    _writers: list[LineWriter]
    _files: list[tuple[LogFile, LineWriter]] = attrs.field(init=False, factory=list)

    @property
    def dropped(self) -> int:
        """Lines that were not written, because a log was too slow or refused them."""
        return sum(writer.dropped for writer in self._writers)

    def open_file(
        self,
        path: str,
        name: str,
        *,
        private: bool = False,
        max_buffered: int = DEFAULT_BUFFER,
    ) -> LineWriter:
        """Open a log file, to append to; one that is private has the mode 0600.

        Raises:
            OSError: It cannot be opened.
        """
        file = LogFile.open(path, private=private)
        writer = LineWriter(file, name=name, max_buffered=max_buffered)
        writer.start()
        self._writers.append(writer)
        self._files.append((file, writer))
        return writer

    def reopen(self) -> None:
        """Open all log files anew, as after their rotation. Does not block."""
        for file, writer in self._files:
            file.reopen()
            writer.append(b"")


@contextmanager
def open_program_logs(log_format: LogFormat) -> Iterator[ProgramLogs]:
    """Log to standard error, and let no write to standard output or error block.

    In the block, `sys.stdout` and `sys.stderr` are streams whose lines are written by a thread
    each, so also warnings and tracebacks delay nothing. Leaving it waits up to a second for those
    threads, and blocks.

    Args:
        log_format: See `set_up_logging`.
    """
    streams = sys.stdout, sys.stderr
    root = logging.getLogger()
    before = root.handlers[:], root.level
    stdout = LineWriter(_sink(streams[0]), name="standard output")
    stderr = stdout
    if not _same_file(*streams):  # else their lines would be mixed up
        stderr = LineWriter(_sink(streams[1]), name="standard error")
    logs = ProgramLogs(stdout, [stdout] if stderr is stdout else [stdout, stderr])
    for writer in logs._writers:
        writer.start()
    replaced = LineStream(stdout, streams[0]), LineStream(stderr, streams[1])
    sys.stdout, sys.stderr = (cast("TextIO", stream) for stream in replaced)
    try:
        set_up_logging(log_format, sys.stderr)
        yield logs
    finally:
        sys.stdout, sys.stderr = streams
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        for stream in replaced:
            stream.end_line()
        close_writers(logs._writers)


class LineStream(io.TextIOBase):
    """A text stream, for what prints, that passes whole lines to a writer and never blocks."""

    def __init__(self, writer: LineWriter, original: TextIO | None) -> None:
        self._writer, self._original = writer, original
        self._line = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]  # typeshed has a plain attribute
        """The encoding of the lines."""
        return "utf-8"

    def isatty(self) -> bool:
        """Return whether the lines go to a terminal."""
        return self._original is not None and self._original.isatty()

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Append the lines of `text` to the writer's; keep what follows the last newline."""
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._writer.append(line.encode("utf-8", "backslashreplace") + b"\n")
        return len(text)

    def end_line(self) -> None:
        """End a line that was begun."""
        if self._line:
            self.write("\n")


def _sink(stream: TextIO | None) -> Sink:
    """Return a sink on what a standard stream writes to."""
    if stream is None:  # it was closed when the program was started
        return lambda data: None
    with suppress(OSError):
        return write_to(stream.fileno())

    def write(data: bytes) -> None:  # a stream in memory
        stream.write(data.decode())
        stream.flush()

    return write


def _same_file(one: TextIO | None, other: TextIO | None) -> bool:
    """Return whether two streams write to one file, as with `2>&1`."""
    if one is None or other is None:
        return False
    with suppress(OSError):
        return os.path.sameopenfile(one.fileno(), other.fileno())
    return False


def set_up_logging(log_format: LogFormat, stream: TextIO) -> None:
    """Render all logging, at level INFO and above, one line per event.

    Args:
        log_format: JSON, for people, or by whether `stream` is a terminal.
        stream: Where to.
    """
    handler = logging.StreamHandler(stream)
    as_json = use_json(log_format, stream)
    handler.setFormatter(_JsonFormatter() if as_json else _console_formatter(stream))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # It logs every event of the file system.
    logging.getLogger("watchfiles").setLevel(logging.WARNING)


def text_formatter() -> logging.Formatter:
    """Return what renders records for a command: the event, and its fields in parentheses."""
    return _TextFormatter()


def _fields_of(record: logging.LogRecord) -> dict[str, object]:
    return {k: v for k, v in vars(record).items() if k not in _STANDARD_FIELDS}


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields = ", ".join(f"{name}: {value}" for name, value in _fields_of(record).items())
        return f"bridgepool: {record.getMessage()}{f' ({fields})' if fields else ''}"


class _JsonFormatter(logging.Formatter):
    """Renders a record as one line of JSON, in ASCII: any text can be part of it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        given = _fields_of(record)
        document = {
            "event": record.getMessage(),
            "level": record.levelname.lower(),
            "logger": record.name,
            **given,
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="microseconds")
            .replace("+00:00", "Z"),
        }
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return json.dumps(document, default=repr)


def _console_formatter(stream: TextIO) -> logging.Formatter:
    import structlog  # a program that embeds the gateway needs none of it

    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    last: list[Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.dev.ConsoleRenderer(colors=stream.isatty()),
    ]
    return structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=last)
