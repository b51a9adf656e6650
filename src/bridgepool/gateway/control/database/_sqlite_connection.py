"""One connection to a store's SQLite file, and what it does in a worker thread."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Generic, NoReturn, TypeVar, final

import attrs
import trio

from bridgepool.gateway.control._errors import StoreBrokenError, StoreUnavailableError
from bridgepool.gateway.control.database._migrations import TABLE
from bridgepool.gateway.control.database._transactions import Row, Transaction, Value

T = TypeVar("T")

_PATIENCE: Final = 30.0  # seconds that a writer waits for those of other processes
_SLICE: Final = 0.05  # of that, how long SQLite waits before a cancellation is looked for
_GATE_POLL: Final = 0.0005
_READER_PATIENCE: Final = 5.0  # readers wait only while a file is recovered after a crash
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


@attrs.frozen
class StoreFile:
    """Which file it is, so that one that was put in its place is not taken for it."""

    path: Path
    identity: tuple[int, int]

    @classmethod
    def make(cls, name: str) -> StoreFile:
        """Find the file, or make an empty one that only its owner may read.

        Raises:
            StoreUnavailableError: It cannot be made, or is no file.
        """
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
            StoreUnavailableError: SQLite would go on with a file that nobody else can find.
        """
        try:
            status = self.path.stat()
        except OSError as error:
            raise StoreUnavailableError(
                f"the store {self.path} is not to be found ({error.strerror}); put it back, or "
                "start anew with another"
            ) from error
        if (status.st_dev, status.st_ino) != self.identity:
            raise StoreUnavailableError(
                f"another file was put in the place of the store {self.path}; restart to use it"
            )


@attrs.frozen
class Done(Generic[T]):
    """How a work ended."""

    value: T
    notice: int | None = None
    """The number of the notice that it gave, if it gave one."""


@final
class _Transaction:
    """See `Transaction`."""

    __slots__ = ("_connection", "notified")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.notified = False

    def fetch_all(self, sql: str, *args: Value) -> list[Row]:
        return self._connection.execute(sql, args).fetchall()

    def fetch_one(self, sql: str, *args: Value) -> Row | None:
        cursor = self._connection.execute(sql, args)
        row: Row | None = cursor.fetchone()
        cursor.close()
        return row

    def execute(self, sql: str, *args: Value) -> int:
        return self._connection.execute(sql, args).rowcount

    def notify(self) -> None:
        self.notified = True


@final
class Connection:
    """For one thread at a time.

    Raises:
        StoreUnavailableError: Here and from each method, when the file cannot be used.
        StoreBrokenError: From each method, when the file holds something else than a store.
    """

    def __init__(self, file: StoreFile, readonly: bool) -> None:
        self._file = file
        file.check()
        self.usable = True
        with ExitStack() as undo:
            try:
                # A handle of its own for each: two that share one would share its locks.
                self._gate = os.open(f"{file.path}-seed", os.O_RDWR | os.O_CREAT, 0o600)
                undo.callback(os.close, self._gate)
                self._sqlite = sqlite3.connect(
                    file.path,
                    timeout=_READER_PATIENCE if readonly else _SLICE,
                    isolation_level=None,
                    check_same_thread=False,
                )
                undo.callback(self._sqlite.close)
                self._prepare(readonly)
            except OSError as error:
                raise StoreUnavailableError(
                    f"the file {file.path}-seed cannot be opened: {error.strerror}"
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
            self._patiently(lambda: found.update(name for (name,) in self._sqlite.execute(tables)))
            if found and TABLE not in found:
                raise StoreUnavailableError(
                    f"{self._file.path} is the database of another program; name another file"
                )
            self._patiently(lambda: self._sqlite.execute("PRAGMA journal_mode = WAL"))
        self._sqlite.execute("PRAGMA synchronous = FULL")
        self._sqlite.execute("PRAGMA foreign_keys = ON")

    def close(self) -> None:
        """Close the file. May be called again."""
        self.usable = False
        self._sqlite.close()
        if self._gate >= 0:
            os.close(self._gate)
            self._gate = -1

    def read(self, work: Callable[[Transaction], T]) -> Done[T] | None:
        """Run a work on one state of the database; None while somebody seeds."""
        if not self._take_gate(fcntl.LOCK_SH):
            return None
        self._leave_gate()
        try:
            self._file.check()
            self._sqlite.execute("BEGIN")
            return Done(work(_Transaction(self._sqlite)))
        except sqlite3.Error as error:
            self._explain(error)
        finally:
            self._roll_back()

    def write(self, work: Callable[[Transaction], T], *, seeding: bool) -> Done[T]:
        """Run a work and commit it, or nothing of it."""
        transaction = _Transaction(self._sqlite)
        notice: int | None = None
        try:
            self._file.check()
            self._patiently(lambda: self._sqlite.execute("BEGIN IMMEDIATE"))
            if seeding:
                self._close_gate()
            value = work(transaction)
            if transaction.notified:
                notice = self._next_notice()
            self._sqlite.execute("COMMIT")
        except sqlite3.Error as error:
            self._explain(error)
        finally:
            self._roll_back()
            if seeding:
                self._leave_gate()
        return Done(value, notice)

    def notice(self) -> int:
        """Return the number of the last notice that any process has committed."""
        try:
            self._file.check()
            number: int = self._sqlite.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.Error as error:
            self.usable = False
            self._explain(error)
        return number

    def _next_notice(self) -> int:
        number: int = self._sqlite.execute("PRAGMA user_version").fetchone()[0]
        following = (number + 1) & 0x7FFF_FFFF
        self._sqlite.execute(f"PRAGMA user_version = {following}")
        return following

    def _patiently(self, attempt: Callable[[], object]) -> None:
        """Wait for other processes in short pieces, so that the wait can be cancelled."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                attempt()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
                if time.monotonic() > deadline:
                    raise
            else:
                return
            trio.from_thread.check_cancelled()

    def _close_gate(self) -> None:
        # Only readers that pass can be in it, each for a microsecond.
        while not self._take_gate(fcntl.LOCK_EX):
            trio.from_thread.check_cancelled()
            time.sleep(_GATE_POLL)

    def _take_gate(self, how: int) -> bool:
        try:
            fcntl.flock(self._gate, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

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
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code not in _WHY:  # no such table, a constraint: SQLite's texts name no values
            raise StoreBrokenError(f"the store {self._file.path}", str(error)) from error
        if code not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            self.usable = False
        raise StoreUnavailableError(
            f"the store {self._file.path} cannot be used: {_WHY[code]} ({error})"
        ) from error
