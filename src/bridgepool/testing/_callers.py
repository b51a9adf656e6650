"""Scripted callers: a script decides each step, and each caller checks the bridge that it gets."""

import enum
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

import attrs
import trio

from .._errors import BuildError, BuildTimeoutError, PoolClosedError
from .._pool import CachedBridgePool
from ._bridges import Findings, ScriptedBuild, caller_mark

# A pool with the keys, providers and bridges of a script.
ScriptedPool: TypeAlias = CachedBridgePool[str, int, ScriptedBuild]


class CallerState(enum.Enum):
    """The state of a caller."""

    WAITING = "waiting"
    HOLDING = "holding"
    ENDED = "ended"


@attrs.define(eq=False)
class Caller:
    """One task that acquires one bridge, holds it until `release`, and checks invariants G."""

    pool: ScriptedPool
    key: str
    max_rebuilds: int
    findings: Findings
    # every error ever delivered, kept alive so that identity means something
    errors: list[BuildError]
    # whether it runs inside the pool's block, where cancelling the block cancels it
    is_inside: bool
    state: CallerState = CallerState.WAITING
    bridge: ScriptedBuild | None = None
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    block: trio.CancelScope | None = None
    _released: trio.Event = attrs.field(factory=trio.Event)

    def release(self) -> None:
        """Let it leave its `with` body."""
        self._released.set()

    def cancel(self) -> None:
        """Cancel it, wherever it is."""
        self.scope.cancel()

    @property
    def may_be_cancelled(self) -> bool:
        """Whether its own or an enclosing scope was cancelled."""
        return self.scope.cancel_called or (
            self.is_inside and self.block is not None and self.block.cancel_called
        )

    async def run(self) -> None:
        """Acquire, hold, release."""
        caller_mark.set(True)
        with self.scope:
            try:
                await self._acquire()
            except trio.Cancelled:
                self.findings.must(
                    9, self.may_be_cancelled, f"{self.key}: Cancelled out of nowhere"
                )
                raise
            except BuildError as error:
                self._check_error(error)
            except PoolClosedError:
                pass
            finally:
                self.state = CallerState.ENDED
        self.state = CallerState.ENDED

    async def _acquire(self) -> None:
        self._began_at = trio.current_time()
        self._first_generation = self.pool.generation
        lease = self.pool.acquire(self.key)
        async with lease as bridge:
            with self._holding(bridge):
                self._check_control(bridge, lease.generation)
                await self._released.wait()

    @contextmanager
    def _holding(self, bridge: ScriptedBuild) -> Iterator[None]:
        self.state, self.bridge = CallerState.HOLDING, bridge
        bridge.holders += 1
        try:
            yield
        finally:
            bridge.holders -= 1
            self.bridge = None

    def _check_control(self, bridge: ScriptedBuild, generation: int) -> None:
        """Check what must hold when a caller gets control, before its next checkpoint."""
        must, pool, now = self.findings.must, self.pool, trio.current_time()
        must(1, bridge.is_open, f"{self.key}: the bridge is closed")
        must(2, bridge.key == self.key, f"{self.key}: got the bridge of {bridge.key}")
        if generation != pool.generation:
            moves = pool.generation - self._first_generation
            must(3, moves > self.max_rebuilds, f"{self.key}: stale after {moves} replacements")
        else:
            providers = pool.snapshot.providers
            must(3, bridge.snapshot.providers == providers, f"{self.key}: stale providers")
        listed = pool._ledger.current.listed.get(self.key)
        opened_at = bridge.opened_at if bridge.opened_at is not None else now
        if opened_at < self._began_at:  # it was open before the acquire began: a hit
            is_fresh = listed is not None and listed.value.bridge is bridge
            must(5, is_fresh, f"{self.key}: a hit on what is not listed")
            must(4, listed is None or now < listed.expires_at, f"{self.key}: expired")

    def _check_error(self, error: BuildError) -> None:
        must = self.findings.must
        must(35, all(error is not other for other in self.errors), "an exception object is shared")
        self.errors.append(error)
        must(12, error.generation == self.pool.generation, "the error of a past generation")
        if isinstance(error, BuildTimeoutError):
            must(12, trio.current_time() > self._began_at, "a timeout from before the acquire")
        else:
            must(35, error.__cause__ is not None, "an error without its cause")

    # set when the acquire begins
    _began_at: float = 0.0
    _first_generation: int = 0
