"""Transactions in worker threads, and notices of commits, whatever engine is underneath.

`Database` is what the store uses; `Engine` and `Connection` are what an engine provides. Engines
differ in how they connect, lock and commit, and in how a notice travels between processes; all
else is here and in `_pool`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, Protocol, TypeAlias, TypeVar, final

import attrs
import trio

from bridgepool._changes import ChangeBus, ChangeSubscription
from bridgepool.gateway.control._errors import CommitUnknownError, StoreUnavailableError
from bridgepool.gateway.control.database._pool import ConnectionPool, Pooled

T = TypeVar("T")

logger = logging.getLogger("bridgepool.store")

_READERS: Final = 4
_CLOSING: Final = 5.0

Value: TypeAlias = str | int | bytes | None
"""An argument of a statement; a text holds no NUL, a number fits into 64 bits."""
Row: TypeAlias = tuple[Any, ...]  # what a statement selects is not for the type checker to know
"""A row that a query returns: ``str``, ``int``, ``bytes`` or None in each place."""
Migrations: TypeAlias = Sequence[Sequence[str]]
"""The statements that lead to version 1, those that lead from there to version 2, and so on."""

VERSIONS: Final = "schema_versions"
"""The table of the migrations that have been run; every store has it."""


class Cursor(Protocol):
    """The part of a DB-API cursor that is used."""

    @property
    def rowcount(self) -> int:
        """How many rows the statement changed."""
        ...

    def fetchone(self) -> Any:
        """Return the next row, None at the end."""
        ...

    def fetchall(self) -> list[Any]:
        """Return the remaining rows."""
        ...

    def close(self) -> object:
        """Discard what was not fetched."""
        ...


@final
@attrs.define(eq=False)
class Transaction:
    """One transaction, inside the worker thread that it runs in. Do not keep it.

    Statements are SQL that both engines support, with ``?`` for each argument. Columns are TEXT,
    INTEGER, BIGINT or BLOB; a truth value is an INTEGER, 0 or 1, and may be given as a ``bool``.
    """

    run_statement: Callable[[str, tuple[Value, ...]], Cursor]
    """Runs one statement on the engine's connection."""
    notified: bool = attrs.field(default=False, init=False)
    """Whether `notify` was called."""

    def fetch_all(self, sql: str, *args: Value) -> list[Row]:
        """Run a query and return all of its rows."""
        return self.run_statement(sql, args).fetchall()

    def fetch_one(self, sql: str, *args: Value) -> Row | None:
        """Run a query and return its first row, None if there is none."""
        cursor = self.run_statement(sql, args)
        row: Row | None = cursor.fetchone()
        cursor.close()
        return row

    def execute(self, sql: str, *args: Value) -> int:
        """Run a statement and return how many rows it changed."""
        return self.run_statement(sql, args).rowcount

    def notify(self) -> None:
        """Notify all subscribers, in every process, when this commits and only if it does."""
        self.notified = True


class Connection(Pooled, Protocol):
    """One connection of an engine; made by `Engine.connect`.

    Its methods raise `StoreUnavailableError` and `StoreBrokenError` as `Database` says.
    """

    def read(self, function: Callable[[Transaction], T]) -> T:
        """Run a function on one consistent state; blocks while a seed runs."""
        ...

    def write(self, function: Callable[[Transaction], T], *, seeding: bool) -> tuple[T, bool]:
        """Run a function and commit; returns its result, and whether it called `notify`."""
        ...


class Engine(Protocol):
    """A kind of database."""

    @property
    def find_table(self) -> str:
        """A query with the name of a table for its argument; returns a row if it exists."""
        ...

    @property
    def max_age(self) -> float:
        """Seconds after which a connection is replaced by a new one."""
        ...

    @property
    def label(self) -> str:
        """Which database it is, for people; without a password."""
        ...

    def connect(self, *, readonly: bool) -> Connection:
        """Connect; blocks."""
        ...

    async def watch(self, notices: Notices) -> None:
        """Publish the commits of other processes while there are subscribers, until cancelled."""
        ...


