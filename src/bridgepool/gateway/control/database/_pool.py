"""A bounded pool of connections, each used by one worker thread at a time."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from functools import partial
from typing import Final, Generic, Protocol, TypeVar, final

import trio

from bridgepool._backoff import shorten
from bridgepool.gateway.control._errors import StoreUnavailableError

T = TypeVar("T")

_CLOSING: Final = 2.0


class DeadConnectionError(StoreUnavailableError):
    """The connection was found unusable before its work began, which may begin on another."""


class Closable(Protocol):
    """What `connect_in_thread` opens."""

    def close(self) -> object:
        """Close it."""
        ...


class Pooled(Closable, Protocol):
    """A connection for one thread at a time; `close` may be called again."""

    @property
    def usable(self) -> bool:
        """Whether it may be used again."""
        ...

    async def run_in_thread(self, function: Callable[[], T], threads: trio.CapacityLimiter) -> T:
        """Run a function that uses the connection in a worker thread.

        Cancellation:
            Interrupts the function if that is possible, and waits for it to end.
        """
        ...


C = TypeVar("C", bound=Closable)
P = TypeVar("P", bound=Pooled)


@final
class ConnectionPool(Generic[P]):
    """Connections of one kind, at most so many, opened when they are needed.

    Args:
        connect: Opens a connection; blocks.
        size: How many may be in use at the same time.
        max_age: Seconds after which a connection is replaced, at its next use or another's.
    """

    def __init__(self, connect: Callable[[], P], size: int, max_age: float) -> None:
        self._connect = connect
        self._size = size
        self._max_age = max_age
        self._places = trio.CapacityLimiter(size)
        self._threads = trio.CapacityLimiter(math.inf)  # the places bound them
        self._idle: list[tuple[float, P]] = []  # and until when it may be used
        self._closed = False

    async def run(self, function: Callable[[P], T]) -> T:
        """Run a function in a worker thread, with a connection of its own.

        A connection that died or became unusable while it was idle is replaced, if that is found
        before the work begins; nothing is done twice.

        Cancellation:
            Interrupts the work if the engine can, and waits for it to end.

        Raises:
            trio.ClosedResourceError: The pool was closed.
        """
        async with self._places:
            if self._closed:
                raise trio.ClosedResourceError("the store is closed")
            for connection in self._take_old():
                await self._close(connection)
            if self._idle:
                try:
                    return await self._use(*self._idle.pop(), function)
                except DeadConnectionError:
                    pass  # the others may be dead, too; each is found out when it is used
            connection = await connect_in_thread(self._connect, self._threads)
            until = trio.current_time() + shorten(self._max_age, by=0.2)
            return await self._use(until, connection, function)

    def _take_old(self) -> list[P]:
        now = trio.current_time()
        old = [connection for until, connection in self._idle if until <= now]
        self._idle = [(until, connection) for until, connection in self._idle if until > now]
        return old

    async def _use(self, until: float, connection: P, function: Callable[[P], T]) -> T:
        interrupted = False
        try:
            return await connection.run_in_thread(partial(function, connection), self._threads)
        except trio.Cancelled:
            interrupted = True  # which may take effect late, and hit another transaction
            raise
        finally:
            if connection.usable and not interrupted and not self._closed:
                self._idle.append((until, connection))
            else:
                await self._close(connection)  # noqa: ASYNC102 -- shields itself

    async def _close(self, connection: P) -> None:
        with trio.move_on_after(_CLOSING, shield=True):
            await trio.to_thread.run_sync(
                connection.close, limiter=self._threads, abandon_on_cancel=True
            )

    async def aclose(self) -> None:
        """Wait for the work that runs, then close all connections."""
        self._closed = True
        borrowers = [object() for _ in range(self._size)]
        for borrower in borrowers:
            await self._places.acquire_on_behalf_of(borrower)
        while self._idle:
            _, connection = self._idle.pop()
            await self._close(connection)
        for borrower in borrowers:  # for those who wait for a place, to learn that it is closed
            self._places.release_on_behalf_of(borrower)


async def connect_in_thread(connect: Callable[[], C], limiter: trio.CapacityLimiter) -> C:
    """Run `connect` in a worker thread.

    Cancellation:
        Does not wait for the thread, which closes what it opens afterwards.
    """
    lock = threading.Lock()
    left = False
    opened: list[C] = []

    def connect_or_close() -> None:
        connection = connect()
        with lock:
            if not left:
                opened.append(connection)
                return
        connection.close()

    try:
        await trio.to_thread.run_sync(connect_or_close, limiter=limiter, abandon_on_cancel=True)
    except BaseException:  # also if the thread has connected in this very moment
        with lock:
            left = True
        for connection in opened:
            connection.close()
        raise
    return opened.pop()
