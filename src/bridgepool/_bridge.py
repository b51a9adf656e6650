"""What a pool keeps of a bridge, and how its parts are called with that.

The ledger and the flights know neither bridges nor tasks; here they are given both.
"""

import inspect
from collections.abc import Callable, Hashable
from contextlib import AbstractAsyncContextManager
from typing import Generic, TypeAlias, TypeVar

import attrs
import trio

from ._flights import Flight
from ._generation import Entry, Generation
from ._ledger import Ledger
from ._options import seconds
from ._singleflight import Task
from ._snapshot import ProviderSnapshot

K = TypeVar("K", bound=Hashable)
P = TypeVar("P")
B = TypeVar("B")


@attrs.frozen
class ShortLived(Generic[B]):
    """Yield this from `open_bridge` to give one bridge a shorter time to live than the pool's.

    For a bridge that was built degraded, with an upstream missing for example: it
    serves, and is rebuilt in seconds rather than minutes.

    Args:
        bridge: The bridge; callers of `acquire` get it unwrapped.
        ttl: Its time to live in seconds. The pool's own applies if that is shorter. 0 for a bridge
            of which only those that wait for it get a lease.

    Raises:
        ValueError: `ttl` is negative, or not a number of seconds.
        TypeError: `ttl` is not a number.
    """

    bridge: B
    ttl: float = attrs.field(validator=seconds)


def unwrap(opened: B | ShortLived[B], ttl: float) -> tuple[B, float]:
    """Return the bridge itself, and its time to live where the pool's is `ttl`."""
    if isinstance(opened, ShortLived):
        return opened.bridge, min(ttl, opened.ttl)
    return opened, ttl


OpenBridge: TypeAlias = Callable[
    [K, ProviderSnapshot[P]], AbstractAsyncContextManager[B | ShortLived[B]]
]


def require_open_bridge(value: object, who: str) -> None:
    """Raise `TypeError` unless `value` can be an `open_bridge`; `who` names what wants one."""
    if isinstance(value, ProviderSnapshot):
        raise TypeError(f"{who}(open_bridge, snapshot): the first argument is the snapshot")
    if inspect.isasyncgenfunction(value) or inspect.isgeneratorfunction(value):
        raise TypeError(f"{who}: open_bridge must be decorated with @asynccontextmanager")
    if inspect.iscoroutinefunction(value):
        raise TypeError(
            f"{who}: open_bridge must return an async context manager, and not be async itself: "
            "yield the bridge, and decorate it with @asynccontextmanager"
        )
    if not callable(value):
        raise TypeError(f"{who}: open_bridge must be callable, not a {type(value).__name__}")


@attrs.define(eq=False)
class Owner(Generic[B]):
    """What the pool keeps of one open bridge."""

    bridge: B
    life: trio.CancelScope
    # set while parked, which it is from the step in which it was published
    task: Task | None = None
    # no longer parked: on its way to close, whether asked to or crashed
    is_leaving: bool = False
    has_crashed: bool = False
    # made by the first lease that waits for it
    retired: trio.Event | None = None

    def notify_retired(self) -> None:
        if self.retired is not None:
            self.retired.set()


PoolFlight: TypeAlias = Flight[K, Task]
PoolEntry: TypeAlias = Entry[K, P, Owner[B], Flight[K, Task]]
PoolGeneration: TypeAlias = Generation[K, P, Owner[B], Flight[K, Task]]
PoolLedger: TypeAlias = Ledger[K, P, Owner[B], Flight[K, Task]]
