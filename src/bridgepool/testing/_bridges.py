"""Scripted bridges: a script decides each step, and each bridge checks how the pool treats it.

A `BridgeFactory` is an `open_bridge`. Each build waits at a gate until the script opens it,
with success or failure; then the user's own `open_bridge` is entered, if there is one. Each
bridge has a background task that the script can crash, and a close that is quick, slow,
failing or endless. The factory records what happened, and reports what must never happen: a
second close, a close in another task, a caller's context variables.
"""

import contextvars
import enum
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeAlias

import attrs
import trio

from .._snapshot import ProviderSnapshot

# Set by every scripted caller; a build or a close that sees it runs in the wrong context.
caller_mark: contextvars.ContextVar[bool] = contextvars.ContextVar("caller_mark", default=False)


class PoolPromiseBrokenError(AssertionError):
    """An invariant of the pool does not hold; the message begins with its number."""


class Findings:
    """The broken invariants found in all tasks; the pool would only log an exception."""

    def __init__(self) -> None:
        self._broken: list[str] = []

    def must(self, number: int, holds: bool, what: str) -> None:
        """Record that invariant `number` is broken if `holds` is false."""
        if not holds:
            self.note(f"invariant {number}: {what}")

    def note(self, what: str) -> None:
        """Record that something is broken."""
        self._broken.append(what)

    def check(self) -> None:
        """Raise if anything was recorded."""
        if self._broken:
            raise PoolPromiseBrokenError("; ".join(self._broken))


class ScriptedError(Exception):
    """A failure requested by a script."""


class Closing(enum.Enum):
    """How a bridge closes."""

    QUICK = "quick"
    """At once."""
    SLOW = "slow"
    """After 0.3 seconds."""
    RAISES = "raises"
    """It raises an exception."""
    HANGS = "hangs"
    """Not before it is cancelled."""


# The providers of a script are numbers.
Snapshot: TypeAlias = ProviderSnapshot[int]
InnerOpen: TypeAlias = Callable[[str, Snapshot], AbstractAsyncContextManager[object]]


@attrs.define(eq=False)
class ScriptedBuild:
    """One call of `open_bridge`, from its beginning to the end of the bridge."""

    key: str
    snapshot: Snapshot
    closing: Closing
    # set by the script: True to succeed, False to fail
    verdict: bool | None = None
    gate: trio.Event = attrs.field(factory=trio.Event)
    crash: trio.Event = attrs.field(factory=trio.Event)
    task: trio.lowlevel.Task = attrs.field(factory=trio.lowlevel.current_task)
    began_at: float = attrs.field(factory=trio.current_time)
    opened_at: float | None = None
    # the leases that the script's callers hold
    holders: int = 0
    close_began_at: float | None = None
    close_ended_at: float | None = None
    close_is_whole: bool = False
    has_crashed: bool = False
    build_ended: bool = False

    @property
    def is_building(self) -> bool:
        """Whether the build has not ended yet."""
        return not self.build_ended

    @property
    def is_closed(self) -> bool:
        """Whether the close has ended."""
        return self.close_ended_at is not None

    @property
    def is_open(self) -> bool:
        """Whether the bridge was opened and its close has not begun."""
        return self.opened_at is not None and self.close_began_at is None

    def succeed(self) -> None:
        """Let the build succeed."""
        self.verdict = True
        self.gate.set()

    def fail(self) -> None:
        """Let the build raise `ScriptedError`."""
        self.verdict = False
        self.gate.set()

    def break_down(self) -> None:
        """Crash the bridge: its background task raises."""
        self.has_crashed = True
        self.crash.set()


class BridgeFactory:
    """An instrumented `open_bridge`.

    Args:
        inner: The user's own `open_bridge`, entered when the script lets a build succeed; its
            bridge is kept open inside the scripted bridge.
        closings: Called for each build; returns how its bridge closes.
        on_close: Called when a close begins, to check that it may.
        findings: The record of broken invariants.
    """

    def __init__(
        self,
        inner: InnerOpen | None = None,
        closings: Callable[[], Closing] = lambda: Closing.QUICK,
        on_close: Callable[[ScriptedBuild], None] = lambda build: None,
        findings: Findings | None = None,
    ) -> None:
        self._inner = inner
        self._findings = findings if findings is not None else Findings()
        self._closings = closings
        self._on_close = on_close
        self.builds: list[ScriptedBuild] = []

    @asynccontextmanager
    async def open_bridge(self, key: str, snapshot: Snapshot) -> AsyncIterator[ScriptedBuild]:
        """Build, hold and close one bridge as the script decides."""
        self._check_context()
        build = ScriptedBuild(key, snapshot, self._closings())
        self.builds.append(build)
        try:
            async with self._gated(build), trio.open_nursery() as nursery:
                nursery.start_soon(self._background, build)
                build.opened_at = trio.current_time()
                try:
                    yield build
                finally:
                    self._close_begins(build)
                    try:
                        await self._close(build)  # noqa: ASYNC102 -- the pool shields it
                    finally:
                        nursery.cancel_scope.cancel()
        finally:
            if build.close_began_at is not None:
                build.close_ended_at = trio.current_time()

    @asynccontextmanager
    async def _gated(self, build: ScriptedBuild) -> AsyncIterator[None]:
        """Build when the script opens the gate; hold the user's bridge open, if there is one."""
        inner = None
        try:
            await build.gate.wait()
            if build.verdict is False:
                raise ScriptedError(f"build {len(self.builds)} of {build.key}")
            if self._inner is not None:
                inner = self._inner(build.key, build.snapshot)
                await inner.__aenter__()
        finally:
            build.build_ended = True
        if inner is None:
            yield
            return
        try:
            yield
        finally:
            try:
                await inner.__aexit__(None, None, None)  # noqa: ASYNC102 -- the pool shields it
            except Exception as error:
                self._findings.note(
                    f"your bridge of {build.key} raised during its close: {error!r}"
                )
                raise

    async def _background(self, build: ScriptedBuild) -> None:
        await build.crash.wait()
        raise ScriptedError(f"crash of {build.key}")

    def _close_begins(self, build: ScriptedBuild) -> None:
        self._check_context()
        must = self._findings.must
        must(14, build.close_began_at is None, f"{build.key} is closed twice")
        must(14, trio.lowlevel.current_task() is build.task, f"{build.key}: another task closes it")
        build.close_began_at = trio.current_time()
        self._on_close(build)

    async def _close(self, build: ScriptedBuild) -> None:
        if build.closing is Closing.SLOW:
            await trio.sleep(0.3)
        elif build.closing is Closing.HANGS:
            await trio.sleep_forever()
        build.close_is_whole = True
        if build.closing is Closing.RAISES:
            raise ScriptedError(f"close of {build.key}")

    def _check_context(self) -> None:
        self._findings.must(39, not caller_mark.get(), "a caller's context variables are visible")
