"""The ledger against a naive model, which keeps lists and scans them.

Holds the invariants 5, 6, 7, 8, 10, 16, 26, 33 and 38, and that the victims of evictions come in
exactly the order promised: a tenth of the places is for bridges that were used only once.
"""

from collections.abc import Callable
from math import floor, inf

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from bridgepool import ProviderSnapshot, ReplaceOutcome, RetireReason
from bridgepool._generation import Entry, Generation
from bridgepool._ledger import Ledger

_PERIOD = 2.0
_DRAIN = 6.0
_KEYS = st.sampled_from("abcdef")
_LIMITS = st.sampled_from([1, 2, 100])

RealEntry = Entry[str, int, str, str]
RealGeneration = Generation[str, int, str, str]


@attrs.define(eq=False)
class Bridge:
    """What the model knows of one bridge."""

    real: RealEntry
    key: str
    generation: int
    leases: int
    fresh_until: float
    expires_at: float
    was_hit: bool = False
    reason: RetireReason | None = None
    is_closed: bool = False
    # when it became idle last: a number that only grows
    idle_since: int = 0


@attrs.define(eq=False)
class Build:
    """What the model knows of one build under way."""

    name: str
    key: str
    generation: RealGeneration


class LedgerMachine(RuleBasedStateMachine):
    """Every method of the ledger, in any order that the pool could use them in."""

    @initialize(max_items=st.sampled_from([1, 2, 3, 20]))
    def start(self, max_items: int) -> None:
        self.max_items = max_items
        self.now = 100.0
        self.revision = 1
        self.snapshot = ProviderSnapshot([1], 1)
        self.ledger: Ledger[str, int, str, str] = Ledger(
            self.snapshot, max_items=max_items, drain_timeout=_DRAIN, reap_period=_PERIOD
        )
        self.generation = 1
        self.is_closed = False
        # every bridge ever, in the order of publication
        self.bridges: list[Bridge] = []
        self.builds: list[Build] = []
        self.real_generations: dict[int, RealGeneration] = {1: self.ledger.current}
        self.deadlines: dict[int, float] = {}
        self.unswept: list[Bridge] = []
        self.overtaken: list[int] = []
        self.overdue_seen: set[int] = set()
        self.forced: list[Bridge] = []
        self.hits = self.handed = self.ended = self.turn = self.names = 0
        self.replacements = dict.fromkeys(ReplaceOutcome, 0)

    # -- the model, by scanning -----------------------------------------------------------

    def listed(self) -> list[Bridge]:
        return [bridge for bridge in self.bridges if bridge.reason is None]

    def idle(self) -> list[Bridge]:
        idle = [bridge for bridge in self.listed() if not bridge.leases]
        return sorted(idle, key=lambda bridge: bridge.idle_since)

    def next_victim(self) -> Bridge | None:
        once = [bridge for bridge in self.idle() if not bridge.was_hit]
        again = [bridge for bridge in self.idle() if bridge.was_hit]
        if once and (len(once) > 0.1 * self.max_items or not again):
            return once[0]
        return again[0] if again else None

    def due(self) -> list[Bridge]:
        """Those whose reaper period is over."""
        return [bridge for bridge in self.listed() if self.reaped_at(bridge) <= self.now]

    def reaped_at(self, bridge: Bridge) -> float:
        if bridge.expires_at == inf:
            return inf
        return (floor(bridge.expires_at / _PERIOD) + 1) * _PERIOD

    def of(self, real: RealEntry) -> Bridge:
        [bridge] = [bridge for bridge in self.bridges if bridge.real is real]
        return bridge

    def retire(self, bridge: Bridge, reason: RetireReason) -> None:
        assert bridge.reason is None
        bridge.reason = reason

    def becomes_idle(self, bridge: Bridge) -> None:
        self.turn += 1
        bridge.idle_since = self.turn

    def has_left(self, generation: int) -> bool:
        """Whether nothing of it is open or being built."""
        is_open = any(b.generation == generation and not b.is_closed for b in self.bridges)
        return not is_open and all(b.generation.number != generation for b in self.builds)

    # -- rules ----------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.1, 1.0, 2.5, 7.0]))
    def advance(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: not self.is_closed)
    @rule(key=_KEYS)
    def launch(self, key: str) -> None:
        self.names += 1
        build = Build(f"build {self.names}", key, self.ledger.current)
        build.generation.flights[build.name] = None
        self.builds.append(build)

    @precondition(lambda self: self.builds)
    @rule(
        data=st.data(),
        leases=st.integers(0, 2),
        ttl=st.sampled_from([1.0, 5.0, 30.0, inf]),
        ahead=st.sampled_from([0.0, 0.5]),
    )
    def publish(self, data: st.DataObject, leases: int, ttl: float, ahead: float) -> None:
        build = data.draw(st.sampled_from(self.builds))
        number = build.generation.number
        is_current = number == self.generation and not self.is_closed
        expected, reason = None, RetireReason.EXPIRED
        if is_current:
            same_key = [bridge for bridge in self.listed() if bridge.key == build.key]
            if same_key:
                expected = same_key[0]
            elif len(self.listed()) >= self.max_items:
                reason = RetireReason.CAPACITY
                expected = self.next_victim() or self.listed()[0]

        expires_at = self.now + ttl
        entry: RealEntry = Entry(
            build.key, build.name, build.generation, build.generation.once,
            expires_at - ahead, expires_at,
        )  # fmt: skip
        victim = self.ledger.publish(entry, leases)
        self.ledger.ended_flight(build.generation, build.name)
        self.builds.remove(build)

        assert victim is (expected.real if expected is not None else None)
        if expected is not None:
            assert not expected.leases or reason is RetireReason.EXPIRED or not self.idle()
            self.retire(expected, reason)
        bridge = Bridge(entry, build.key, number, leases, expires_at - ahead, expires_at)
        self.bridges.append(bridge)
        self.handed += leases
        self.becomes_idle(bridge)
        if not is_current:
            bridge.reason = RetireReason.REPLACED

    @precondition(lambda self: self.builds)
    @rule(data=st.data())
    def build_fails(self, data: st.DataObject) -> None:
        build = data.draw(st.sampled_from(self.builds))
        self.ledger.ended_flight(build.generation, build.name)
        self.builds.remove(build)

    @rule(key=_KEYS)
    def lease(self, key: str) -> None:
        found = [b for b in self.listed() if b.key == key and self.now < b.fresh_until]
        entry = self.ledger.lease(key, self.now)
        if not found:
            assert entry is None
            return
        assert entry is found[0].real
        self.hits += 1
        found[0].was_hit = True
        found[0].leases += 1

    @precondition(lambda self: self.ended < self.hits + self.handed)
    @rule(data=st.data(), wants_idle=st.booleans())
    def release(self, data: st.DataObject, wants_idle: bool) -> None:
        bridge = data.draw(st.sampled_from([b for b in self.bridges if b.leases]))
        self.ledger.wants_idle = wants_idle
        needs_a_hand = self.ledger.release(bridge.real)
        self.ended += 1
        bridge.leases -= 1
        self.becomes_idle(bridge)
        is_last = not bridge.leases
        assert needs_a_hand == (is_last and (bridge.reason is not None or wants_idle))

    @precondition(lambda self: self.bridges)
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        bridge = data.draw(st.sampled_from(self.bridges))
        is_news = bridge.reason is None
        assert self.ledger.retire(bridge.real, RetireReason.CRASHED) == is_news
        if is_news:
            self.retire(bridge, RetireReason.CRASHED)

    @rule()
    def evict_idle(self) -> None:
        expected = self.next_victim()
        victim = self.ledger.evict_idle()
        assert victim is (expected.real if expected is not None else None)
        if expected is not None:
            self.retire(expected, RetireReason.CAPACITY)

    @rule(limit=_LIMITS)
    def expire(self, limit: int) -> None:
        due = self.due()
        expired = [self.of(real) for real in self.ledger.expire(self.now, limit)]
        assert len(expired) == len(set(expired)) == min(limit, len(due))
        for bridge in expired:
            assert bridge in due
            assert bridge.expires_at <= self.now
            self.retire(bridge, RetireReason.EXPIRED)

    @precondition(lambda self: any(b.reason and not b.is_closed for b in self.bridges))
    @rule(data=st.data())
    def close_one(self, data: st.DataObject) -> None:
        retired = [b for b in self.bridges if b.reason is not None and not b.is_closed]
        bridge = data.draw(st.sampled_from(retired))
        self.ledger.closed_entry(bridge.real)
        bridge.is_closed = True

    @rule(kind=st.sampled_from(["news", "news", "unnumbered", "equal", "equal, newer", "older"]))
    def replace(self, kind: str) -> None:
        """Invariant 33: the generation grows by 1 for what is news, and never otherwise."""
        self.revision += 1
        providers = self.snapshot.providers
        make: dict[str, Callable[[], ProviderSnapshot[int]]] = {
            "news": lambda: ProviderSnapshot([self.revision], self.revision),
            "unnumbered": lambda: ProviderSnapshot([self.revision]),
            "equal": lambda: ProviderSnapshot(providers),
            "equal, newer": lambda: ProviderSnapshot(providers, self.revision),
            "older": lambda: ProviderSnapshot([self.revision], -self.revision),
        }
        new = make[kind]()
        outcome = self.ledger.replace(new, self.now)
        self.replacements[outcome] += 1
        in_force = self.snapshot.revision
        if self.is_closed:
            assert outcome is ReplaceOutcome.CLOSED
        elif kind == "older" and in_force is not None:
            assert outcome is ReplaceOutcome.OUT_OF_DATE
        elif kind.startswith("equal"):
            assert outcome is ReplaceOutcome.UNCHANGED
            self.snapshot = new if new.revision is not None else self.snapshot
        else:
            assert outcome is ReplaceOutcome.APPLIED
            self.succeed(self.now + _DRAIN, RetireReason.REPLACED)
            self.generation += 1
            self.snapshot = new
            self.real_generations[self.generation] = self.ledger.current

    @precondition(lambda self: not self.is_closed)
    @rule(seconds=st.sampled_from([0.0, 3.0, inf]))
    def close(self, seconds: float) -> None:
        deadline = self.now + seconds
        self.ledger.close(deadline)
        self.succeed(deadline, RetireReason.CLOSED)
        self.is_closed = True
        self.deadlines = {n: min(d, deadline) for n, d in self.deadlines.items()}

    @precondition(lambda self: self.is_closed)
    @rule()
    def hasten(self) -> None:
        deadline = self.now + 1.0
        self.ledger.hasten(deadline)
        self.deadlines = {n: min(d, deadline) for n, d in self.deadlines.items()}

    def succeed(self, deadline: float, reason: RetireReason) -> None:
        if not self.has_left(self.generation):
            self.overtaken.append(self.generation)
            self.unswept.extend(self.listed())
        self.deadlines[self.generation] = deadline
        for bridge in self.listed():
            self.retire(bridge, reason)

    @rule(limit=_LIMITS)
    def sweep(self, limit: int) -> None:
        flights = [b.name for b in self.builds if b.generation.number in self.overtaken]
        real_entries, real_flights = self.ledger.sweep(limit)
        assert sorted(real_flights) == sorted(flights)
        self.overtaken = []
        assert len(real_entries) == min(limit, len(self.unswept))
        for real in real_entries:
            bridge = self.of(real)
            assert bridge.generation == min(b.generation for b in self.unswept)
            self.unswept.remove(bridge)

    @rule(limit=_LIMITS)
    def overdue(self, limit: int) -> None:
        flights = []
        for number in sorted(self.deadlines):
            is_gone = self.has_left(number) and number not in self.overdue_seen
            if self.deadlines[number] <= self.now and not is_gone:
                if number not in self.overdue_seen:
                    still = [b for b in self.bridges if b.generation == number and not b.is_closed]
                    self.forced.extend(still)
                    flights += [b.name for b in self.builds if b.generation.number == number]
                self.overdue_seen.add(number)
        real_entries, real_flights = self.ledger.overdue(self.now, limit)
        assert sorted(real_flights) == sorted(flights)
        waiting = [bridge for bridge in self.forced if not bridge.is_closed]
        handed = [self.of(real) for real in real_entries]
        assert handed == waiting[:limit]
        self.forced = waiting[limit:]

    # -- what always holds ----------------------------------------------------------------

    @invariant()
    def what_is_listed_is_what_the_model_lists(self) -> None:
        current = self.ledger.current
        assert list(current.listed.values()) == [bridge.real for bridge in self.listed()]
        assert all(key == entry.key for key, entry in current.listed.items())
        assert all(entry.generation is current for entry in current.listed.values())
        assert len(current.listed) <= self.max_items
        assert current.number == self.generation
        assert current.snapshot == self.snapshot

    @invariant()
    def the_orders_hold_the_idle_ones_longest_idle_first(self) -> None:
        current = self.ledger.current
        once = [bridge.real for bridge in self.idle() if not bridge.was_hit]
        again = [bridge.real for bridge in self.idle() if bridge.was_hit]
        assert list(current.once.values()) == once
        assert list(current.again.values()) == again

    @invariant()
    def the_counts_agree(self) -> None:
        ledger = self.ledger
        assert ledger.leases == sum(bridge.leases for bridge in self.bridges) >= 0
        assert all(bridge.real.leases == bridge.leases >= 0 for bridge in self.bridges)
        assert (ledger.hits, ledger.handed, ledger.ended) == (self.hits, self.handed, self.ended)
        assert ledger.open_count == sum(not bridge.is_closed for bridge in self.bridges)
        assert ledger.published == len(self.bridges)
        for reason in RetireReason:
            assert ledger.retired[reason] == sum(b.reason is reason for b in self.bridges)
        assert ledger.replacements == self.replacements

    @invariant()
    def retired_and_drained_are_told(self) -> None:
        for bridge in self.bridges:
            assert self.ledger.is_retired(bridge.real) == (bridge.reason is not None)
        for number in range(1, self.generation + 1):
            expected = all(self.has_left(n) for n in range(1, number + 1))
            assert self.ledger.is_drained(number) == expected
        kept = {n for n in range(1, self.generation + 1) if not self.has_left(n)}
        if not self.is_closed:
            kept.add(self.generation)
        assert set(self.ledger.generations) == kept

    @invariant()
    def a_reaper_is_told_when_to_come(self) -> None:
        due = min((self.reaped_at(bridge) for bridge in self.listed()), default=inf)
        for number, deadline in self.deadlines.items():
            if not self.has_left(number) and number not in self.overdue_seen:
                due = min(due, deadline)
        if self.unswept or self.overtaken or self.forced:
            due = -inf
        assert self.ledger.next_due() == due


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
