"""The store's database in PostgreSQL, for control planes and gateways on many machines.

Theory of operation. psycopg works in threads; a connection belongs to one thread at a time.

A writer takes an advisory lock when its transaction begins, and the commit releases it: one
writer at a time, so the order of revisions is the order of commits. A seed takes a second lock,
the gate, exclusively; a reader takes the gate shared, in a transaction of its own that ends at
once, and only then begins the transaction that it reads in, on one state (``REPEATABLE READ``).
So a reader either began before the seed, and sees nothing of it, or finds all of it. The server
frees both locks when a connection ends, however it ends.

A connection that was idle may have died meanwhile, as after a restart of the server: if that is
found before the work begins, it begins on a new one. Nothing else is tried again; a commit that
broke off is reported to be unknown.

A cancelled transaction has its statement cancelled at the server, and after a second its
connection cut.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Final, TypeVar, final

import attrs
import outcome
import psycopg
import trio
from psycopg import conninfo
from psycopg.adapt import Buffer, Loader
from psycopg.types.numeric import IntDumper

from bridgepool._backoff import Backoff
from bridgepool._secret import Secret
from bridgepool.gateway.control._errors import (
    CommitUnknownError,
    StoreBrokenError,
    StoreUnavailableError,
)
from bridgepool.gateway.control.database._database import Notices, Row, Transaction, Value
from bridgepool.gateway.control.database._pool import DeadConnectionError, connect_in_thread

T = TypeVar("T")

_CANCEL_TIMEOUT: Final = 1.0
_FIRST_RETRY: Final = 0.1
_LAST_RETRY: Final = 10.0
_CHANNEL: Final = "bridgepool"  # of notices, which carry no data
# Advisory locks; the first number tells ours from those of other programs in the same database.
_OURS: Final = 1_112_560_464
_WRITERS: Final = f"({_OURS}, 1)"
_GATE: Final = f"({_OURS}, 2)"
# A peer that vanished is noticed in half a minute, at both ends; so is a process
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
def _translate(sql: str) -> str:
    """Return a statement in PostgreSQL's dialect."""
    count = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal count
        if match[0] == "?":
            count += 1
            return f"${count}"
        return "BYTEA" if match[0] == "BLOB" else match[0]

    return _TOKENS.sub(replace, sql)


class _BoolAsInt(Loader):
    def load(self, data: Buffer) -> int:
        return int(bytes(data) == b"t")


class _NumericAsInt(Loader):  # the type of a SUM of integers
    def load(self, data: Buffer) -> int:
        return int(bytes(data))


