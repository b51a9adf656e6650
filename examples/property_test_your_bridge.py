"""Property tests of a bridge of your own: `pytest property_test_your_bridge.py`.

Every script acquires, cancels, replaces, crashes, closes and advances the clock, in any order and
within one tick. Only the script advances the clock.
"""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import attrs
import trio
from hypothesis import given

from bridgepool import ProviderSnapshot
from bridgepool.testing import check_pool, pool_scripts, run_pool_script


@attrs.frozen
class Upstream:
    """The provider type of your program."""

    host: str


@attrs.define(eq=False)
class Sessions:
    """A fake server that records its open sessions."""

    opened: list[str] = attrs.field(factory=list[str])

    async def open(self, name: str) -> str:
        """Open a session; takes 0.2 s, so that a build can be cancelled meanwhile."""
        self.opened.append(name)
        try:
            await trio.sleep(0.2)
        except trio.Cancelled:
            self.opened.remove(name)
            raise
        return name

    def close(self, name: str) -> None:
        """Close a session."""
        self.opened.remove(name)


@attrs.define(eq=False)
class Bridges:
    """The code under test: a bridge has two sessions, and must close both."""

    sessions: Sessions = attrs.field(factory=Sessions)

    @asynccontextmanager
    async def open_bridge(
        self, key: str, snapshot: ProviderSnapshot[Upstream]
    ) -> AsyncGenerator[list[str]]:
        """Open one bridge, as for `open_bridge_pool`."""
        tools = await self.sessions.open(f"tools of {key}")
        try:
            models = await self.sessions.open(f"models of {key}")
            try:
                yield [tools, models]
            finally:
                self.sessions.close(models)
        finally:
            self.sessions.close(tools)

    def open_scripted(
        self, key: str, numbers: ProviderSnapshot[int]
    ) -> AbstractAsyncContextManager[list[str]]:
        """Open one for a script, whose providers are numbers."""
        upstreams = [Upstream(f"host-{number}") for number in numbers.providers]
        return self.open_bridge(key, ProviderSnapshot(upstreams))


def test_the_pool_keeps_its_promises_with_this_bridge() -> None:
    check_pool(Bridges().open_scripted)


@given(script=pool_scripts())
def test_no_script_leaves_a_session_open(script: tuple[int, ...]) -> None:
    bridges = Bridges()
    run_pool_script(script, bridges.open_scripted)
    assert bridges.sessions.opened == []  # noqa: S101  -- it is a test
