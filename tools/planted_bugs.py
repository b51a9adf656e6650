"""Bugs that pools of this kind have had, as edits of our source: each must be caught.

The names are those of `docs/invariants.md`. An edit replaces one piece of text inside one function
or class, where it must occur exactly once. So an edit is short, and a bug that no longer fits the
code, because that was renamed for example, is noticed: `tests/test_planted_bugs.py` looks.
"""

import ast
from pathlib import Path

import attrs


@attrs.frozen
class Edit:
    """One replacement."""

    where: str
    """`file.py:Class.function` in `src/bridgepool`, or `file.py` for a text at its top level."""
    old: str
    new: str

    def apply(self, package: Path) -> None:
        """Edit the file in `package`; `ValueError` if the edit does not fit."""
        file, _, name = self.where.partition(":")
        path = package / file
        text = path.read_text()
        start, end = _span(text, name)
        inside = text[start:end]
        if inside.count(self.old) != 1:
            raise ValueError(f"{self.where} has {inside.count(self.old)} times {self.old!r}")
        edited = text[:start] + inside.replace(self.old, self.new) + text[end:]
        ast.parse(edited)
        path.write_text(edited)


def _span(text: str, name: str) -> tuple[int, int]:
    """Return where the definition of `name`, such as `Class.function`, begins and ends."""
    node: ast.AST = ast.parse(text)
    if not name:
        return 0, len(text)
    for part in name.split("."):
        found = [child for child in ast.iter_child_nodes(node) if _name_of(child) == part]
        if len(found) != 1:
            raise ValueError(f"there is no one definition of {name}")
        node = found[0]
    assert isinstance(node, ast.stmt)
    lines = text.splitlines(keepends=True)
    return len("".join(lines[: node.lineno - 1])), len("".join(lines[: node.end_lineno]))


def _name_of(node: ast.AST) -> str | None:
    if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        return node.name
    return None


@attrs.frozen
class Bug:
    """A bug to plant."""

    name: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...] = ("tests/core", "tests/properties")
    """The tests that must catch it."""


def bug(name: str, *edits: tuple[str, str, str]) -> Bug:
    """Describe a bug by its edits: where, old text, new text."""
    return Bug(name, tuple(Edit(*edit) for edit in edits))


_OWN = "_supervisor.py:BridgeSupervisor._own"
_LANDED = "_supervisor.py:BridgeSupervisor._landed"
_ENTER = "_lookup.py:Lease.__aenter__"
_HIT = """                await trio.lowlevel.checkpoint()
                now = lookup.clock.current_time()
                entry = ledger.lease(key, now) or lookup.find(key, now)
"""

_EVENT_WAIT = """waiter = _EventWaiter()
        self.table.add(flight, waiter, moves)
        async def wait():
            try:
                await waiter.event.wait()
            except trio.Cancelled:
                if waiter in flight.waiters:
                    self.table.leave(flight, waiter, self.clock.current_time())
                    self.update_deadline(flight)
                raise
            return waiter.box.unwrap()
        return wait()
        task = trio.lowlevel.current_task()"""

_EVENT_WAITER = """class _EventWaiter:
    def __init__(self) -> None:
        self.event = trio.Event()


def _wake(waiter, box) -> None:
    waiter.box = box
    waiter.event.set()


class FlightScheduler("""