@final
@attrs.frozen
class Server:
    """A database, and how to connect to it."""

    conninfo: Secret
    label: str
    """Host, port and name, for people."""
    _hidden: tuple[Secret, ...] = ()

    @classmethod
    def parse(cls, url: Secret) -> Server:
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
        """Return an error with the reason, in one line and without the password."""
        reason = error.diag.message_primary or str(error).strip().partition("\n")[0]
        for secret in self._hidden:
            reason = reason.replace(secret.reveal(), "***")
        return StoreUnavailableError(
            f"the store in PostgreSQL at {self.label} cannot be used: {reason or 'no reason given'}"
        )

    def broken(self, error: psycopg.Error) -> StoreBrokenError:
        """Return an error with what the database said, but for values."""
        # A message about bad data quotes it.
        quotes = isinstance(error, psycopg.DataError)
        reason = None if quotes else error.diag.message_primary
        return StoreBrokenError(
            f"the store in PostgreSQL at {self.label}", reason or type(error).__name__
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


@final
@attrs.define(eq=False)
class PostgresEngine:
    """An `Engine` on a PostgreSQL server."""

    find_table = "SELECT 1 WHERE to_regclass(?) IS NOT NULL"
    server: Server
    writer: int = attrs.field(default=0, init=False)
    """The backend of this process's writer: its notices have been published here."""

    def connect(self, *, readonly: bool) -> PostgresConnection:
        """See `Engine`."""
        return PostgresConnection(self)

    async def watch(self, notices: Notices) -> None:
        """See `Engine`; connects again when the connection ends."""
        await notices.wait_subscribed()
        backoff = Backoff(_FIRST_RETRY, _LAST_RETRY)
        thread = trio.CapacityLimiter(1)
        while True:
            try:
                connection = await connect_in_thread(self._connect_listener, thread)
                try:
                    notices.succeeded()
                    backoff.reset()
                    notices.publish()  # those that came before were lost
                    while True:
                        await trio.lowlevel.wait_readable(connection.fileno())
                        backends = {notice.pid for notice in connection.notifies(timeout=0)}
                        if backends - {self.writer}:
                            notices.publish()
                except psycopg.Error as error:
                    raise self.server.unavailable(error) from error
                finally:
                    connection.close()
            except StoreUnavailableError as error:
                notices.failed(error)
            await trio.sleep(backoff.next_delay())

    def _connect_listener(self) -> psycopg.Connection[Row]:
        connection = self.server.connect()
        try:
            connection.execute(f"LISTEN {_CHANNEL}")
        except psycopg.Error as error:
            connection.close()
            raise self.server.unavailable(error) from error
        return connection


@final
class PostgresConnection:
    """A `Connection` to a PostgreSQL server."""

    def __init__(self, engine: PostgresEngine) -> None:
        self._engine = engine
        self._server = server = engine.server
        self._psycopg = server.connect()
        adapters = self._psycopg.adapters
        adapters.register_dumper(bool, IntDumper)
        adapters.register_loader("bool", _BoolAsInt)
        adapters.register_loader("numeric", _NumericAsInt)
        try:
            self._psycopg.execute(_SETTINGS)
        except psycopg.Error as error:
            self._psycopg.close()
            raise server.unavailable(error) from error
        self._backend = self._psycopg.info.backend_pid

    @property
    def usable(self) -> bool:
        """See `Connection`."""
        idle = psycopg.pq.TransactionStatus.IDLE
        return not self._psycopg.closed and self._psycopg.info.transaction_status == idle

    def close(self) -> None:
        """See `Connection`."""
        self._psycopg.close()
        if self._engine.writer == self._backend:
            self._engine.writer = 0  # the number may become another process's

    def read(self, function: Callable[[Transaction], T]) -> T:
        """See `Connection`."""
        # In a transaction of its own: the state is taken at the first statement of one, and that
        # must come after the wait.
        self._begin(
            f"SELECT pg_advisory_xact_lock_shared{_GATE}",
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        )
        value, _ = self._run(function, commit=False)
        return value

    def write(self, function: Callable[[Transaction], T], *, seeding: bool) -> tuple[T, bool]:
        """See `Connection`."""
        self._engine.writer = self._backend
        self._begin(
            "BEGIN",
            f"SET LOCAL lock_timeout = '30s'; SELECT pg_advisory_xact_lock{_WRITERS}",
            *([f"SELECT pg_advisory_xact_lock{_GATE}"] if seeding else []),
            "SET LOCAL lock_timeout = 0",
        )
        return self._run(function, commit=True)

    def _begin(self, *statements: str) -> None:
        try:
            for statement in statements:
                self._psycopg.execute(statement)
        except psycopg.Error as error:
            self._roll_back()
            failure = self._server.unavailable(error)
            if self._psycopg.closed:
                raise DeadConnectionError(str(failure)) from error
            raise failure from error

    def _run(self, function: Callable[[Transaction], T], *, commit: bool) -> tuple[T, bool]:
        transaction = Transaction(self._run_statement)
        try:
            value = function(transaction)
            if commit:
                self._commit(f"NOTIFY {_CHANNEL}; COMMIT" if transaction.notified else "COMMIT")
        except _UNAVAILABLE as error:
            raise self._server.unavailable(error) from error
        except psycopg.Error as error:
            raise self._server.broken(error) from error
        finally:
            self._roll_back()
        return value, transaction.notified

    def _run_statement(self, sql: str, args: tuple[Value, ...]) -> psycopg.Cursor[Row]:
        return self._psycopg.execute(_translate(sql), args or None)

    def _commit(self, statements: str) -> None:
        if self._psycopg.info.transaction_status == psycopg.pq.TransactionStatus.INERROR:
            raise RuntimeError("a transaction went on after one of its statements had failed")
        try:
            self._psycopg.execute(statements)
        except psycopg.Error as error:
            if self._psycopg.closed:
                raise CommitUnknownError from error
            raise

    def _roll_back(self) -> None:
        idle = psycopg.pq.TransactionStatus.IDLE
        try:
            if not self._psycopg.closed and self._psycopg.info.transaction_status != idle:
                self._psycopg.execute("ROLLBACK")
        except psycopg.Error:
            self._psycopg.close()  # which undoes what is open

    async def run_in_thread(self, function: Callable[[], T], threads: trio.CapacityLimiter) -> T:
        """See `Connection`; raises `trio.Cancelled` even if the function had ended.

        A cancellation cancels the statement at the server; if that does not help, it cuts the
        connection.
        """
        finished = trio.Event()

        async def interrupt_if_cancelled() -> None:
            try:
                await trio.sleep_forever()
            finally:
                if not finished.is_set():
                    with trio.move_on_after(_CANCEL_TIMEOUT, shield=True):
                        await trio.to_thread.run_sync(
                            self._cancel, limiter=threads, abandon_on_cancel=True
                        )
                        await finished.wait()
                    if not finished.is_set():
                        self._cut()

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(interrupt_if_cancelled)
                work = partial(outcome.capture, function)
                try:  # does not end before the thread does
                    result = await trio.to_thread.run_sync(work, limiter=threads)
                finally:
                    finished.set()
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup:
            # `Cancelled` alone, without a group.
            await trio.lowlevel.checkpoint_if_cancelled()  # noqa: ASYNC120 -- raises only if cancelled
            raise
        return result.unwrap()

    def _cancel(self) -> None:
        try:
            self._psycopg.cancel_safe(timeout=_CANCEL_TIMEOUT)
        except psycopg.Error:
            self._cut()

    def _cut(self) -> None:
        """End the connection under a thread that waits for it."""
        try:
            with socket.socket(fileno=os.dup(self._psycopg.fileno())) as shared:
                shared.shutdown(socket.SHUT_RDWR)
        except (OSError, psycopg.Error):
            pass  # it has ended by itself
