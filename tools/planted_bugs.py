"""Bugs that pools of this kind have had, as edits of our source: each must be caught.

The names are those of `docs/invariants.md`. An edit replaces one piece of text, which must
occur exactly once, so that a bug that no longer fits the code is noticed.
"""

import attrs

SUPERVISOR, LEDGER, LOOKUP = "_supervisor.py", "_ledger.py", "_lookup.py"
FLIGHTS, SINGLEFLIGHT, SERVICES = "_flights.py", "_singleflight.py", "_services.py"
LIMITER, GENERATION, POOL = "_build_limiter.py", "_generation.py", "_pool.py"


@attrs.frozen
class Edit:
    """One replacement in a file of `src/bridgepool`."""

    file: str
    old: str
    new: str


@attrs.frozen
class Bug:
    """A bug to plant."""

    name: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...] = ("tests/core", "tests/properties")
    """The tests that must catch it."""


def bug(name: str, *edits: tuple[str, str, str]) -> Bug:
    """Describe a bug by its edits: file, old text, new text."""
    return Bug(name, tuple(Edit(*edit) for edit in edits))


_EVENT_WAIT = """        waiter = _EventWaiter()
        self.table.add(flight, waiter, moves)  # type: ignore
        async def wait():  # type: ignore
            try:
                await waiter.event.wait()
            except trio.Cancelled:
                if waiter in flight.waiters:  # type: ignore
                    self.table.leave(flight, waiter, self.clock.current_time())  # type: ignore
                    self.keep_time(flight)  # type: ignore
                raise
            return waiter.box.unwrap()
        return wait()

    def _unused(self, flight: Flight[K, Task], moves: int = 0) -> Awaitable[T]:
        task = trio.lowlevel.current_task()
"""

_EVENT_WAITER = """class _EventWaiter:
    def __init__(self) -> None:
        self.event = trio.Event()


def _wake(waiter, box) -> None:  # type: ignore
    waiter.box = box
    waiter.event.set()


class FlightScheduler(Generic[K, T]):
"""