BUGS = (
    bug(
        "event plus counter",
        ("_singleflight.py:FlightScheduler", "class FlightScheduler(", _EVENT_WAITER),
        (
            "_singleflight.py:FlightScheduler._park",
            "task = trio.lowlevel.current_task()",
            _EVENT_WAIT,
        ),
        ("_singleflight.py:FlightScheduler.wake", "trio.lowlevel.reschedule(", "_wake("),
        ("_singleflight.py:FlightScheduler.fail", "trio.lowlevel.reschedule(", "_wake("),
    ),
    bug(
        "outcome read from state",
        (
            _ENTER,
            "entry = await lookup.scheduler.wait(flight, moves)",
            "entry = await lookup.scheduler.wait(flight, moves)\n"
            "                    entry = lookup.supervisor.results.get(flight, entry)",
        ),
        (
            "_supervisor.py:BridgeSupervisor.__init__",
            "self._leaving = 0",
            "self._leaving = 0\n        self.results = {}",
        ),
        (
            _LANDED,
            "victim = self._ledger.publish(",
            "self.results[flight] = entry\n        victim = self._ledger.publish(",
        ),
    ),
    bug("late success listed", (_LANDED, "flight.landed or flight.is_dead(now)", "flight.landed")),
    bug(
        "lease taken back",
        (
            "_lookup.py:BridgeLookup.accept",
            "is_current = entry.generation is self.ledger.current",
            "is_current = not self.ledger.is_retired(entry)",
        ),
    ),
    bug(
        "join of a timed-out flight",
        ("_flights.py:FlightTable.find", "now >= flight.deadline", "flight.doomed"),
    ),
    bug(
        "doomed flight left in the map", ("_flights.py:FlightTable.doom", "self.unlist(flight)", "")
    ),
    bug(
        "removal by key instead of identity",
        (
            "_flights.py:FlightTable.unlist",
            "flights.get(flight.key) is flight",
            "flight.key in flights",
        ),
    ),
    bug(
        "stale build listed",
        ("_ledger.py:Ledger.publish", "if generation is not self.current:", "if False:"),
    ),
    bug(
        "close in use",
        ("_supervisor.py:BridgeSupervisor.close_when_idle", "if not entry.leases:", "if True:"),
    ),
    bug(
        "no re-check after wake-up",
        (_ENTER, "if entry is not None and ledger.is_retired(entry):", "if False:"),
    ),
    bug(
        "no hand-over",
        (_LANDED, "leases=len(flight.waiters)", "leases=0"),
        (_LANDED, "self.scheduler.land(flight, entry)", "self.scheduler.land(flight, None)"),
    ),
    bug(
        "waiters dropped",
        (
            "_singleflight.py:FlightScheduler.fail",
            "in self.table.land(flight):",
            "in [*self.table.land(flight)][1:]:",
        ),
    ),
    bug(
        "orphan runs on",
        (
            "_flights.py:FlightTable.leave",
            "flight.deadline = min(flight.build_deadline, now + flight.grace)",
            "pass",
        ),
    ),
    bug(
        "stale error delivered",
        (_ENTER, "if error.generation == ledger.current.number:", "if True:"),
    ),
    bug("expired served", ("_ledger.py:Ledger.lease", "if now >= entry.fresh_until:", "if False:")),
    bug(
        "unbounded",
        ("_ledger.py:Ledger.publish", "elif len(listed) >= self._max_items:", "elif 0:"),
    ),
    bug("close without a shield", (_OWN, "life.shield = True  # what cancels", "pass  #")),
    bug("owner leak", (_LANDED, "self.close_when_idle(victim)", "pass")),
    bug("double release", ("_ledger.py:Ledger.release", "entry.leases -= 1", "entry.leases -= 2")),
    bug(
        "crash strands waiters",
        (
            _OWN,
            "self._failed(flight, generation, error)",
            "error is None and self._failed(flight, generation, error)",
        ),
    ),
    bug(
        "caller's cancellation cancels the build",
        ("_flights.py:FlightTable.leave", "if not flight.waiters and not", "if not"),
    ),
    bug(
        "equal set clears",
        (
            "_ledger.py:Ledger._outcome_of",
            "if snapshot.same_providers(self.current.snapshot):",
            "if False:",
        ),
    ),
    bug(
        "body's exception wrapped in a group",
        ("_services.py:open_service_nursery", "raised = error", "raise"),
    ),
    # beyond the list: what else these promises stand on
    bug(
        "victim in use while others are idle",
        ("_ledger.py:Ledger.publish", "generation.oldest_idle(self._probation) or ", ""),
    ),
    bug(
        "build sees the caller's context",
        (
            "_supervisor.py:BridgeSupervisor.launch",
            "self._context.run(self._start_owner, flight, generation)",
            "self._start_owner(flight, generation)",
        ),
    ),
    bug(
        "overtaken build cancelled as it succeeds",
        (
            _LANDED,
            "self._move_on(flight, self._options.max_rebuilds)",
            "self.overtake(flight)\n            flight.scope.shield = True",
        ),
    ),
    bug(
        "cancellation left over by a build", (_OWN, "if flight.doomed:  # what is left", "if 0:  #")
    ),
    bug(
        "drain deadline ignored",
        ("_ledger.py:Ledger.overdue", "self._forced.extend(generation.open)", "pass"),
    ),
    bug(
        "place leaked by a failed build",
        (
            "_supervisor.py:BridgeSupervisor._build_ended",
            "self.limiter.release(flight)",
            "flight.doomed or self.limiter.release(flight)",
        ),
    ),
    bug(
        "crashed bridge stays listed",
        (
            "_supervisor.py:BridgeSupervisor._crashed",
            "self._ledger.retire(entry, RetireReason.CRASHED)",
            "pass",
        ),
    ),
    bug(
        "overtaken build joined",
        (
            "_pool.py:CachedBridgePool.replace_providers",
            "self._supervisor.scheduler.table.close_version(number)",
            "pass",
        ),
    ),
    bug(
        "waiters left behind on leaving",
        (
            "_supervisor.py:BridgeSupervisor.reject",
            'self.scheduler.fail(flight, lambda: PoolClosedError("the pool was closed"))',
            "flight.landed = True",
        ),
    ),
    bug("hit without a checkpoint", (_ENTER, _HIT, _HIT[_HIT.index("\n") + 1 :])),
    bug(
        "look-up before the checkpoint",
        (
            _ENTER,
            _HIT,
            _HIT[_HIT.index("\n") + 1 :] + "                await trio.lowlevel.checkpoint()\n",
        ),
    ),
    bug("all bridges retired in one tick", ("_reaper.py", "_BATCH = 50", "_BATCH = 10**9")),
    bug(
        "circle not seen",
        ("_singleflight.py:FlightScheduler.wait", "if circle:", "if False:"),
    ),
    bug(
        "needed build waits for its turn",
        ("_supervisor.py:BridgeSupervisor._needed_by", "self.limiter.put_first(flight)", "pass"),
    ),
    bug(
        "builds that hold all places wait on",
        ("_build_limiter.py:BuildLimiter.check_deadlock", "if all(chains):", "if False:"),
    ),
    bug(
        "one lease for two",
        (_ENTER, "if self._is_entered:", "if self._entry is not None:"),
    ),
    bug(
        "wrong answer retried",
        ("_reload.py:_Watcher._reload", "except _WrongAnswerError:", "except StopIteration:"),
    ),
)
