"""The store's database in PostgreSQL, for control planes and gateways on many machines.

Theory of operation. psycopg works in threads; a connection belongs to one thread at a time.

A writer takes an advisory lock when its transaction begins, and the commit gives it back: one
writer at a time, so the order of revisions is the order of commits. A seed takes a second lock,
the gate, alone; a reader takes the gate shared, in a transaction of its own that ends at once,
and only then begins the transaction that it reads in, on one state (``REPEATABLE READ``). So a
reader either began before the seed, and sees nothing of it, or finds all of it. The server frees
both locks when a connection ends, however it ends.

A connection that was idle may have died meanwhile, as after a restart of the server: what finds
that out before its work begins tries once more on a new one. Nothing else is tried again; a
commit that broke off is told to be unknown.

A cancelled work has its statement cancelled at the server, and after a second its connection cut.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar, final

import attrs
import trio

from bridgepool._secret import Secret
from bridgepool.gateway.control._errors import CommitUnknownError
from bridgepool.gateway.control.database._connecting import connect_in_thread
from bridgepool.gateway.control.database._engines import Notices, open_engine
from bridgepool.gateway.control.database._migrations import TABLE
from bridgepool.gateway.control.database._postgres_connection import (
    Connection,
    DeadConnectionError,
    Done,
    Target,
)
from bridgepool.gateway.control.database._postgres_notices import listen
from bridgepool.gateway.control.database._transactions import Database, Migrations, Transaction

T = TypeVar("T")
R = TypeVar("R")

_READERS: Final = 4
_CANCELLING: Final = 1.0
_EXISTS: Final = f"SELECT 1 WHERE to_regclass('{TABLE}') IS NOT NULL"


@attrs.define(eq=False)
class _Lane:
    """Connections of one kind; the limiter says how many are at work."""

    target: Target
    places: trio.CapacityLimiter
    threads: trio.CapacityLimiter
    idle: list[Connection] = attrs.field(factory=list, init=False)

    async def run(self, use: Callable[[Connection], T]) -> T:
        """Run in a worker thread, with a connection that nobody else has."""
        async with self.places:
            if self.idle:
                try:
                    return await self._use(self.idle.pop(), use)
                except DeadConnectionError:
                    pass  # the others may be dead, too; each of them finds out when it is used
            return await self._use(await connect_in_thread(self._connect, self.threads), use)

    def _connect(self) -> Connection:
        return Connection(self.target)

    async def _use(self, connection: Connection, use: Callable[[Connection], T]) -> T:
        finished = trio.Event()
        cancelled = False
        results: list[T] = []
        failures: list[BaseException] = []

        def work() -> None:
            try:
                results.append(use(connection))
            except BaseException as error:  # noqa: ASYNC103 -- carried over, raised below
                failures.append(error)

        async def cancel_if_asked() -> None:
            nonlocal cancelled
            try:
                await trio.sleep_forever()
            finally:
                if not finished.is_set():
                    cancelled = True
                    with trio.move_on_after(_CANCELLING, shield=True):
                        await trio.to_thread.run_sync(
                            connection.cancel, _CANCELLING, limiter=self.threads,
                            abandon_on_cancel=True,
                        )  # fmt: skip
                        await finished.wait()
                    if not finished.is_set():
                        connection.cut()

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_if_asked)
                with trio.CancelScope(shield=True):  # ends in time: see the other task
                    await trio.to_thread.run_sync(work, limiter=self.threads)
                finished.set()
                nursery.cancel_scope.cancel()
        finally:
            # A cancellation may reach the server late, and hit another statement.
            if connection.usable and not cancelled:
                self.idle.append(connection)
            else:
                connection.close()
        if failures:
            if cancelled:
                await trio.lowlevel.checkpoint_if_cancelled()
            try:
                raise failures.pop()
            finally:
                del failures
        return results.pop()

    async def aclose(self) -> None:
        """Close what is idle, once nothing is at work."""
        for _ in range(int(self.places.total_tokens)):
            await self.places.acquire_on_behalf_of(object())
        while self.idle:
            self.idle.pop().close()


@final
class PostgresEngine:
    """An `Engine` on a PostgreSQL server."""

    def __init__(self, target: Target, notices: Notices) -> None:
        threads = trio.CapacityLimiter(math.inf)  # the places bound them
        self._writer = _Lane(target, trio.CapacityLimiter(1), threads)
        self._readers = _Lane(target, trio.CapacityLimiter(_READERS), threads)
        self._notices = notices
        self._writer_pid = 0  # whose notices subscribers have had from here

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """See `Database.read`."""
        return (await self._readers.run(lambda connection: connection.read(work))).value

    async def write(self, work: Callable[[Transaction], T], *, seeding: bool) -> T:
        """See `Database.write`, and `Database.seed`."""

        def use(connection: Connection) -> Done[T]:
            self._writer_pid = connection.pid
            return connection.write(work, seeding=seeding)

        try:
            done = await self._writer.run(use)
        except BaseException as error:
            self._writer_pid = 0  # the number may become another process's
            if isinstance(error, CommitUnknownError | trio.Cancelled):
                self._notices.publish()  # it may have been committed
            raise
        if done.notified:
            self._notices.publish()
        return done.value

    async def watch(self) -> None:
        """Publish what others commit, from the first subscription on, until cancelled."""
        await self._notices.wait_subscribed()
        await listen(self._writer.target, self._heard)

    def _heard(self, pids: set[int]) -> None:
        if pids != {self._writer_pid}:
            self._notices.publish()

    async def aclose(self) -> None:
        """Wait for the works that run, disconnect."""
        await self._readers.aclose()
        await self._writer.aclose()


@asynccontextmanager
async def open_postgres(url: Secret, migrations: Migrations) -> AsyncIterator[Database]:
    """Connect to a database and bring its tables up to date.

    Raises:
        StoreUnavailableError: It cannot be reached or used; says why, without the password.
        NewerSchemaError: A newer bridgepool has been here.
    """
    notices = Notices()
    engine = PostgresEngine(Target.parse(url), notices)
    async with open_engine(engine, notices, migrations, exists=_EXISTS) as database:
        yield database