BUGS = (
    bug(
        "event plus counter",
        (SINGLEFLIGHT, "class FlightScheduler(Generic[K, T]):\n", _EVENT_WAITER),
        (SINGLEFLIGHT, "        task = lowlevel.current_task()\n", _EVENT_WAIT),
        (SINGLEFLIGHT, "lowlevel.reschedule(task, handed)", "_wake(task, handed)"),
        (
            SINGLEFLIGHT,
            "lowlevel.reschedule(task, outcome.Error(raised))",
            "_wake(task, outcome.Error(raised))",
        ),
    ),
    bug(
        "outcome read from state",
        (
            LOOKUP,
            "                entry = await lookup.scheduler.wait(flight, moves)\n",
            "                entry = await lookup.scheduler.wait(flight, moves)\n"
            "                entry = lookup.supervisor.results.get(flight, entry)\n",
        ),
        (
            SUPERVISOR,
            "        self._leaving = 0\n",
            "        self._leaving = 0\n        self.results = {}\n",
        ),
        (
            SUPERVISOR,
            "        victim = self._ledger.publish(",
            "        self.results[flight] = entry\n        victim = self._ledger.publish(",
        ),
    ),
    bug(
        "late success listed",
        (
            SUPERVISOR,
            "        if flight.landed or flight.is_dead(now):\n",
            "        if flight.landed:\n",
        ),
    ),
    bug(
        "lease taken back",
        (
            LOOKUP,
            "is_current = entry.generation is self.ledger.current",
            "is_current = not self.ledger.is_retired(entry)",
        ),
    ),
    bug(
        "join of a timed-out flight",
        (
            FLIGHTS,
            "if flight is not None and now >= flight.deadline:",
            "if flight is not None and flight.doomed:",
        ),
    ),
    bug(
        "doomed flight left in the map",
        (
            FLIGHTS,
            "        self.unlist(flight)\n        flight.doomed = True",
            "        flight.doomed = True",
        ),
    ),
    bug(
        "removal by key instead of identity",
        (FLIGHTS, "flights.get(flight.key) is flight:", "flight.key in flights:"),
    ),
    bug(
        "stale build listed",
        (
            LEDGER,
            "        if generation is not self.current:\n            entry.is_unlisted",
            "        if False:\n            entry.is_unlisted",
        ),
    ),
    bug(
        "close in use",
        (
            SUPERVISOR,
            "        entry.value.notify_retired()\n        if not entry.leases:\n",
            "        entry.value.notify_retired()\n        if True:\n",
        ),
    ),
    bug(
        "no re-check after wake-up",
        (
            LOOKUP,
            "if entry is not None and ledger.is_retired(entry):",
            "if False:",
        ),
    ),
    bug(
        "no hand-over",
        (
            SUPERVISOR,
            "leases=len(flight.waiters))\n        self.scheduler.land(flight, entry)",
            "leases=0)\n        self.scheduler.land(flight, None)",
        ),
    ),
    bug(
        "waiters dropped",
        (
            SINGLEFLIGHT,
            "        for task in self.table.land(flight):\n            raised",
            "        for task in [*self.table.land(flight)][1:]:\n            raised",
        ),
    ),
    bug(
        "orphan runs on",
        (
            FLIGHTS,
            "            flight.deadline = min(flight.build_deadline, now + flight.grace)",
            "            pass",
        ),
    ),
    bug(
        "stale error delivered",
        (LOOKUP, "if error.generation == ledger.current.number:", "if True:"),
    ),
    bug(
        "expired served",
        (LEDGER, "        if now >= entry.fresh_until:\n            return None\n", ""),
    ),
    bug("unbounded", (LEDGER, "elif len(listed) >= self._max_items:", "elif False:")),
    bug(
        "close without a shield",
        (
            SUPERVISOR,
            "                            life.shield = True  # what cancels",
            "                            pass  # what cancels",
        ),
    ),
    bug(
        "owner leak",
        (
            SUPERVISOR,
            "        if victim is not None:\n            self.close_when_idle(victim)\n        self.admit",
            "        self.admit",
        ),
    ),
    bug("double release", (LEDGER, "        entry.leases -= 1\n", "        entry.leases -= 2\n")),
    bug(
        "crash strands waiters",
        (
            SUPERVISOR,
            "                self._failed(flight, generation, error)\n                self._b",
            "                if error is None:\n"
            "                    self._failed(flight, generation, error)\n                self._b",
        ),
    ),
    bug(
        "caller's cancellation cancels the build",
        (
            FLIGHTS,
            "        if not flight.waiters and not flight.background:",
            "        if not flight.background:",
        ),
    ),
    bug(
        "equal set clears",
        (LEDGER, "        if snapshot.same_providers(self.current.snapshot):", "        if False:"),
    ),
    bug(
        "body's exception wrapped in a group",
        (SERVICES, "            raised = error", "            raise"),
    ),
    # beyond the list: what else these promises stand on
    bug(
        "victim in use while others are idle",
        (
            LEDGER,
            "generation.oldest_idle(self._probation) or next(iter(listed.values()))",
            "next(iter(listed.values()))",
        ),
    ),
    bug(
        "build sees the caller's context",
        (
            SUPERVISOR,
            "self._context.run(self._start_owner, flight, generation)",
            "self._start_owner(flight, generation)",
        ),
    ),
    bug(
        "overtaken build cancelled as it succeeds",
        (
            SUPERVISOR,
            "            self._move_on(flight, self._options.max_rebuilds)\n        if flight.landed or",
            "            self.overtake(flight)\n"
            "            flight.scope.shield = True\n        if flight.landed or",
        ),
    ),
    bug(
        "cancellation left over by a build",
        (
            SUPERVISOR,
            "                    if flight.doomed:  # what is left",
            "                    if False:  #",
        ),
    ),
    bug("drain deadline ignored", (LEDGER, "self._forced.extend(generation.open)", "pass")),
    bug(
        "place leaked by a failed build",
        (
            SUPERVISOR,
            "            self.limiter.building -= 1\n",
            "            self.limiter.building -= not flight.doomed\n",
        ),
    ),
    bug(
        "crashed bridge stays listed",
        (SUPERVISOR, "        self._ledger.retire(entry, RetireReason.CRASHED)\n", ""),
    ),
    bug(
        "overtaken build joined",
        (POOL, "            self._supervisor.scheduler.table.close_version(number)\n", ""),
    ),
    bug(
        "waiters left behind on leaving",
        (
            SUPERVISOR,
            '            self.scheduler.fail(flight, lambda: PoolClosedError("the pool was closed"))\n',
            "            flight.landed = True\n",
        ),
    ),
    bug(
        "hit without a checkpoint",
        (
            LOOKUP,
            "            await lowlevel.checkpoint()\n            now = lookup",
            "            now = lookup",
        ),
    ),
    bug(
        "look-up before the checkpoint",
        (
            LOOKUP,
            "            await lowlevel.checkpoint()\n"
            "            now = lookup.clock.current_time()\n"
            "            entry = ledger.lease(key, now) or lookup.find(key, now)\n",
            "            now = lookup.clock.current_time()\n"
            "            entry = ledger.lease(key, now) or lookup.find(key, now)\n"
            "            await lowlevel.checkpoint()\n",
        ),
    ),
    bug("all bridges retired in one tick", ("_reaper.py", "_BATCH = 50", "_BATCH = 10**9")),
)
