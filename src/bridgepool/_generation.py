"""One snapshot in force, or once in force, and everything that was built from it. Pure.

A `Generation` knows which of its entries are listed, in which order the idle ones would make
room, and when each is due; so that all of it is retired by letting go of the generation.

Only *idle* listed entries are kept in order, in two dicts: `once`, for those that were not
asked for again since they were built, and `again`, for the others. Both run from the longest
idle to the latest. The entry to make room is the oldest of `once` while that holds more than
its share, else the oldest of `again`: one-shot keys then displace nobody.

Expiry is kept in a calendar of buckets one reaper period wide: keeping it costs one dict
operation, and what is due is found without looking at the rest.
"""

from collections.abc import Hashable
from math import inf
from typing import Generic, TypeVar

import attrs

from ._snapshot import ProviderSnapshot

K = TypeVar("K", bound=Hashable)
P = TypeVar("P")
V = TypeVar("V")
F = TypeVar("F", bound=Hashable)


@attrs.define(eq=False)
class Entry(Generic[K, P, V, F]):
    """One open bridge."""

    key: K
    # what the caller keeps of the bridge; never looked into
    value: V
    generation: "Generation[K, P, V, F]"
    # where it waits while idle: `once` or `again` of its generation
    order: "dict[K, Entry[K, P, V, F]]"
    # a hit from here on looks twice: it is due for a refresh, or expired
    fresh_until: float
    expires_at: float
    leases: int = 0
    # retired on its own account; not the whole story, see `Ledger.is_retired`
    is_unlisted: bool = False


@attrs.define(eq=False)
class Generation(Generic[K, P, V, F]):
    """The entries, builds and pauses that belong to one snapshot."""

    number: int
    snapshot: ProviderSnapshot[P]
    # the width of a bucket of the calendar, in seconds
    reap_period: float
    listed: dict[K, Entry[K, P, V, F]] = attrs.field(factory=dict)
    once: dict[K, Entry[K, P, V, F]] = attrs.field(factory=dict)
    again: dict[K, Entry[K, P, V, F]] = attrs.field(factory=dict)
    # reaper period -> the listed entries that expire in it; dicts for their order
    calendar: dict[int, dict[Entry[K, P, V, F], None]] = attrs.field(factory=dict)
    # every bridge not yet closed; a dict for its order
    open: dict[Entry[K, P, V, F], None] = attrs.field(factory=dict)
    # every build that has not ended
    flights: dict[F, None] = attrs.field(factory=dict)
    # key -> when the next build may begin, after one that failed; the earliest first
    pauses: dict[K, float] = attrs.field(factory=dict)
    drain_deadline: float = inf
    is_overdue: bool = False

    @property
    def is_drained(self) -> bool:
        """Return whether nothing of this generation is open or being built."""
        return not self.open and not self.flights

    def enlist(self, entry: Entry[K, P, V, F]) -> None:
        """Make `entry` findable, in its order if idle, and note when it is due."""
        self.listed[entry.key] = entry
        if not entry.leases:
            entry.order[entry.key] = entry
        if entry.expires_at != inf:
            self.calendar.setdefault(self._bucket(entry), {})[entry] = None

    def unlist(self, entry: Entry[K, P, V, F]) -> None:
        """Undo `enlist`."""
        del self.listed[entry.key]
        entry.order.pop(entry.key, None)  # it has no place there while it is leased
        if entry.expires_at != inf:
            bucket = self._bucket(entry)
            del self.calendar[bucket][entry]
            if not self.calendar[bucket]:
                del self.calendar[bucket]

    def oldest_idle(self, probation: float) -> Entry[K, P, V, F] | None:
        """Return the entry to make room next, `once` being entitled to `probation` entries."""
        order = self.once if len(self.once) > probation or not self.again else self.again
        return next(iter(order.values()), None)

    def due(self, now: float) -> list[Entry[K, P, V, F]]:
        """List the listed entries whose reaper period is over."""
        over = [bucket for bucket in self.calendar if self._end(bucket) <= now]
        return [entry for bucket in over for entry in self.calendar[bucket]]

    def next_due(self) -> float:
        """Return when the first reaper period with something due ends, `math.inf` for never."""
        return min((self._end(bucket) for bucket in self.calendar), default=inf)

    def pause(self, key: K, now: float, until: float) -> None:
        """Let the next build of `key` begin at `until` at the earliest; forget past pauses."""
        while self.pauses and next(iter(self.pauses.values())) <= now:
            del self.pauses[next(iter(self.pauses))]
        self.pauses.pop(key, None)
        self.pauses[key] = until

    def _bucket(self, entry: Entry[K, P, V, F]) -> int:
        return int(entry.expires_at // self.reap_period)

    def _end(self, bucket: int) -> float:
        return (bucket + 1) * self.reap_period
