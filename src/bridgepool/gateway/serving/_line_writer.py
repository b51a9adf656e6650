"""Log lines, written by a thread, so that a reader that is slow or stuck never delays the program.

Whoever logs only appends a line. A thread of its own writes what has gathered to one sink, so one
stuck sink does not delay another. Beyond a limit, lines are dropped and counted; the count is
logged when the sink accepts lines again.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import attrs
import trio

logger = logging.getLogger("bridgepool.gateway.serving")

_GATHERING_TIME: Final = 0.02  # seconds from the first line to the write that includes it
_PAUSE: Final = 0.0001  # seconds; a pause of 0 would not let a waiting thread run
_MAX_BATCH: Final = 2**20  # bytes of lines that are written together
DEFAULT_BUFFER: Final = 8 * 2**20  # bytes
_CLOSE_TIMEOUT: Final = 1.0  # seconds that closing waits for the sinks

Sink = Callable[[bytes], object]


@attrs.frozen(eq=False)
class _LongLine:
    """A line that the thread makes."""

    pieces: Iterable[bytes]
    size: int

    def __len__(self) -> int:
        return self.size


@attrs.define(eq=False)
class LineWriter:
    """Collects lines and writes them from a thread.

    Args:
        write: Writes all the bytes it is given; called in the thread, with many whole lines at
            once. An exception from it is logged once, and its lines are counted as dropped.
        name: Names the log in log lines about it.
        max_buffered: The most bytes that are kept for a sink that is behind; further lines are
            dropped.
    """

    _write: Sink
    name: str = attrs.field(default="access log", kw_only=True)
    max_buffered: int = attrs.field(default=DEFAULT_BUFFER, kw_only=True)
    dropped: int = attrs.field(init=False, default=0)
    """Lines that were not written, because the sink was too slow or refused them."""
    _reported: int = attrs.field(init=False, default=0)  # of the dropped lines, those logged
    _buffered: int = attrs.field(init=False, default=0)  # bytes appended and not yet written
    _failing: bool = attrs.field(init=False, default=False)  # the last write failed: reported
    # Both can be used again within a use of them: a finaliser may log at any point of `append`.
    _lock: threading.RLock = attrs.field(init=False, factory=threading.RLock)
    _lines: queue.SimpleQueue[bytes | _LongLine | None] = attrs.field(
        init=False, factory=queue.SimpleQueue
    )
    _thread: threading.Thread | None = attrs.field(init=False, default=None)

    def append(self, line: bytes) -> None:
        """Append one line with its newline; drop it when the sink is far behind. Never blocks.

        Can be called in any thread, also before the first line can be written.
        """
        self._put(line)

    def append_pieces(self, pieces: Iterable[bytes], size: int) -> None:
        """Append one line that takes long to make: the thread makes it, as `append` otherwise.

        Args:
            pieces: Of the line. The thread pauses after each, so that others can run.
            size: The bytes that the line occupies until it is made.
        """
        self._put(_LongLine(pieces, size))

    def _put(self, line: bytes | _LongLine) -> None:
        with self._lock:
            if self._buffered > self.max_buffered:
                self.dropped += 1
                return
            self._buffered += len(line)
        self._lines.put(line)

    def start(self) -> None:
        """Start the thread. It does not keep the program from ending."""
        self._thread = threading.Thread(target=self._work, name=self.name, daemon=True)
        self._thread.start()

    async def run(  # noqa: ASYNC114 -- the linter cannot be told of every startable
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Write appended lines until cancelled.

        Cancellation: the lines that are left are written, for at most one second.
        """
        self.start()
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            limiter = trio.CapacityLimiter(1)  # it must not wait behind other threads
            with trio.move_on_after(2 * _CLOSE_TIMEOUT, shield=True):
                await trio.to_thread.run_sync(
                    close_writers, [self], abandon_on_cancel=True, limiter=limiter
                )

    def _work(self) -> None:
        open_, is_full = True, False
        while open_:
            lines = [self._lines.get()]
            if lines[0] is not None and not is_full:
                time.sleep(_GATHERING_TIME)
            size = len(lines[0] or b"")
            while size < _MAX_BATCH and not self._lines.empty():  # nobody else takes from it
                line = self._lines.get()
                lines.append(line)
                size += len(line or b"")
            is_full = size >= _MAX_BATCH
            open_ = None not in lines
            self._write_lines([line for line in lines if line is not None])

    def _write_lines(self, lines: list[bytes | _LongLine]) -> None:
        error: Exception | None = None
        try:
            self._write(b"".join(_make(lines)))
        except Exception as raised:  # mostly an OSError; the sink may be the user's
            error = raised
        size = sum(map(len, lines))
        if error is None and not size:
            return  # whether lines can be written is not known of that
        with self._lock:
            self._buffered -= size
            if error is not None:
                self.dropped += sum(len(line) > 0 for line in lines)
            unreported = self.dropped - self._reported
            if error is None:
                self._reported = self.dropped
        if error is None and unreported:
            fields = {"log": self.name, "lines": unreported}
            logger.warning("log lines dropped", extra=fields)
        elif error is not None and not self._failing:
            fields = {"log": self.name, "error": str(error)}
            logger.warning("log cannot be written", extra=fields)
        self._failing = error is not None


