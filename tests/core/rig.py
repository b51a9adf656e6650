"""What the tests of the core share: bridges that write down what is done to them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from bridgepool import CachedBridgePool, ProviderSnapshot


class BrokenBridgeError(Exception):
    """What a bridge or a build of these tests raises."""


@attrs.define(eq=False)
class Bridge:
    """One call of `open_bridge`: the build at first, then the bridge."""

    key: str
    snapshot: ProviderSnapshot[int]
    task: trio.lowlevel.Task = attrs.field(factory=trio.lowlevel.current_task)
    # opens when the build is to go on; with an error set, to fail
    gate: trio.Event = attrs.field(factory=trio.Event)
    error: Exception | None = None
    is_open: bool = False
    build_was_cancelled: bool = False
    # how often the close began, and how often it came to its end
    closes: int = 0
    closes_ended: int = 0
    closed_by: trio.lowlevel.Task | None = None
    _crash: trio.Event = attrs.field(factory=trio.Event)

    @property
    def generation(self) -> int:
        """The providers of these tests are one number: that of their generation."""
        return self.snapshot.providers[0]

    def succeed(self) -> None:
        self.gate.set()

    def fail(self, error: Exception | None = None) -> None:
        self.error = error or BrokenBridgeError(f"build of {self.key}")
        self.gate.set()

    def crash(self) -> None:
        """Let a background task of the bridge raise."""
        self._crash.set()

    async def run(self) -> None:
        await self._crash.wait()
        raise BrokenBridgeError(f"crash of {self.key}")


@attrs.define(eq=False)
class Bridges:
    """An `open_bridge` that keeps all that it made.

    With `held`, each build waits until told to succeed or fail; a `stubborn` one hears of its
    cancellation only then. A close takes `close_time` seconds.
    """

    held: bool = False
    stubborn: bool = False
    close_time: float = 0.0
    made: list[Bridge] = attrs.field(factory=list)

    @asynccontextmanager
    async def open(self, key: str, snapshot: ProviderSnapshot[int]) -> AsyncIterator[Bridge]:
        bridge = Bridge(key, snapshot)
        self.made.append(bridge)
        if self.held:
            try:
                with trio.CancelScope(shield=self.stubborn):
                    await bridge.gate.wait()
            except trio.Cancelled:
                bridge.build_was_cancelled = True
                raise
        if bridge.error is not None:
            raise bridge.error
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bridge.run)
            bridge.is_open = True
            try:
                yield bridge
            finally:
                bridge.closes += 1
                bridge.is_open = False
                bridge.closed_by = trio.lowlevel.current_task()
                await trio.sleep(self.close_time)  # noqa: ASYNC102 -- the pool shields a close
                bridge.closes_ended += 1
                nursery.cancel_scope.cancel()

    @property
    def last(self) -> Bridge:
        return self.made[-1]

    @property
    def open_now(self) -> list[Bridge]:
        return [bridge for bridge in self.made if bridge.is_open]


Pool = CachedBridgePool[str, int, Bridge]


def providers(number: int) -> ProviderSnapshot[int]:
    """Return the providers of one generation."""
    return ProviderSnapshot([number])


@attrs.define(eq=False)
class Caller:
    """A task that acquires a bridge and holds it until told to let go."""

    pool: Pool
    key: str = "a"
    bridge: Bridge | None = None
    generation: int | None = None
    error: Exception | None = None
    has_ended: bool = False
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    got_control: Callable[[], None] = attrs.field(default=lambda: None)
    _let_go: trio.Event = attrs.field(factory=trio.Event)

    async def run(self) -> None:
        with self.scope:
            try:
                lease = self.pool.acquire(self.key)
                async with lease as bridge:
                    self.bridge, self.generation = bridge, lease.generation
                    self.got_control()
                    await self._let_go.wait()
            except Exception as error:  # kept for the test to look at
                self.error = error
        self.has_ended = True

    def release(self) -> None:
        self._let_go.set()


@attrs.define(eq=False)
class Callers:
    """Callers of one pool in one nursery."""

    pool: Pool
    nursery: trio.Nursery

    def start(self, key: str = "a", got_control: Callable[[], None] = lambda: None) -> Caller:
        caller = Caller(self.pool, key, got_control=got_control)
        self.nursery.start_soon(caller.run)
        return caller

    async def settled(self, key: str = "a") -> Caller:
        """Start one and wait until it holds its bridge or is parked."""
        caller = self.start(key)
        await wait_all_tasks_blocked()
        return caller


async def use(pool: Pool, key: str = "a") -> Bridge:
    """Acquire and release at once."""
    async with pool.acquire(key) as bridge:
        return bridge


def under_many_schedules(test: Callable[[MockClock], Awaitable[None]]) -> Callable[[], None]:
    """Run a test in a Trio run of its own for each of some orders of the tasks of a tick."""

    @settings(max_examples=12, derandomize=True, database=None, deadline=None)
    @given(schedule=st.random_module())
    def runs(schedule: object) -> None:
        clock = MockClock()
        trio.run(test, clock, clock=clock)

    runs.__name__, runs.__doc__ = test.__name__, test.__doc__
    wrapped: Callable[[], None] = runs
    return wrapped
