"""One connection to a store in PostgreSQL, and what it does in a worker thread."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar, final

import attrs
import psycopg
from psycopg import conninfo
from psycopg.adapt import Buffer, Loader
from psycopg.types.numeric import IntDumper

from bridgepool._secret import Secret
from bridgepool.gateway.control._errors import (
    CommitUnknownError,
    StoreBrokenError,
    StoreUnavailableError,
)
from bridgepool.gateway.control.database._transactions import Row, Transaction, Value

T = TypeVar("T")

CHANNEL: Final = "bridgepool"
"""The channel of notices; they carry no data."""
# Advisory locks; the first number tells ours from those of other programs in the same database.
_OURS: Final = 1_112_560_464
_WRITERS: Final = f"({_OURS}, 1)"
_GATE: Final = f"({_OURS}, 2)"
# A peer that is gone without a word is noticed in half a minute, at both ends; so is a process
# that stopped in the middle of a transaction, for which all other writers wait.
_DEFAULTS: Final = {
    "application_name": "bridgepool",
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "25000",
}
_SETTINGS: Final = (
    "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; "
    "SET idle_in_transaction_session_timeout = '60s'"
)
_UNAVAILABLE: Final = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.DataCorrupted,
    psycopg.errors.IndexCorrupted,
)
_TOKENS: Final = re.compile(r"""'(?:[^']|'')*'|"[^"]*"|--[^\n]*|\?|\bBLOB\b""")


@lru_cache(maxsize=512)
def translate(sql: str) -> str:
    """Write in PostgreSQL's dialect what both engines are given."""
    count = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal count
        if match[0] == "?":
            count += 1
            return f"${count}"
        return "BYTEA" if match[0] == "BLOB" else match[0]

    return _TOKENS.sub(replace, sql)


class _Truth(Loader):
    def load(self, data: Buffer) -> int:
        return int(bytes(data) == b"t")


class _Whole(Loader):  # what SUM makes of whole numbers
    def load(self, data: Buffer) -> int:
        return int(bytes(data))


@final
@attrs.frozen
class Target:
    """Which database, and how to get there."""

    conninfo: Secret
    label: str
    """Host, port and name, for people."""
    _hidden: tuple[Secret, ...] = ()

    @classmethod
    def parse(cls, url: Secret) -> Target:
        """Read a URL; raises `StoreUnavailableError`, which does not repeat it."""
        try:
            found = conninfo.conninfo_to_dict(url.reveal())
        except psycopg.Error:
            found = None
        # A password with a bare / ? or @ ends up in the host, the port or the name.
        if (
            found is None
            or "@" in f"{found.get('host')}{found.get('dbname')}"
            or not re.fullmatch(r"[\d,]*", str(found.get("port", "")))
        ):  # out of the handler: the error there quotes the URL
            raise StoreUnavailableError(
                "the URL of the store cannot be read: it is "
                "postgresql://user:password@host:port/name, with special characters as %XX"
            )
        hidden = tuple(Secret(str(found[name])) for name in ("password", "sslpassword")
                       if found.get(name))  # fmt: skip
        settings = {**_DEFAULTS, **found, "client_encoding": "utf8"}
        label = f"{found.get('host', 'localhost')}:{found.get('port', 5432)}/{found.get('dbname')}"
        return cls(Secret(conninfo.make_conninfo("", **settings)), label, hidden)

    def unavailable(self, error: psycopg.Error) -> StoreUnavailableError:
        """Say what is the matter, in one line and without the password."""
        said = error.diag.message_primary or str(error).strip().partition("\n")[0]
        for secret in self._hidden:
            said = said.replace(secret.reveal(), "***")
        return StoreUnavailableError(
            f"the store in PostgreSQL at {self.label} cannot be used: {said or 'no reason given'}"
        )

    def broken(self, error: psycopg.Error) -> StoreBrokenError:
        """Say what the database took for wrong."""
        # What is said of bad data quotes it.
        quotes = isinstance(error, psycopg.DataError)
        said = None if quotes else error.diag.message_primary
        return StoreBrokenError(
            f"the store in PostgreSQL at {self.label}", said or type(error).__name__
        )

    def connect(self) -> psycopg.Connection[Row]:
        """Connect; blocks for at most ``connect_timeout`` for each address of the host."""
        try:
            connection = psycopg.Connection[Row].connect(
                self.conninfo.reveal(),
                autocommit=True,
                prepare_threshold=None,  # a migration elsewhere must not break what was prepared
                cursor_factory=psycopg.RawCursor,
            )
        except psycopg.Error as error:
            failure = self.unavailable(error)
        else:
            return connection
        raise failure  # out of the handler: frames in there know the password


class DeadConnectionError(StoreUnavailableError):
    """The connection was found dead before the work began: it may begin on another."""


@attrs.frozen
class Done(Generic[T]):
    """How a work ended."""

    value: T
    notified: bool = False


