"""The table of flights against a naive model, which keeps one list and scans it.

Holds the invariants 11, 12, 16, 18, 20 and 21, as far as bookkeeping goes: who can join what,
who is counted where, and until when a flight lives on that nobody waits for.
"""

from math import inf

import attrs
import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from bridgepool._flights import Flight, FlightTable

_KEYS = st.sampled_from("ab")
_VERSIONS = st.sampled_from([1, 2])


@attrs.define(eq=False)
class Run:
    """What the model knows of one flight."""

    real: Flight[str, int]
    key: str
    version: int
    build_deadline: float
    is_background: bool
    abandoned_until: float = inf
    waiters: dict[int, int] = attrs.field(factory=dict)
    is_listed: bool = True
    is_doomed: bool = False
    has_landed: bool = False

    def is_over(self, now: float) -> bool:
        return now >= self.build_deadline or now >= self.abandoned_until


class FlightMachine(RuleBasedStateMachine):
    """Every method of the table, in any order that a scheduler could use them in."""

    @initialize(grace=st.sampled_from([0.0, 2.0, inf]))
    def start(self, grace: float) -> None:
        self.grace = grace
        self.now = 100.0
        self.table: FlightTable[str, int] = FlightTable(grace)
        self.runs: list[Run] = []
        self.names = 0

    def joinable(self, key: str, version: int) -> list[Run]:
        return [r for r in self.runs if r.is_listed and (r.key, r.version) == (key, version)]

    def flying(self) -> list[Run]:
        return [run for run in self.runs if not run.has_landed]

    def to_begin(self) -> list[Run]:
        return [run for run in self.flying() if run.build_deadline == inf]

    @rule(seconds=st.sampled_from([0.5, 2.0, 5.0]))
    def advance(self, seconds: float) -> None:
        self.now += seconds

    @rule(key=_KEYS, version=_VERSIONS)
    def find(self, key: str, version: int) -> None:
        """A newcomer never joins what is over, and what was found to be over is let go of."""
        found = self.table.find(key, version, self.now)
        expected = self.joinable(key, version)
        if expected and expected[0].is_over(self.now):
            expected.pop().is_listed = False
        assert found is (expected[0].real if expected else None)

    @rule(
        key=_KEYS,
        version=_VERSIONS,
        timeout=st.sampled_from([1.0, 4.0, inf]),
        background=st.booleans(),
    )
    def find_or_open(self, key: str, version: int, timeout: float, background: bool) -> None:
        self.find(key, version)
        if self.joinable(key, version):
            return
        scope = trio.CancelScope()
        deadline = self.now + timeout
        flight = self.table.open(key, version, scope, deadline, background)
        assert flight.scope is scope
        self.runs.append(Run(flight, key, version, deadline, background))

    @precondition(lambda self: self.flying())
    @rule(data=st.data(), moves=st.integers(0, 3))
    def add(self, data: st.DataObject, moves: int) -> None:
        run = data.draw(st.sampled_from(self.flying()))
        self.names += 1
        has_changed = run.abandoned_until < run.build_deadline
        assert self.table.add(run.real, self.names, moves) == has_changed
        run.waiters[self.names] = moves
        run.abandoned_until = inf

    @precondition(lambda self: any(run.waiters for run in self.runs))
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from([run for run in self.runs if run.waiters]))
        waiter = data.draw(st.sampled_from(list(run.waiters)))
        self.table.leave(run.real, waiter, self.now)
        del run.waiters[waiter]
        if not run.waiters and not run.is_background:
            run.abandoned_until = self.now + self.grace

    @precondition(lambda self: self.to_begin())
    @rule(data=st.data(), timeout=st.sampled_from([1.0, inf]))
    def begin(self, data: st.DataObject, timeout: float) -> None:
        run = data.draw(st.sampled_from(self.to_begin()))
        self.table.begin(run.real, self.now, timeout)
        run.build_deadline = self.now + timeout

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def unlist(self, data: st.DataObject) -> None:
        """Also what is unlisted already: by identity, so a successor stays joinable."""
        run = data.draw(st.sampled_from(self.runs))
        self.table.unlist(run.real)
        run.is_listed = False

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def doom(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(self.runs))
        self.table.doom(run.real)
        run.is_listed, run.is_doomed = False, True

    @rule(version=_VERSIONS)
    def close_version(self, version: int) -> None:
        self.table.close_version(version)
        for run in self.runs:
            run.is_listed = run.is_listed and run.version != version

    @precondition(lambda self: self.flying())
    @rule(data=st.data())
    def land(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(self.flying()))
        assert list(self.table.land(run.real)) == list(run.waiters)
        run.waiters = {}
        run.is_listed, run.has_landed = False, True

    @precondition(lambda self: self.flying())
    @rule(data=st.data(), below=st.sampled_from([0, 1, 3, inf]))
    def take(self, data: st.DataObject, below: float) -> None:
        run = data.draw(st.sampled_from(self.flying()))
        taken = [waiter for waiter, moves in run.waiters.items() if moves < below]
        assert self.table.take(run.real, below) == taken
        run.waiters = {w: moves for w, moves in run.waiters.items() if w not in taken}

    @invariant()
    def what_can_be_joined_is_what_the_model_lists(self) -> None:
        joinable = self.table.joinable()
        assert set(joinable) == {run.real for run in self.runs if run.is_listed}
        assert len({(flight.key, flight.version) for flight in joinable}) == len(joinable)
        assert not any(flight.doomed or flight.landed for flight in joinable)

    @invariant()
    def every_waiter_is_counted_once(self) -> None:
        assert self.table.waiting == sum(len(run.waiters) for run in self.runs)
        assert all(run.real.waiters == run.waiters for run in self.runs)

    @invariant()
    def the_deadlines_agree(self) -> None:
        for run in self.runs:
            assert run.real.deadline == min(run.build_deadline, run.abandoned_until)
            assert run.real.is_dead(self.now) == (run.is_doomed or run.is_over(self.now))


TestFlightMachine = FlightMachine.TestCase
TestFlightMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