def _make(lines: Iterable[bytes | _LongLine]) -> Iterator[bytes]:
    """Yield lines, or their pieces. Other threads run between those of a long line."""
    for line in lines:
        if isinstance(line, bytes):
            yield line
            continue
        for piece in line.pieces:
            yield piece
            time.sleep(_PAUSE)


def close_writers(writers: Iterable[LineWriter]) -> None:
    """Let the threads of writers write what is left, for at most one second in all. Blocks."""
    threads = []
    for writer in writers:
        writer._lines.put(None)
        if writer._thread is not None:
            threads.append(writer._thread)
    deadline = time.monotonic() + _CLOSE_TIMEOUT
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


def write_to(fd: int) -> Sink:
    """Return a sink for `LineWriter` on a file descriptor, which the caller closes."""
    is_torn = False  # a write failed inside of a line: the next one must not continue it

    def write(data: bytes) -> None:
        nonlocal is_torn
        data = b"\n" + data if is_torn else data
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(fd, view) :]
            except BlockingIOError:  # another program has made the shared pipe non-blocking
                writable = select.poll()
                writable.register(fd, select.POLLOUT)
                writable.poll()
            except OSError:
                written = data[: len(data) - len(view)]
                is_torn = not written.endswith(b"\n") if written else is_torn
                raise
        is_torn = False

    return write


@attrs.define(eq=False)
class LogFile:
    """A file that log lines are appended to: a sink for `LineWriter`."""

    _path: str
    _private: bool
    _fd: int
    _write: Sink
    _reopen: bool = attrs.field(init=False, default=False)

    @classmethod
    def open(cls, path: str, *, private: bool = False) -> LogFile:
        """Open or create the file.

        Args:
            path: The file.
            private: Only the program's user may read it, whatever its mode was.

        Raises:
            OSError: It cannot be opened.
        """
        fd = _open_to_append(path, private=private)
        return cls(path, private, fd, write_to(fd))

    def __call__(self, data: bytes) -> None:
        """Write all the bytes."""
        if self._reopen:
            self._reopen = False
            self._open_again()
        self._write(data)

    def reopen(self) -> None:
        """Open the path anew before the next write: the file may have been renamed."""
        self._reopen = True

    def _open_again(self) -> None:
        try:
            fd = _open_to_append(self._path, private=self._private)
        except OSError as error:
            fields = {"path": self._path, "error": error.strerror}
            logger.error("log file cannot be reopened; keeping the open one", extra=fields)
            return
        os.close(self._fd)
        self._fd, self._write = fd, write_to(fd)


def _open_to_append(path: str, *, private: bool) -> int:
    mode = 0o600 if private else 0o640
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, mode)
    if private and stat.S_ISREG(os.fstat(fd).st_mode):
        os.fchmod(fd, mode)
    return fd