@final
class _Transaction:
    """See `Transaction`."""

    __slots__ = ("_connection", "notified")

    def __init__(self, connection: psycopg.Connection[Row]) -> None:
        self._connection = connection
        self.notified = False

    def _execute(self, sql: str, args: tuple[Value, ...]) -> psycopg.Cursor[Row]:
        return self._connection.execute(translate(sql), args or None)

    def fetch_all(self, sql: str, *args: Value) -> list[Row]:
        return self._execute(sql, args).fetchall()

    def fetch_one(self, sql: str, *args: Value) -> Row | None:
        return self._execute(sql, args).fetchone()

    def execute(self, sql: str, *args: Value) -> int:
        return self._execute(sql, args).rowcount

    def notify(self) -> None:
        if not self.notified:
            self.notified = True
            self._connection.execute(f"NOTIFY {CHANNEL}")


@final
class Connection:
    """For one thread at a time, but for `cancel` and `cut`.

    Raises:
        StoreUnavailableError: Here and from each method, when the database cannot be used.
        StoreBrokenError: From each method, when it holds something else than a store.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._psycopg = target.connect()
        adapters = self._psycopg.adapters
        adapters.register_dumper(bool, IntDumper)
        adapters.register_loader("bool", _Truth)
        adapters.register_loader("numeric", _Whole)
        try:
            self._psycopg.execute(_SETTINGS)
        except psycopg.Error as error:
            self._psycopg.close()
            raise target.unavailable(error) from error
        self.pid = self._psycopg.info.backend_pid

    @property
    def usable(self) -> bool:
        """Whether another work may use it."""
        idle = psycopg.pq.TransactionStatus.IDLE
        return not self._psycopg.closed and self._psycopg.info.transaction_status == idle

    def close(self) -> None:
        """Close it. May be called again."""
        self._psycopg.close()

    def read(self, work: Callable[[Transaction], T]) -> Done[T]:
        """Run a work on one state of the database."""
        # In a transaction of its own: the state is taken at the first statement of one, and that
        # must come after the wait.
        self._begin(
            f"SELECT pg_advisory_xact_lock_shared{_GATE}",
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        )
        return self._work(work, commit=False)

    def write(self, work: Callable[[Transaction], T], *, seeding: bool) -> Done[T]:
        """Run a work and commit it, or nothing of it."""
        self._begin(
            "BEGIN",
            f"SET LOCAL lock_timeout = '30s'; SELECT pg_advisory_xact_lock{_WRITERS}",
            *([f"SELECT pg_advisory_xact_lock{_GATE}"] if seeding else []),
            "SET LOCAL lock_timeout = 0",
        )
        return self._work(work, commit=True)

    def _begin(self, *statements: str) -> None:
        try:
            for statement in statements:
                self._psycopg.execute(statement)
        except psycopg.Error as error:
            self._roll_back()
            failure = self._target.unavailable(error)
            if self._psycopg.closed:
                raise DeadConnectionError(str(failure)) from error
            raise failure from error

    def _work(self, work: Callable[[Transaction], T], *, commit: bool) -> Done[T]:
        transaction = _Transaction(self._psycopg)
        try:
            value = work(transaction)
            if commit:
                self._commit()
        except _UNAVAILABLE as error:
            raise self._target.unavailable(error) from error
        except psycopg.Error as error:
            raise self._target.broken(error) from error
        finally:
            self._roll_back()
        return Done(value, transaction.notified)

    def _commit(self) -> None:
        try:
            said = self._psycopg.execute("COMMIT").statusmessage
        except psycopg.Error as error:
            if self._psycopg.closed:
                raise CommitUnknownError from error
            raise
        if said != "COMMIT":
            raise RuntimeError("a work went on after one of its statements had failed")

    def _roll_back(self) -> None:
        idle = psycopg.pq.TransactionStatus.IDLE
        try:
            if not self._psycopg.closed and self._psycopg.info.transaction_status != idle:
                self._psycopg.execute("ROLLBACK")
        except psycopg.Error:
            self._psycopg.close()  # which undoes what is open

    def cancel(self, patience: float) -> None:
        """Ask the server to end the statement that runs; for another thread."""
        try:
            self._psycopg.cancel_safe(timeout=patience)
        except psycopg.Error:
            self.cut()

    def cut(self) -> None:
        """End the connection under a thread that waits for it; for another thread."""
        try:
            with socket.socket(fileno=os.dup(self._psycopg.fileno())) as shared:
                shared.shutdown(socket.SHUT_RDWR)
        except (OSError, psycopg.Error):
            pass  # it has ended by itself


def notices(connection: psycopg.Connection[Any]) -> list[int]:
    """Return the backends that have sent the notices at hand; never blocks."""
    return [notice.pid for notice in connection.notifies(timeout=0)]
