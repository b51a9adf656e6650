"""What both engines do alike: who may still come, who hears of commits, and how it all ends.

An `Engine` is what each of them does in its own way. It shares one `Notices` with the database
that `open_engine` makes of it: the engine publishes there, and is closed once nobody can come.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, Protocol, TypeVar, final

import attrs
import trio

from bridgepool._changes import ChangeBus, ChangeSubscription
from bridgepool._services import open_service_nursery
from bridgepool.gateway.control.database._migrations import migration_work
from bridgepool.gateway.control.database._transactions import Database, Migrations, Transaction

T = TypeVar("T")

_CLOSING: Final = 5.0


class Engine(Protocol):
    """A kind of database. What its methods promise and raise is said in `Database`."""

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Run a work that changes nothing."""
        ...

    async def write(self, work: Callable[[Transaction], T], *, seeding: bool) -> T:
        """Run a work that may change anything, and publish if it called `notify`."""
        ...

    async def watch(self) -> None:
        """Publish what other processes commit, once anybody has subscribed, until cancelled."""
        ...

    async def aclose(self) -> None:
        """Wait for the works that run, then let go of the database."""
        ...


@final
class Notices:
    """The subscribers of one database, and whether it is open."""

    def __init__(self) -> None:
        self._bus = ChangeBus()
        self._subscribed = trio.Event()  # somebody has subscribed since the engine waited for it
        self._closed = False

    def check_open(self) -> None:
        """Raise `trio.ClosedResourceError` once this was closed."""
        if self._closed:
            raise trio.ClosedResourceError("the store is closed")

    def subscribe(self) -> ChangeSubscription:
        """See `Database.subscribe`."""
        self.check_open()
        self._subscribed.set()
        return self._bus.subscribe()

    async def wait_subscribed(self) -> None:
        """Wait until there is a subscriber."""
        if self._bus.statistics().subscribers:
            await trio.lowlevel.checkpoint()
        else:
            self._subscribed = trio.Event()
            await self._subscribed.wait()

    def publish(self) -> None:
        """Tell all subscribers, unless this was closed meanwhile."""
        if not self._closed:
            self._bus.publish()

    def close(self) -> None:
        """Refuse what comes from now on."""
        self._closed = True
        self._bus.close()


@final
@attrs.frozen
class _OpenDatabase:
    """A `Database`: an engine as long as it is open."""

    _engine: Engine
    _notices: Notices

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """See `Database.read`."""
        self._notices.check_open()
        return await self._engine.read(work)

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """See `Database.write`."""
        self._notices.check_open()
        return await self._engine.write(work, seeding=False)

    async def seed(self, work: Callable[[Transaction], T]) -> T:
        """See `Database.seed`."""
        self._notices.check_open()
        return await self._engine.write(work, seeding=True)

    def subscribe(self) -> ChangeSubscription:
        """See `Database.subscribe`."""
        return self._notices.subscribe()


@asynccontextmanager
async def open_engine(
    engine: Engine, notices: Notices, migrations: Migrations, *, exists: str
) -> AsyncIterator[Database]:
    """Bring the tables up to date, and keep the engine watched until the block is left.

    Args:
        engine: What does the work; closed in the end.
        notices: Those of the engine.
        migrations: See `open_database`.
        exists: See `migration_work`.
    """
    database = _OpenDatabase(engine, notices)
    try:
        await database.seed(migration_work(migrations, exists=exists))
        async with open_service_nursery() as nursery:
            nursery.start_soon(engine.watch)
            try:
                yield database
            finally:
                nursery.cancel_scope.cancel()
    finally:
        notices.close()
        with trio.move_on_after(_CLOSING, shield=True):
            await engine.aclose()
