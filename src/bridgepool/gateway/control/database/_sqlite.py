"""The store's database in one file, for any number of processes on one machine.

Theory of operation. The file is in WAL mode: readers see the last commit and wait for nobody.
A writer takes SQLite's write lock when it begins (``BEGIN IMMEDIATE``), so that it never finds
out at its end that somebody else was faster. Commits are synced to the disk (``FULL``): what a
caller was told is done outlives a power cut, and changes are too rare for the price to matter.

The gate is a lock on a file beside the database. A seed holds it alone, from before its first
change until after its commit; a reader takes it shared, gives it back at once, and begins only
then. So a reader either began before the seed, and sees nothing of it, or finds all of it; and
readers hold the gate for a microsecond, so they never hold up a seed. The seed takes the write
lock first: whoever waits for the gate holds nothing that anybody wants. The system frees both
locks of a process that dies.

Notices between processes: a commit that called `notify` counts up ``user_version`` in the file's
own head, and whoever has subscribers looks at it twenty times a second.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar, final

import attrs
import trio

from bridgepool.gateway.control._errors import StoreUnavailableError
from bridgepool.gateway.control.database._engines import Notices, open_engine
from bridgepool.gateway.control.database._migrations import TABLE
from bridgepool.gateway.control.database._sqlite_connection import Connection, StoreFile
from bridgepool.gateway.control.database._transactions import Database, Migrations, Transaction

T = TypeVar("T")

logger = logging.getLogger("bridgepool.store")

_READERS: Final = 4
_POLL: Final = 0.05  # seconds between two looks for the commits of other processes
_SETTLED: Final = 200_000_000  # nanoseconds; file clocks tick every 10 ms or faster
_POLL_AFTER_ERROR: Final = 1.0
_SEED_POLL: Final = 0.005  # of a reader that waits for a seed
_CLOSING: Final = 5.0
_EXISTS: Final = f"SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '{TABLE}'"  # noqa: S608


@attrs.define(eq=False)
class _Lane:
    """Connections of one kind; a thread has one for itself, and the limiter says how many."""

    file: StoreFile
    readonly: bool
    limiter: trio.CapacityLimiter
    idle: list[Connection] = attrs.field(factory=list, init=False)

    async def run(self, use: Callable[[Connection], T]) -> T:
        """Run in a worker thread, with a connection that nobody else has."""

        def work() -> T:
            connection = self.idle.pop() if self.idle else Connection(self.file, self.readonly)
            try:
                return use(connection)
            finally:
                if connection.usable:
                    self.idle.append(connection)
                else:
                    connection.close()

        return await trio.to_thread.run_sync(work, limiter=self.limiter)

    async def aclose(self) -> None:
        """Close what is idle, once no thread is at work."""

        def close() -> None:
            while self.idle:
                self.idle.pop().close()

        for _ in range(int(self.limiter.total_tokens)):
            await self.limiter.acquire_on_behalf_of(object())
        await trio.to_thread.run_sync(close)


@attrs.define(eq=False)
class _Look:
    """Whether the file may have changed, found without opening it: a few microseconds."""

    _found: tuple[int, int] | None = None
    _since: int = 0  # when that was first found, in nanoseconds

    def is_due(self, file: StoreFile) -> bool:
        """Tell whether to look into the file. Every commit writes to the log beside it."""
        try:
            status = os.stat(f"{file.path}-wal")
        except OSError:
            self._found = None
            return True
        found = (status.st_mtime_ns, status.st_size)
        now = time.monotonic_ns()
        if found != self._found:
            self._found, self._since = found, now
        # A commit within the same tick of the file's clock does not show; so a few more looks.
        return now - self._since < _SETTLED


@final
class SqliteEngine:
    """An `Engine` on one SQLite file."""

    def __init__(self, file: StoreFile, notices: Notices) -> None:
        self._writer = _Lane(file, False, trio.CapacityLimiter(1))
        self._readers = _Lane(file, True, trio.CapacityLimiter(_READERS))
        self._notices = notices
        self._seen = -1  # the last `user_version` that subscribers were told of

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """See `Database.read`."""
        while True:
            done = await self._readers.run(lambda connection: connection.read(work))
            if done is not None:
                return done.value
            await trio.sleep(_SEED_POLL)
            self._notices.check_open()

    async def write(self, work: Callable[[Transaction], T], *, seeding: bool) -> T:
        """See `Database.write`, and `Database.seed`."""
        done = await self._writer.run(lambda connection: connection.write(work, seeding=seeding))
        if done.notice is not None:
            self._seen = done.notice
            self._notices.publish()
        return done.value

    async def watch(self) -> None:
        """Publish what other processes commit, while anybody listens, until cancelled."""
        lane = _Lane(self._writer.file, True, trio.CapacityLimiter(1))
        failing = False
        look = _Look()
        try:
            while True:
                await self._notices.wait_subscribed()
                if not look.is_due(self._writer.file):
                    await trio.sleep(_POLL)
                    continue
                before = self._seen
                try:
                    number = await lane.run(lambda connection: connection.notice())
                except StoreUnavailableError as error:
                    if not failing:
                        logger.warning("changes of other processes are not seen: %s", error)
                    failing = True
                    look = _Look()
                    await trio.sleep(_POLL_AFTER_ERROR)
                    continue
                # A commit of our own meanwhile has told it all, and what was read may be older.
                if number != before and self._seen == before:
                    self._seen = number
                    self._notices.publish()
                if failing:
                    failing = False
                    logger.info("changes of other processes are seen again")
                await trio.sleep(_POLL)
        finally:
            with trio.move_on_after(_CLOSING, shield=True):
                await lane.aclose()

    async def aclose(self) -> None:
        """Wait for the works that run, close the file."""
        await self._readers.aclose()
        await self._writer.aclose()


@asynccontextmanager
async def open_sqlite(path: str, migrations: Migrations) -> AsyncIterator[Database]:
    """Open the file, make it if it is not there, and bring its tables up to date.

    Raises:
        StoreUnavailableError: The file cannot be opened, or is not a store's.
        NewerSchemaError: A newer bridgepool has been here.
    """
    if path == ":memory:":
        raise ValueError("a store is a file; SQLite's :memory: is another one for each connection")
    file = await trio.to_thread.run_sync(StoreFile.make, path)
    notices = Notices()
    engine = SqliteEngine(file, notices)
    async with open_engine(engine, notices, migrations, exists=_EXISTS) as database:
        yield database
