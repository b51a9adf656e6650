"""The store's database in one file, for any number of processes on one machine.

Theory of operation. The file is in WAL mode: readers see the last commit and never wait.
A writer takes SQLite's write lock when it begins (``BEGIN IMMEDIATE``), so that it never fails at
its end because another was faster. Commits are synced to the disk (``FULL``): a confirmed change
survives a power cut, and changes are too rare for the cost to matter.

The gate is a lock on a file beside the database. A seed holds it alone, from before its first
change until after its commit; a reader takes it shared, gives it back at once, and begins only
then. So a reader either began before the seed, and sees nothing of it, or finds all of it; and
readers hold the gate for a microsecond, so they never delay a seed. The seed takes the write lock
first, and a reader that waits for the gate holds no lock, so there is no deadlock. The system frees
both locks of a process that dies.

Notices between processes: a commit that called `notify` counts up ``user_version`` in the file's
own head; a process that has subscribers reads it twenty times a second.
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final, NoReturn, TypeVar, final

import attrs
import trio

from bridgepool.gateway.control._errors import (
    NotWritableError,
    StoreBrokenError,
    StoreUnavailableError,
    StoreUrlError,
)
from bridgepool.gateway.control.database._database import VERSIONS, Notices, Transaction
from bridgepool.gateway.control.database._pool import ConnectionPool

T = TypeVar("T")

_LOCK_TIMEOUT: Final = 30.0  # seconds that a writer waits for those of other processes
_LOCK_SLICE: Final = 0.05  # of that, how long SQLite waits between two checks for cancellation
_READ_TIMEOUT: Final = 5.0  # readers wait only while a file is recovered after a crash
_SEED_POLL: Final = 0.005  # of a reader that waits for a seed
_READERS_POLL: Final = 0.0005  # of a seed that waits for readers that pass the gate
_POLL: Final = 0.05  # seconds between two looks for the commits of other processes
_POLL_AFTER_ERROR: Final = 1.0
_SETTLED: Final = 200_000_000  # nanoseconds; file clocks tick every 10 ms or faster
_CLOSING: Final = 5.0
_WHY: Final = {
    sqlite3.SQLITE_BUSY: "another process has held it locked for too long; try again",
    sqlite3.SQLITE_LOCKED: "another process has held it locked for too long; try again",
    sqlite3.SQLITE_FULL: "the disk is full; make room on it",
    sqlite3.SQLITE_IOERR: "the disk cannot be read or written; see the system's log",
    sqlite3.SQLITE_READONLY: "it cannot be written; give this user the right to write it, and "
    "its folder",
    sqlite3.SQLITE_PERM: "it may not be opened; give this user the right to read and write it",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; see whether its folder is there and writable",
    sqlite3.SQLITE_CORRUPT: "it is damaged; put a backup in its place",
    sqlite3.SQLITE_NOTADB: "it is not an SQLite file, or damaged; name another or put a backup "
    "in its place",
    sqlite3.SQLITE_PROTOCOL: "its locks do not work; is it on a network disk?",
    sqlite3.SQLITE_NOMEM: "there is no memory left",
}
_NOT_WRITABLE: Final = (
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_TRUNCATE,
)  # fmt: skip


@attrs.define(eq=False)
class _CommitHint:
    """Whether there may be a new commit, found without opening the file: a few microseconds."""

    _found: tuple[int, int] | None = None
    _since: int = 0  # when that was first found, in nanoseconds

    def is_given(self, path: Path) -> bool:
        """Return whether to look into the file. Every commit writes to the log beside it."""
        try:
            status = os.stat(f"{path}-wal")
        except OSError:
            self._found = None
            return True
        found = (status.st_mtime_ns, status.st_size)
        now = time.monotonic_ns()
        if found != self._found:
            self._found, self._since = found, now
        # A commit within the same tick of the file's clock does not show; so look a few more times.
        return now - self._since < _SETTLED


@final
@attrs.define(eq=False)
class SqliteEngine:
    """An `Engine` on one SQLite file."""

    find_table = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    max_age = math.inf  # each use looks whether it is still the same file
    path: Path
    identity: tuple[int, int]
    """Of the file, so that one put in its place is not mistaken for it."""
    last_notice: int = attrs.field(default=-1, init=False)
    """The number of the last notice that subscribers in this process have had."""

    @property
    def label(self) -> str:
        """See `Engine`."""
        return str(self.path)

    @classmethod
    def find(cls, name: str) -> SqliteEngine:
        """Find the file, or make an empty one that only its owner may read. Blocks.

        Raises:
            StoreUnavailableError: It cannot be made, or is no file.
        """
        if name == ":memory:":
            raise StoreUrlError("a store is a file; SQLite's :memory: differs for each connection")
        path = Path(name).absolute()
        try:
            try:
                # Never opened and closed when it is there: a process that closes any handle of
                # a file loses the locks that SQLite holds on it.
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            except FileExistsError:
                if path.is_dir():
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)) from None
            status = path.stat()
        except OSError as error:
            raise StoreUnavailableError(
                f"the store {path} cannot be opened: {error.strerror}"
            ) from error
        return cls(path, (status.st_dev, status.st_ino))

    def check(self) -> None:
        """Find out whether the file is still where it was; about 2 µs.

        Raises:
            StoreUnavailableError: SQLite would go on with a file that no other process can find.
        """
        try:
            status = self.path.stat()
        except OSError as error:
            raise StoreUnavailableError(
                f"the store {self.path} was not found ({error.strerror}); put it back"
            ) from error
        if (status.st_dev, status.st_ino) != self.identity:
            raise StoreUnavailableError(
                f"another file was put in the place of the store {self.path}; if that is a backup "
                "of it, restart to use it, else put the store back"
            )

    def connect(self, *, readonly: bool) -> SqliteConnection:
        """See `Engine`."""
        return SqliteConnection(self, readonly)

    async def watch(self, notices: Notices) -> None:
        """See `Engine`."""
        pool = ConnectionPool(partial(self.connect, readonly=True), 1, self.max_age)
        hint = _CommitHint()
        try:
            while True:
                await notices.wait_subscribed()
                wait = _POLL
                if hint.is_given(self.path):
                    try:
                        await self._look(pool, notices)
                    except StoreUnavailableError as error:
                        notices.failed(error)
                        hint, wait = _CommitHint(), _POLL_AFTER_ERROR
                await trio.sleep(wait)
        finally:
            with trio.move_on_after(_CLOSING, shield=True):
                await pool.aclose()

    async def _look(self, pool: ConnectionPool[SqliteConnection], notices: Notices) -> None:
        before = self.last_notice
        number = await pool.run(SqliteConnection.read_notice)
        # A commit of this process meanwhile has notified already, and the number may be older.
        if number != before and self.last_notice == before:
            self.last_notice = number
            notices.publish()
        notices.succeeded()


@final
class SqliteConnection:
    """A `Connection` to a store's file."""

    def __init__(self, engine: SqliteEngine, readonly: bool) -> None:
        self._engine = engine
        engine.check()
        self.usable = True
        with ExitStack() as undo:
            try:
                # A handle of its own for each: two that share one would share its locks.
                self._gate = os.open(f"{engine.path}-seed", os.O_RDWR | os.O_CREAT, 0o600)
                undo.callback(os.close, self._gate)
                self._sqlite = sqlite3.connect(
                    engine.path,
                    timeout=_READ_TIMEOUT if readonly else _LOCK_SLICE,
                    isolation_level=None,
                    check_same_thread=False,
                )
                undo.callback(self._sqlite.close)
                self._prepare(readonly)
            except OSError as error:
                raise StoreUnavailableError(
                    f"the file {engine.path}-seed cannot be opened: {error.strerror}"
                ) from error
            except sqlite3.Error as error:
                self._explain(error)
            undo.pop_all()

    def _prepare(self, readonly: bool) -> None:
        if readonly:
            self._sqlite.execute("PRAGMA query_only = ON")
        else:
            tables = "SELECT name FROM sqlite_master WHERE type = 'table'"
            found: set[str] = set()
            # Another process that starts now may hold the file while it makes it a WAL one.
            self._wait_for_lock(
                lambda: found.update(name for (name,) in self._sqlite.execute(tables))
            )
            if found and VERSIONS not in found:
                raise StoreUnavailableError(
                    f"{self._engine.path} is the database of another program; name another file"
                )
            self._wait_for_lock(lambda: self._sqlite.execute("PRAGMA journal_mode = WAL"))
        self._sqlite.execute("PRAGMA synchronous = FULL")
        self._sqlite.execute("PRAGMA foreign_keys = ON")

    def close(self) -> None:
        """Close the file. May be called again."""
        self.usable = False
        self._sqlite.close()
        if self._gate >= 0:
            os.close(self._gate)
            self._gate = -1

    def read(self, function: Callable[[Transaction], T]) -> T:
        """See `Connection`."""
        self._take_gate(fcntl.LOCK_SH, _SEED_POLL)
        self._leave_gate()
        try:
            self._engine.check()
            self._sqlite.execute("BEGIN")
            return function(Transaction(self._sqlite.execute))
        except sqlite3.Error as error:
            self._explain(error)
        finally:
            self._roll_back()

    def write(self, function: Callable[[Transaction], T], *, seeding: bool) -> tuple[T, bool]:
        """See `Connection`."""
        transaction = Transaction(self._sqlite.execute)
        try:
            self._engine.check()
            self._wait_for_lock(lambda: self._sqlite.execute("BEGIN IMMEDIATE"))
            if seeding:  # waits only for readers that pass, each for a microsecond
                self._take_gate(fcntl.LOCK_EX, _READERS_POLL)
            value = function(transaction)
            notice = self._count_notice() if transaction.notified else None
            self._sqlite.execute("COMMIT")
            if notice is not None:
                self._engine.last_notice = notice
        except sqlite3.Error as error:
            self._explain(error)
        finally:
            self._roll_back()
            if seeding:
                self._leave_gate()
        return value, transaction.notified

    def read_notice(self) -> int:
        """Return the number of the last notice that any process has committed."""
        try:
            self._engine.check()
            number: int = self._sqlite.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.Error as error:
            self.usable = False
            self._explain(error)
        return number

    async def run_in_thread(self, function: Callable[[], T], threads: trio.CapacityLimiter) -> T:
        """See `Connection`: waits look for a cancellation, and all else ends soon."""
        return await trio.to_thread.run_sync(function, limiter=threads)

    def _count_notice(self) -> int:
        number: int = self._sqlite.execute("PRAGMA user_version").fetchone()[0]
        following = (number + 1) & 0x7FFF_FFFF
        self._sqlite.execute(f"PRAGMA user_version = {following}")
        return following

    def _wait_for_lock(self, attempt: Callable[[], object]) -> None:
        """Wait for other processes in short pieces, so that the wait can be cancelled."""
        deadline = time.monotonic() + _LOCK_TIMEOUT
        while True:
            try:
                attempt()
            except sqlite3.OperationalError as error:
                busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() > deadline:
                    raise
            else:
                return
            trio.from_thread.check_cancelled()

    def _take_gate(self, lock: int, poll: float) -> None:
        while True:
            try:
                fcntl.flock(self._gate, lock | fcntl.LOCK_NB)
            except BlockingIOError:
                trio.from_thread.check_cancelled()
                time.sleep(poll)
            else:
                return

    def _leave_gate(self) -> None:
        fcntl.flock(self._gate, fcntl.LOCK_UN)

    def _roll_back(self) -> None:
        try:
            if self._sqlite.in_transaction:
                self._sqlite.execute("ROLLBACK")
        except sqlite3.Error:
            self.usable = False  # closing it undoes what is open

    def _explain(self, error: sqlite3.Error) -> NoReturn:
        """Raise what it means."""
        found = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        code = found & 0xFF
        if code not in _WHY:  # no such table, a constraint: SQLite's texts name no values
            raise StoreBrokenError(f"the store {self._engine.path}", str(error)) from error
        if code not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            self.usable = False
        reason = f"{_WHY[code]} ({error})"
        if found in _NOT_WRITABLE or code in _NOT_WRITABLE:
            raise NotWritableError(
                f"the store {self._engine.path} cannot be written: {reason}"
            ) from error
        raise StoreUnavailableError(
            f"the store {self._engine.path} cannot be used: {reason}"
        ) from error
