"""Finding the bridge of a key, or waiting for it; and the leases that this gives."""

from collections.abc import Hashable
from types import TracebackType
from typing import Generic, TypeVar

import trio

from ._bridge import PoolEntry, PoolLedger
from ._errors import BuildError
from ._ledger import RetireReason
from ._supervisor import BridgeSupervisor

K = TypeVar("K", bound=Hashable)
P = TypeVar("P")
B = TypeVar("B")


class BridgeLookup(Generic[K, P, B]):
    """The look-ups of one pool, and their counts."""

    def __init__(
        self, ledger: PoolLedger[K, P, B], supervisor: BridgeSupervisor[K, P, B], max_rebuilds: int
    ) -> None:
        self.ledger = ledger
        self.supervisor = supervisor
        self.scheduler = supervisor.scheduler
        self._max_rebuilds = max_rebuilds
        # Trio's clock, looked up once: a hit is too short to look it up each time.
        self.clock = trio.lowlevel.current_clock()
        self.misses = self.joins = self.rebuilds = 0

    def find(self, key: K, now: float) -> PoolEntry[K, P, B] | None:
        """Lease what is listed; retire it if expired, and build ahead if it soon will be."""
        ledger, supervisor = self.ledger, self.supervisor
        entry = ledger.current.listed.get(key)
        if entry is None:
            return None
        if now >= entry.expires_at:
            ledger.retire(entry, RetireReason.EXPIRED)
            supervisor.close_when_idle(entry)
            return None
        if now >= entry.fresh_until:
            entry.fresh_until = entry.expires_at  # one build ahead is enough
            supervisor.launch(key, now, background=True)
        return ledger.lease(key, now)

    def release(self, entry: PoolEntry[K, P, B]) -> None:
        """End one lease. Cannot fail."""
        if self.ledger.release(entry):
            self.supervisor.became_idle(entry)

    def accept(self, entry: PoolEntry[K, P, B], moves: int) -> PoolEntry[K, P, B] | None:
        """Return a bridge that was retired before its waiter ran, or give it back: None."""
        is_leaving = self.ledger.closed or entry.value.is_leaving
        is_current = entry.generation is self.ledger.current
        if not is_leaving and (is_current or moves >= self._max_rebuilds):
            return entry
        self.release(entry)
        if entry.value.has_crashed and moves >= self._max_rebuilds:
            raise BuildError(entry.key, entry.generation.number, "crashed before its first use")
        return None


class LeaseState(Generic[K, P, B]):
    """What both kinds of lease report while they are held."""

    # The pool fills these in, and there is no `__init__`: calling one takes a ninth of the time of
    # `acquire_nowait`.
    __slots__ = ("_entry", "_is_entered", "_key", "_lookup")
    _lookup: BridgeLookup[K, P, B]
    _key: K
    _entry: PoolEntry[K, P, B] | None  # set while it is held
    _is_entered: bool  # held, or waiting for its bridge; of a `Lease` alone

    @property
    def generation(self) -> int:
        """The generation that the bridge was built for."""
        return self._held().generation.number

    @property
    def is_retired(self) -> bool:
        """Whether new acquires no longer find the bridge, so that a long user may finish early."""
        return self._lookup.ledger.is_retired(self._held())

    async def wait_retired(self) -> None:
        """Wait until the bridge is retired, for whatever reason. A checkpoint.

        A crashed bridge is retired, too, so a long user can notice that.
        """
        entry = self._held()
        if self._lookup.ledger.is_retired(entry):
            await trio.lowlevel.checkpoint()
            return
        if entry.value.retired is None:
            entry.value.retired = trio.Event()
        await entry.value.retired.wait()

    def _held(self) -> PoolEntry[K, P, B]:
        if self._entry is None:
            raise RuntimeError("the lease is not held: ask inside its `with` block")
        return self._entry


class Lease(LeaseState[K, P, B]):
    """The right to use one bridge inside one `async with`. Made by `CachedBridgePool.acquire`."""

    __slots__ = ()

    # The two kinds of lease end by the same lines, written twice: one more call would be felt
    # in the cost of a hit.

    # An interrupt between the lease and the `with` body would leak the lease.
    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> B:
        if self._is_entered:
            raise RuntimeError("the lease is in use: call `acquire` for each `async with`")
        self._is_entered = True
        lookup, key, ledger = self._lookup, self._key, self._lookup.ledger
        entry, moves = None, 0
        try:
            if key in ledger.current.listed:
                await trio.lowlevel.checkpoint()
                now = lookup.clock.current_time()
                entry = ledger.lease(key, now) or lookup.find(key, now)
            # No checkpoint between seeing that nothing is listed and joining or starting a build.
            while entry is None:
                now = lookup.clock.current_time()
                flight = lookup.scheduler.table.find(key, ledger.current.number, now)
                if flight is None:
                    # Nothing is built for a caller that is cancelled already.
                    await trio.lowlevel.checkpoint_if_cancelled()
                    flight = lookup.supervisor.launch(key, now)
                    lookup.misses += not moves
                else:
                    lookup.joins += not moves
                # Parking on the flight is the checkpoint of a miss.
                try:
                    entry = await lookup.scheduler.wait(flight, moves)
                except BuildError as error:
                    if error.generation == ledger.current.number:
                        raise
                # What is handed over may be out of date by the time that this task runs: another
                # one may have replaced the providers, or left the pool, in between.
                if entry is not None and ledger.is_retired(entry):
                    entry = lookup.accept(entry, moves)
                if entry is None:
                    moves += 1
                    lookup.rebuilds += 1
                    entry = lookup.find(key, lookup.clock.current_time())
        except BaseException:
            self._is_entered = False
            raise
        self._entry = entry
        return entry.value.bridge

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        entry = self._entry
        if entry is None:
            raise RuntimeError("the lease is not held: it was left already")
        self._entry = None
        self._is_entered = False
        lookup = self._lookup
        if lookup.ledger.release(entry):
            lookup.supervisor.became_idle(entry)


class NowaitLease(LeaseState[K, P, B]):
    """The same inside one `with`. Made by `CachedBridgePool.acquire_nowait`."""

    __slots__ = ()

    @trio.lowlevel.enable_ki_protection
    def __enter__(self) -> B:
        if self._entry is not None:
            raise RuntimeError("the lease is in use: call `acquire_nowait` for each `with`")
        lookup = self._lookup
        now = lookup.clock.current_time()
        entry = lookup.ledger.lease(self._key, now) or lookup.find(self._key, now)
        if entry is None:
            lookup.ledger.check_open()
            raise trio.WouldBlock
        self._entry = entry
        return entry.value.bridge

    @trio.lowlevel.enable_ki_protection
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        entry = self._entry
        if entry is None:
            raise RuntimeError("the lease is not held: it was left already")
        self._entry = None
        lookup = self._lookup
        if lookup.ledger.release(entry):
            lookup.supervisor.became_idle(entry)