@final
class Notices:
    """The subscribers of one database."""

    def __init__(self) -> None:
        self._bus = ChangeBus()
        self._failing = False  # the last attempt to receive those of other processes failed
        self._subscribed = trio.Event()  # replaced when an engine waits for a subscriber

    def subscribe(self) -> ChangeSubscription:
        """See `Database.subscribe`."""
        subscription = self._bus.subscribe()
        self._subscribed.set()
        return subscription

    async def wait_subscribed(self) -> None:
        """Wait until there is a subscriber."""
        if self._bus.statistics().subscribers:
            await trio.lowlevel.checkpoint()
        else:
            self._subscribed = trio.Event()
            await self._subscribed.wait()

    def publish(self) -> None:
        """Notify all subscribers, if it was not closed meanwhile."""
        with suppress(trio.ClosedResourceError):
            self._bus.publish()

    def failed(self, error: StoreUnavailableError) -> None:
        """Report that those of other processes cannot be received; logged once in a row."""
        if not self._failing:
            logger.warning(
                "change notices of other processes unavailable", extra={"problem": str(error)}
            )
        self._failing = True

    def succeeded(self) -> None:
        """Report that those of other processes are received."""
        if self._failing:
            logger.info("change notices of other processes available again")
        self._failing = False

    def close(self) -> None:
        """End all subscriptions."""
        self._bus.close()


@final
class Database:
    """A database that is open; made by `open_database`.

    Functions run in worker threads, with a synchronous `Transaction`; what one raises rolls back
    all of it and is raised unchanged. Every method is a checkpoint.

    Raises:
        StoreUnavailableError: The database cannot be used now; another attempt may succeed.
        StoreBrokenError: The database rejected a valid statement.
        trio.ClosedResourceError: The block of `open_database` was left.
    """

    def __init__(self, engine: Engine) -> None:
        self.notices: Notices = Notices()
        age = engine.max_age
        self._writer = ConnectionPool(partial(engine.connect, readonly=False), 1, age)
        self._readers = ConnectionPool(partial(engine.connect, readonly=True), _READERS, age)

    async def read(self, function: Callable[[Transaction], T]) -> T:
        """Run a function that changes nothing, on one consistent state of the database.

        Waits while a seed runs, in whatever process, and then sees all of it. Waits for no
        other writer.

        Cancellation:
            The wait can be cancelled; a function that runs may run to its end.
        """
        return await self._readers.run(lambda connection: connection.read(function))

    async def write(self, function: Callable[[Transaction], T], *, seeding: bool = False) -> T:
        """Run a function that may change anything: all of it is kept, durably, or nothing.

        Writers run one after the other, in all processes: what a function reads does not change
        before it has ended, and one that begins later sees all that it wrote. With ``seeding``
        every reader waits until it is done.

        Cancellation:
            Leaves it done or not done, never half. Read to find out which.

        Raises:
            CommitUnknownError: The connection broke during the commit.
        """
        try:
            value, notified = await self._writer.run(
                lambda connection: connection.write(function, seeding=seeding)
            )
        except (CommitUnknownError, trio.Cancelled):
            self.notices.publish()  # it may have been committed
            raise
        if notified:
            self.notices.publish()
        return value

    def subscribe(self) -> ChangeSubscription:
        """Open a channel of notices that a transaction that called `notify` was committed.

        By whatever process; those of this one arrive at once. A notice may come without a
        change, to make good for one that may have been lost with a connection.
        """
        return self.notices.subscribe()

    async def aclose(self) -> None:
        """Wait for running transactions for a few seconds, then disconnect."""
        self.notices.close()
        with trio.move_on_after(_CLOSING, shield=True):
            await self._readers.aclose()
            await self._writer.aclose()
