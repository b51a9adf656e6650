"""One pool in the middle of everything, and ten things that can happen to it in one tick.

Made of the parts of `bridgepool.testing`: its bridges, its callers and its oracle.
"""

import attrs
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from bridgepool import BuildError, ProviderSnapshot, open_bridge_pool
from bridgepool._options import PoolOptions
from bridgepool.testing._bridges import BridgeFactory, Closing, Findings, ScriptedBuild
from bridgepool.testing._callers import Caller, CallerState, ScriptedPool
from bridgepool.testing._oracle import Oracle

_OPTIONS = PoolOptions(
    max_items=2, max_rebuilds=1, ttl=3.0, build_timeout=5.0, abandon_grace=1.0,
    drain_timeout=4.0, shutdown_timeout=2.0, close_timeout=1.0,
)  # fmt: skip


class Scenario:
    """As it begins: `a` and `d` are being built, `b` is in use, `c` is listed and idle.

    A leader and a follower wait for `a`, one caller for `d`. There are no more places: one
    more bridge has to evict `c`. `c` expires before the build of `a` times out.
    """

    def __init__(self, clock: MockClock) -> None:
        self._clock = clock
        self._findings = Findings()
        self._callers: list[Caller] = []
        self._errors: list[BuildError] = []
        self._leave = trio.Event()
        self._block = trio.CancelScope()
        self._has_ended = False
        self._factory = BridgeFactory(
            None, lambda: Closing.QUICK, lambda build: self._oracle.may_close(build), self._findings
        )
        self.actions = {
            "build ok": lambda: self._answer(self._build_a, True),
            "build fails": lambda: self._answer(self._build_a, False),
            "build times out": lambda: self._jump_to(
                self._build_a.began_at + _OPTIONS.build_timeout
            ),
            "replace": self._replace,
            "expiry": self._expire,
            "eviction": lambda: self._answer(self._build_d, True),
            "leader cancelled": lambda: self._leader.cancel(),
            "last waiter cancelled": lambda: self._follower.cancel(),
            "release": lambda: self._holder.release(),
            "leave": self._leave.set,
        }

    async def run(self, names: tuple[str, ...], *, tick_between: bool) -> None:
        """Let it all happen, then leave the pool, with invariants checked on the way."""
        async with trio.open_nursery() as self._nursery:
            await self._nursery.start(self._host)
            await self._prepare()
            for name in names:
                self.actions[name]()
                self._oracle.check_always()
                if tick_between:
                    await trio.lowlevel.checkpoint()
                    self._oracle.check_always()
            await wait_all_tasks_blocked()
            self._oracle.check_always()
            self._oracle.check_quiet()
            await self._finish()

    async def _host(  # noqa: ASYNC114 -- the linter cannot be told of every startable
        self, task_status: trio.TaskStatus[None]
    ) -> None:
        snapshot = ProviderSnapshot([1], 1)
        options = attrs.asdict(_OPTIONS)
        async with open_bridge_pool(self._factory.open_bridge, snapshot, **options) as pool:
            self._pool: ScriptedPool = pool
            self._oracle = Oracle(
                pool,
                _OPTIONS,
                self._factory,
                self._findings,
                self._callers,
                pool._supervisor._owners,
            )
            task_status.started()
            await self._leave.wait()
            self._oracle.left_at = trio.current_time()
        self._has_ended = True

    async def _prepare(self) -> None:
        self._holder, build_b = await self._acquire_and_wait("b")
        build_b.succeed()
        once, self._build_c = await self._acquire_and_wait("c")
        self._build_c.succeed()
        await wait_all_tasks_blocked()
        once.release()
        self._leader, self._build_a = await self._acquire_and_wait("a")
        self._follower = self._acquire("a")
        _, self._build_d = await self._acquire_and_wait("d")
        self._oracle.check_quiet()
        stats = self._pool.statistics()
        assert (stats.listed, stats.leased, stats.building, stats.waiting) == (2, 1, 2, 3)

    async def _acquire_and_wait(self, key: str) -> tuple[Caller, ScriptedBuild]:
        caller = self._acquire(key)
        await wait_all_tasks_blocked()
        return caller, self._factory.builds[-1]

    def _acquire(self, key: str) -> Caller:
        caller = Caller(
            self._pool, key, _OPTIONS.max_rebuilds, self._findings, self._errors, is_inside=False
        )
        self._callers.append(caller)
        self._nursery.start_soon(caller.run)
        return caller

    def _answer(self, build: ScriptedBuild, succeeds: bool) -> None:
        if build.verdict is None:  # the first answer is the answer
            build.succeed() if succeeds else build.fail()

    def _jump_to(self, when: float) -> None:
        self._clock.jump(max(0.0, when - trio.current_time()))

    def _expire(self) -> None:
        assert self._build_c.opened_at is not None
        self._jump_to(self._build_c.opened_at + _OPTIONS.ttl)
        self._acquire("c")

    def _replace(self) -> None:
        number, providers = self._pool.generation, self._pool.snapshot.providers
        if self._pool.replace_providers(ProviderSnapshot([number + 1], number + 1)).applied:
            deadline = trio.current_time() + _OPTIONS.drain_timeout
            self._oracle.drain_deadlines[number] = deadline
            self._oracle.generations[number] = providers

    async def _finish(self) -> None:
        self._leave.set()
        for _ in range(20):
            for build in self._factory.builds:
                self._answer(build, True)
            for caller in self._callers:
                caller.release()
            await wait_all_tasks_blocked()
            self._oracle.check_always()
            if self._has_ended and all(c.state is CallerState.ENDED for c in self._callers):
                break
            self._clock.jump(0.5)
        self._oracle.check_end()
