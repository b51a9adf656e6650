"""Which bridges are listed, leased, draining and due: the pure half of the pool.

Theory of operation
-------------------
An *entry* is one open bridge. It is *listed* from publication until it is *retired*; then it
stays open until its last lease ends, or its generation's drain deadline comes. Only entries
of the current generation are listed, so a replacement retires every entry by putting a new,
empty `Generation` in place of the current: one step, whatever their number. The rest of
the work for each of them, notifying its lease holders and closing it when idle, is returned by
`sweep`, a few at a time.

Therefore an entry is retired when it was unlisted on its own account, or when its generation
is not the current one; `is_retired` is the judge of that. It may be closed when it is retired
and has no lease. Methods that retire return the entries, for the caller to notify their lease
holders and to close the idle ones; `release` returns True when the last lease of a retired one
ends.

Room is made before an entry is listed: the victim is idle while any listed entry is idle.
One in use is then unlisted too, but closes only when its leases have ended: what was granted
is never taken back for size or age (race 5 of `docs/invariants.md`).

Nothing here awaits or reads a clock; time is an argument, in seconds.
"""

import enum
from collections import deque
from math import inf
from typing import Generic

from ._errors import PoolClosedError
from ._generation import Entry, F, Generation, K, P, V
from ._snapshot import ProviderSnapshot

# The part of `max_items` that entries used only once are entitled to.
_PROBATION_SHARE = 0.1


class RetireReason(enum.Enum):
    """Why a bridge stopped being listed."""

    CAPACITY = "capacity"
    EXPIRED = "expired"
    REPLACED = "replaced"
    CRASHED = "crashed"
    CLOSED = "closed"


class ReplaceOutcome(enum.Enum):
    """The outcome of `replace_providers`."""

    APPLIED = "applied"
    """It is in force, as a new generation."""
    UNCHANGED = "unchanged"
    """Its providers equal those in force: every bridge stays."""
    OUT_OF_DATE = "out of date"
    """Its revision is lower than the one in force: refused."""
    CLOSED = "closed"
    """The pool is being left: refused."""


