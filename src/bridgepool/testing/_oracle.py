"""The invariants of the whole pool, by the numbers of `docs/invariants.md`.

`check_always` runs after every operation, even within a tick; `check_quiet` when all tasks are
blocked; `check_end` when the block was left. The checks when a caller gets control are in
`_callers`, those when a bridge closes in `_bridges`.
"""

from collections import Counter
from itertools import chain

import attrs
import trio

from .._bridge import PoolEntry
from .._flights import Flight
from .._ledger import ReplaceOutcome
from .._options import PoolOptions
from .._statistics import BuildOutcome
from ._bridges import BridgeFactory, Findings, ScriptedBuild
from ._callers import Caller, CallerState, ScriptedPool


@attrs.define(eq=False)
class Oracle:
    """Compares the script's record of one pool with the pool's state and statistics."""

    pool: ScriptedPool
    options: PoolOptions
    factory: BridgeFactory
    findings: Findings
    callers: list[Caller]
    nursery: trio.Nursery
    # generation -> its drain deadline; set when it is replaced
    drain_deadlines: dict[int, float] = attrs.field(factory=dict)
    # generation -> its providers; no two snapshots of a script are equal
    generations: dict[int, tuple[int, ...]] = attrs.field(factory=dict)
    # when the block was left, and whether it was cancelled
    left_at: float | None = None
    was_cancelled: bool = False

    def check_always(self) -> None:
        """Check the invariants marked A."""
        must, ledger, now = self.findings.must, self.pool._ledger, trio.current_time()
        current, table = ledger.current, self.pool._supervisor.scheduler.table
        must(6, len(current.listed) <= self.options.max_items, "more listed than max_items")
        for key, entry in current.listed.items():
            must(7, entry.key == key and entry.value.bridge.is_open, f"{key} is listed but closed")
            must(
                7, entry.value.bridge.key == key, f"{key} is listed with the bridge of another key"
            )
            must(8, entry.generation is current, f"{key} is listed from another generation")
            must(41, not entry.value.has_crashed, f"{key} is listed but crashed")
        idle = {key for key, entry in current.listed.items() if not entry.leases}
        ordered = [*current.once, *current.again]
        must(10, Counter(ordered) == Counter(idle), f"the orders hold {ordered}, idle are {idle}")
        for flight in table.joinable():
            must(11, flight.version == current.number, f"{flight.key} is joinable but overtaken")
            must(11, not flight.doomed, f"{flight.key} is joinable but doomed")
            is_second = flight.key in current.listed and not flight.background
            must(13, not is_second or flight.is_dead(now), f"{flight.key}: listed and in flight")
        must(16, ledger.leases >= 0 and table.waiting >= 0, "a negative count")
        for entry in self._open_entries():
            must(16, entry.leases >= 0, f"{entry.key} has {entry.leases} leases")
            holders = entry.value.bridge.holders
            must(16, entry.leases >= holders, f"{entry.key}: fewer leases than holders")
        self.findings.check()

    def may_close(self, build: ScriptedBuild) -> None:
        """Check invariant 15 when the close of `build` begins."""
        if not build.holders or build.has_crashed or self.was_cancelled:
            return
        now, deadlines = trio.current_time(), []
        deadlines += [d for g, d in self.drain_deadlines.items() if self._is_of(build, g)]
        if self.left_at is not None:
            deadlines.append(self.left_at + self.options.shutdown_timeout)
        in_time = any(now >= deadline for deadline in deadlines)
        self.findings.must(15, in_time, f"{build.key} is closed under {build.holders} leases")

    def _is_of(self, build: ScriptedBuild, generation: int) -> bool:
        return self.generations[generation] == build.snapshot.providers

    def check_quiet(self) -> None:
        """Check the invariants marked Q."""
        must, ledger, supervisor = self.findings.must, self.pool._ledger, self.pool._supervisor
        now, table, current = trio.current_time(), supervisor.scheduler.table, ledger.current
        holding = [c for c in self.callers if c.state is CallerState.HOLDING]
        waiting = [c for c in self.callers if c.state is CallerState.WAITING]
        must(17, ledger.leases == len(holding), f"{ledger.leases} leases, {len(holding)} holders")
        for entry in self._open_entries():
            must(17, entry.leases == entry.value.bridge.holders, f"{entry.key}: leases")
        flights = self._flights()
        parked = sum(len(flight.waiters) for flight in flights)
        must(20, table.waiting == parked == len(waiting), f"{len(waiting)} wait, {parked} parked")
        running = [b for b in self.factory.builds if b.is_building]
        per_key = Counter((b.key, b.snapshot.providers) for b in running)
        must(18, all(n == 1 for n in per_key.values()), f"builds run twice: {per_key}")
        for flight in flights:
            if flight.landed:  # its outcome is decided; a bridge built too late is being closed
                continue
            is_old = flight.version != current.number
            must(19, not is_old or bool(flight.waiters), f"{flight.key}: an old build runs on")
            kept = flight.waiters or flight.background or now < flight.deadline
            must(21, bool(kept), f"{flight.key}: a flight without waiters")
        owners = len(self.nursery.child_tasks)
        alive = ledger.open_count + len(flights)
        must(22, owners == alive, f"{owners} owners for {alive} bridges and builds")
        for entry in self._open_entries():
            overdue = now >= entry.generation.drain_deadline
            ends = ledger.is_retired(entry) and (not entry.leases or overdue)
            is_closing = entry.value.bridge.close_began_at is not None
            must(23, not ends or is_closing, f"{entry.key} is retired and should close")
        for build in self.factory.builds:
            if build.close_began_at is not None and not build.is_closed:
                is_over = now >= build.close_began_at + self.options.close_timeout
                must(31, not is_over, f"the close of {build.key} takes too long")
        for key, entry in current.listed.items():
            late = now > entry.expires_at + self.options.reap_period
            must(24, not late, f"{key} expired and was not reaped")
        self._check_statistics(len(holding), len(waiting), len(running))
        self.findings.check()

    def _check_statistics(self, holding: int, waiting: int, running: int) -> None:
        must, ledger, stats = self.findings.must, self.pool._ledger, self.pool.statistics()
        must(25, stats.leased == holding and stats.waiting == waiting, "leased or waiting")
        opened = [b for b in self.factory.builds if b.opened_at is not None and not b.is_closed]
        kept = [entry.value.bridge for entry in self._open_entries()]
        must(25, stats.listed + stats.draining == len(kept), "listed and draining")
        unused = len(opened) - len(kept)  # built too late, and being closed
        must(25, stats.building == running + unused, f"building {stats.building}, {running} run")
        must(25, stats.listed == len(ledger.current.listed), "listed")
        accounted = stats.listed + sum(stats.retired.values())
        must(26, ledger.published == accounted, f"{accounted} of {ledger.published} accounted for")
        alive = stats.listed + stats.draining + stats.building
        must(37, alive <= self.options.max_live, f"{alive} alive")
        must(37, stats.building <= self.options.max_concurrent_builds, "too many builds")
        applied = stats.replacements[ReplaceOutcome.APPLIED]
        must(33, stats.generation == 1 + applied, f"generation {stats.generation}")

    def check_end(self) -> None:
        """Check the invariants marked E, after the block was left and all callers have ended."""
        must, ledger, stats = self.findings.must, self.pool._ledger, self.pool.statistics()
        must(27, all(c.state is CallerState.ENDED for c in self.callers), "an acquire hangs")
        must(28, ledger.open_count == 0 and not ledger.generations, "something is left open")
        must(28, not self._flights() and not self.nursery.child_tasks, "a task is left")
        must(32, stats.waiting == 0, "a waiter hangs")
        must(34, stats.leased == 0, f"{stats.leased} leases leaked")
        for build in self.factory.builds:
            must(29, build.build_ended, f"a build of {build.key} has not ended")
            if build.opened_at is not None:
                must(28, build.is_closed, f"a bridge of {build.key} was not closed")
        begun = len(self.factory.builds)
        must(29, sum(stats.builds.values()) >= begun, "a build ended without an outcome")
        self._check_close_times()
        self._check_build_counts()
        self.findings.check()

    def _check_close_times(self) -> None:
        for build in self.factory.builds:
            if build.close_began_at is None or build.close_ended_at is None:
                continue
            over = build.close_ended_at - build.close_began_at - self.options.close_timeout
            whole = build.close_is_whole or build.has_crashed or over > -1e-6
            self.findings.must(31, whole, f"the close of {build.key} was cut short")

    def _check_build_counts(self) -> None:
        stats = self.pool.statistics()
        failures = sum(n for outcome, n in stats.builds.items() if outcome is not BuildOutcome.OK)
        ends = sum(stats.retired.values()) + failures + stats.replacements[ReplaceOutcome.APPLIED]
        for key, builds in Counter(b.key for b in self.factory.builds).items():
            self.findings.must(40, builds <= 1 + ends, f"{builds} builds of {key}")

    def _flights(self) -> list[Flight[str, trio.lowlevel.Task]]:
        generations = self.pool._ledger.generations.values()
        return list(chain.from_iterable(g.flights for g in generations))

    def _open_entries(self) -> list[PoolEntry[str, int, ScriptedBuild]]:
        generations = self.pool._ledger.generations.values()
        return list(chain.from_iterable(g.open for g in generations))
