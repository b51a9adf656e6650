"""The store's database in PostgreSQL, for control planes and gateways on many machines.

Theory of operation. psycopg works in threads; a connection belongs to one thread at a time.

A writer takes an advisory lock when its transaction begins, and the commit releases it: one
writer at a time, so the order of revisions is the order of commits. A seed takes a second lock,
the gate, exclusively; a reader takes the gate shared, in a transaction of its own that ends at
once, and only then begins the transaction that it reads in, on one state (``REPEATABLE READ``).
So a reader either began before the seed, and sees nothing of it, or finds all of it. The server
frees both locks when a connection ends, however it ends.

A connection that was idle may have died meanwhile, as after a restart of the server, or lead to a
server that cannot be written any more: if that is found before the work begins, it begins on a new
one. Nothing else is tried again; a commit that broke off is reported to be unknown. Whatever the
server refused, its connection is not used again, and none is older than ten minutes: after a
failover, all of them soon lead to the server that the URL now means.

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
from psycopg.adapt import Buffer, Loader
from psycopg.types.numeric import IntDumper

from bridgepool._backoff import Backoff, shorten
from bridgepool.gateway.control._errors import CommitUnknownError, StoreUnavailableError
from bridgepool.gateway.control.database._database import Notices, Row, Transaction, Value
from bridgepool.gateway.control.database._pool import DeadConnectionError, connect_in_thread
from bridgepool.gateway.control.database._postgres_server import Server

T = TypeVar("T")

_CANCEL_TIMEOUT: Final = 1.0
_FIRST_RETRY: Final = 0.1
_LAST_RETRY: Final = 10.0
_CHANNEL: Final = "bridgepool"  # of notices, which carry no data
# Advisory locks; the first number tells ours from those of other programs in the same database.
_OURS: Final = 1_112_560_464
_WRITERS: Final = f"({_OURS}, 1)"
_GATE: Final = f"({_OURS}, 2)"
# A peer that vanished is noticed in half a minute, at both ends (`_postgres_server`); so is a
# process that stopped in the middle of a transaction, for which all other writers wait.
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
@attrs.define(eq=False)
class PostgresEngine:
    """An `Engine` on a PostgreSQL server."""

    find_table = "SELECT 1 WHERE to_regclass(?) IS NOT NULL"
    max_age = 600.0
    server: Server
    writer: int = attrs.field(default=0, init=False)
    """The backend of this process's writer: its notices have been published here."""

    @property
    def label(self) -> str:
        """See `Engine`."""
        return self.server.label

    def connect(self, *, readonly: bool) -> PostgresConnection:
        """See `Engine`."""
        return PostgresConnection(self, readonly=readonly)

    async def watch(self, notices: Notices) -> None:
        """See `Engine`; connects again when the connection ends, or is old."""
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
                    with trio.move_on_after(shorten(self.max_age, by=0.2)):
                        await self._receive(connection, notices)
                    continue
                except psycopg.Error as error:
                    raise self.server.unavailable(error) from error
                finally:
                    connection.close()
            except StoreUnavailableError as error:
                notices.failed(error)
            await trio.sleep(backoff.next_delay())

    async def _receive(self, connection: psycopg.Connection[Row], notices: Notices) -> None:
        while True:
            await trio.lowlevel.wait_readable(connection.fileno())
            backends = {notice.pid for notice in connection.notifies(timeout=0)}
            if backends - {self.writer}:
                notices.publish()

    def _connect_listener(self) -> psycopg.Connection[Row]:
        connection, _ = self.server.connect(readonly=True)
        try:
            connection.execute(f"LISTEN {_CHANNEL}")
        except psycopg.Error as error:
            connection.close()
            raise self.server.unavailable(error) from error
        return connection


@final
class PostgresConnection:
    """A `Connection` to a PostgreSQL server."""

    def __init__(self, engine: PostgresEngine, *, readonly: bool) -> None:
        self._engine = engine
        self._server = server = engine.server
        self._psycopg, self._reusable = server.connect(readonly=readonly)
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
        return self._reusable and not self._psycopg.closed and not self._in_transaction

    @property
    def _in_transaction(self) -> bool:
        return self._psycopg.info.transaction_status != psycopg.pq.TransactionStatus.IDLE

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
        # Found out before the work begins, and also if the work changes nothing.
        if self._begin("BEGIN", "SHOW transaction_read_only").fetchone() == ("on",):
            self._reusable = False
            self._roll_back()
            refused = self._server.not_writable("the server is a standby, or is set to read-only")
            raise DeadConnectionError(str(refused))
        self._begin(
            f"SET LOCAL lock_timeout = '30s'; SELECT pg_advisory_xact_lock{_WRITERS}",
            *([f"SELECT pg_advisory_xact_lock{_GATE}"] if seeding else []),
            "SET LOCAL lock_timeout = 0",
        )
        return self._run(function, commit=True)

    def _begin(self, *statements: str) -> psycopg.Cursor[Row]:
        try:
            *first, last = statements
            for statement in first:
                self._execute(statement)
            return self._execute(last)
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
        return self._execute(_translate(sql), args or None)

    def _execute(self, sql: str, args: tuple[Value, ...] | None = None) -> psycopg.Cursor[Row]:
        try:
            return self._psycopg.execute(sql, args)
        except psycopg.Error:
            self._reusable = False  # it may be the wrong server, for now or for good
            raise

    def _commit(self, statements: str) -> None:
        if self._psycopg.info.transaction_status == psycopg.pq.TransactionStatus.INERROR:
            raise RuntimeError("a transaction went on after one of its statements had failed")
        try:
            self._execute(statements)
        except psycopg.Error as error:
            if self._psycopg.closed:
                raise CommitUnknownError from error
            raise

    def _roll_back(self) -> None:
        try:
            if not self._psycopg.closed and self._in_transaction:
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
            # A caller that was cancelled gets `Cancelled` itself, and no group of it.
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