class Ledger(Generic[K, P, V, F]):
    """The one place where entries, leases and generations change."""

    def __init__(
        self,
        snapshot: ProviderSnapshot[P],
        *,
        max_items: float,
        drain_timeout: float,
        reap_period: float,
    ) -> None:
        self._max_items = max_items
        self._probation = max_items * _PROBATION_SHARE
        self._drain_timeout = drain_timeout
        self._reap_period = reap_period
        self.current: Generation[K, P, V, F] = Generation(1, snapshot, reap_period)
        # the current generation and the earlier ones that are not drained, oldest first
        self.generations = {1: self.current}
        # replaced generations with entries, and with flights, that `sweep` has not visited
        self._unswept: deque[Generation[K, P, V, F]] = deque()
        self._overtaken: deque[Generation[K, P, V, F]] = deque()
        # entries of overdue generations that `overdue` has not handed out
        self._forced: deque[Entry[K, P, V, F]] = deque()
        self.closed = False
        self.open_count = 0
        self.published = 0
        # leases ever given to those who found a bridge, to those who waited for one, and ended
        self.hits = 0
        self.handed = 0
        self.ended = 0
        # a build waits for a bridge to become idle, so that it can make room
        self.wants_idle = False
        self.retired = dict.fromkeys(RetireReason, 0)
        self.replacements = dict.fromkeys(ReplaceOutcome, 0)

    # -- leases ---------------------------------------------------------------------------

    def lease(self, key: K, now: float) -> Entry[K, P, V, F] | None:
        """Look `key` up and lease what is found fresh; None is a miss, or needs a second look."""
        current = self.current
        try:
            entry = current.listed[key]
        except KeyError:
            return None
        if now >= entry.fresh_until:
            return None
        if not entry.leases:
            del entry.order[key]
        entry.order = current.again
        entry.leases += 1
        self.hits += 1
        return entry

    def release(self, entry: Entry[K, P, V, F]) -> bool:
        """End one lease; True if the bridge is to be closed, or its being idle was waited for."""
        self.ended += 1
        entry.leases -= 1
        if entry.leases:
            return False
        if entry.is_unlisted or entry.generation is not self.current:
            return True
        entry.order[entry.key] = entry
        return self.wants_idle

    @property
    def leases(self) -> int:
        """How many leases are held."""
        return self.hits + self.handed - self.ended

    # -- listing --------------------------------------------------------------------------

    def publish(self, entry: Entry[K, P, V, F], leases: int) -> Entry[K, P, V, F] | None:
        """Enter an open bridge, leased by those who waited for it, and list it.

        If its generation is not the current one it is retired from birth: an overtaken build
        that only its waiters use. Returns the entry whose place it takes, retired, if any.
        """
        entry.leases = leases
        self.handed += leases
        self.open_count += 1
        self.published += 1
        generation = entry.generation
        generation.open[entry] = None
        if generation is not self.current:
            entry.is_unlisted = True
            self.retired[RetireReason.REPLACED] += 1
            return None
        listed = generation.listed
        victim = listed.get(entry.key)
        if victim is not None:
            self.retire(victim, RetireReason.EXPIRED)  # refreshed ahead of its time
        elif len(listed) >= self._max_items:
            victim = generation.oldest_idle(self._probation) or next(iter(listed.values()))
            self.retire(victim, RetireReason.CAPACITY)
        generation.enlist(entry)
        return victim

    def retire(self, entry: Entry[K, P, V, F], reason: RetireReason) -> bool:
        """Unlist `entry`; False if it is retired already, for one reason is enough."""
        if self.is_retired(entry):
            return False
        entry.is_unlisted = True
        self.retired[reason] += 1
        entry.generation.unlist(entry)
        return True

    def is_retired(self, entry: Entry[K, P, V, F]) -> bool:
        """Return whether new acquires no longer find `entry`."""
        return entry.is_unlisted or entry.generation is not self.current

    def evict_idle(self) -> Entry[K, P, V, F] | None:
        """Retire an idle entry, if there is one, to free a place for a build that waits."""
        victim = self.current.oldest_idle(self._probation)
        if victim is not None:
            self.retire(victim, RetireReason.CAPACITY)
        return victim

    def expire(self, now: float, limit: int) -> list[Entry[K, P, V, F]]:
        """Retire and return up to `limit` entries whose reaper period is over."""
        due = self.current.due(now)[:limit]
        for entry in due:
            self.retire(entry, RetireReason.EXPIRED)
        return due

    # -- endings --------------------------------------------------------------------------

    def closed_entry(self, entry: Entry[K, P, V, F]) -> None:
        """Forget an entry whose bridge has been closed."""
        del entry.generation.open[entry]
        self.open_count -= 1
        self._forget_if_drained(entry.generation)

    def ended_flight(self, generation: Generation[K, P, V, F], flight: F) -> None:
        """Forget a build that has ended."""
        del generation.flights[flight]
        self._forget_if_drained(generation)

    def _forget_if_drained(self, generation: Generation[K, P, V, F]) -> None:
        if generation is not self.current and generation.is_drained:
            self.generations.pop(generation.number, None)

    def is_drained(self, number: int) -> bool:
        """Return whether nothing up to generation `number` is open or being built."""
        return all(g.number > number or g.is_drained for g in self.generations.values())

    # -- generations ----------------------------------------------------------------------

    def replace(self, snapshot: ProviderSnapshot[P], now: float) -> ReplaceOutcome:
        """Put `snapshot` in force, if it is new; the cost does not grow with the entries."""
        outcome = self._outcome_of(snapshot)
        self.replacements[outcome] += 1
        if outcome is ReplaceOutcome.APPLIED:
            number = self.current.number + 1
            successor: Generation[K, P, V, F] = Generation(number, snapshot, self._reap_period)
            self._succeed(successor, now + self._drain_timeout, RetireReason.REPLACED)
            self.generations[number] = successor
        elif outcome is ReplaceOutcome.UNCHANGED and snapshot.revision is not None:
            # The source has moved on, if only in name: remember how far it is.
            self.current.snapshot = snapshot
        return outcome

    def _outcome_of(self, snapshot: ProviderSnapshot[P]) -> ReplaceOutcome:
        if self.closed:
            return ReplaceOutcome.CLOSED
        if snapshot.older_than(self.current.snapshot):
            return ReplaceOutcome.OUT_OF_DATE
        if snapshot.same_providers(self.current.snapshot):
            return ReplaceOutcome.UNCHANGED
        return ReplaceOutcome.APPLIED

    def _succeed(
        self, successor: Generation[K, P, V, F], drain_deadline: float, reason: RetireReason
    ) -> None:
        old = self.current
        self.retired[reason] += len(old.listed)
        old.drain_deadline = drain_deadline
        self.current = successor
        if old.is_drained:
            del self.generations[old.number]
        else:
            self._unswept.append(old)
            self._overtaken.append(old)

    def check_open(self) -> None:
        """Raise `PoolClosedError` when everything was retired for good."""
        if self.closed:
            raise PoolClosedError("the pool is closed: its `async with` block was left")

    def close(self, drain_deadline: float) -> None:
        """Retire everything for good; leases may go on until `drain_deadline` at the latest."""
        self.closed = True
        number, snapshot = self.current.number, self.current.snapshot
        # Not entered in `generations`: nothing is ever built from it. The number stays, for
        # the last generation in force stays in the statistics.
        nothing: Generation[K, P, V, F] = Generation(number, snapshot, self._reap_period)
        self._succeed(nothing, drain_deadline, RetireReason.CLOSED)
        self.hasten(drain_deadline)

    def hasten(self, drain_deadline: float) -> None:
        """Bring every drain deadline forward to `drain_deadline` at the latest."""
        for generation in self.generations.values():
            generation.drain_deadline = min(generation.drain_deadline, drain_deadline)

    # -- what a reaper does, a few at a time ----------------------------------------------

    def sweep(self, limit: int) -> tuple[list[Entry[K, P, V, F]], list[F]]:
        """Visit up to `limit` entries, and all flights, of replaced generations, once each.

        Returns the entries, for the caller to notify their lease holders and to close the idle
        ones, and the flights that were overtaken.
        """
        flights: list[F] = []
        while self._overtaken:
            flights.extend(self._overtaken.popleft().flights)
        entries: list[Entry[K, P, V, F]] = []
        while self._unswept:
            generation = self._unswept[0]
            while generation.listed and len(entries) < limit:
                entry = next(reversed(generation.listed.values()))
                generation.unlist(entry)  # or it and its generation would hold each other
                entries.append(entry)
            if generation.listed:
                break
            self._unswept.popleft()
        return entries, flights

    def overdue(self, now: float, limit: int) -> tuple[list[Entry[K, P, V, F]], list[F]]:
        """Take up to `limit` open entries, and all flights, whose drain deadline has passed."""
        flights: list[F] = []
        for generation in self.generations.values():
            if generation.drain_deadline > now:
                break  # those of later generations are no earlier
            if not generation.is_overdue:
                generation.is_overdue = True
                self._forced.extend(generation.open)
                flights.extend(generation.flights)
        entries: list[Entry[K, P, V, F]] = []
        while self._forced and len(entries) < limit:
            entry = self._forced.popleft()
            if entry in entry.generation.open:
                entries.append(entry)
        return entries, flights

    @property
    def is_unswept(self) -> bool:
        """Return whether `sweep` finds something."""
        return bool(self._unswept or self._overtaken)

    def next_due(self) -> float:
        """Return when a reaper finds work; `-math.inf` for now, `math.inf` for never."""
        if self.is_unswept or self._forced:
            return -inf
        deadlines = (g.drain_deadline for g in self.generations.values() if not g.is_overdue)
        # The oldest generation's deadline is the earliest.
        return min(next(deadlines, inf), self.current.next_due())
