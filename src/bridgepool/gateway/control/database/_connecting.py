"""Connect in a thread without waiting for it when cancelled."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

import trio


class Closable(Protocol):
    """What connecting gives."""

    def close(self) -> object:
        """Close it."""
        ...


C = TypeVar("C", bound=Closable)


async def connect_in_thread(connect: Callable[[], C], limiter: trio.CapacityLimiter) -> C:
    """Run `connect` in a worker thread.

    Cancellation:
        Leaves the thread alone; what it gets afterwards is closed by it.
    """
    lock = threading.Lock()
    left = False
    made: list[C] = []

    def work() -> None:
        connection = connect()
        with lock:
            if not left:
                made.append(connection)
                return
        connection.close()

    try:
        await trio.to_thread.run_sync(work, limiter=limiter, abandon_on_cancel=True)
    except BaseException:
        with lock:
            left = True
        for connection in made:
            connection.close()
        raise
    return made.pop()
