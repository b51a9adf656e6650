"""Whatever happens in whatever order, who follows ends at the last revision and never goes back."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Generic, TypeVar

import attrs
import hypothesis
import hypothesis.strategies as st
import trio
import trio.testing

from bridgepool import ProviderSnapshot, ReloadError, Replacement, open_bridge_pool, watch_providers
from bridgepool.remote import RemoteProviders, open_remote_providers
from bridgepool.testing import check_reloader

from .rig import ROWS, Depot, Owner, Plane, open_plane, row

P = TypeVar("P")
CHANGES = ("change", "change", "bad row", "move", "notice", "reload")
FAULTS = ("cut", "down", "up", "lose notices", "short wait", "long wait")
STEPS = st.lists(st.sampled_from(CHANGES + FAULTS), max_size=25)


@asynccontextmanager
async def open_nothing(key: str, snapshot: ProviderSnapshot[P]) -> AsyncIterator[None]:
    yield None


@attrs.define(eq=False)
class Driver:
    plane: Plane
    remote: RemoteProviders[Depot]
    number: int = 0

    async def step(self, what: str) -> None:
        plane = self.plane
        self.number += 1
        if what == "change":
            plane.owner.set_rows([row(1), row(2, name=f"name-{self.number}")])
        elif what == "bad row":
            plane.owner.set_rows([row(1), row(2, city="?", name=f"name-{self.number}")])
        elif what == "move":
            plane.owner.move()
        elif what == "notice":
            self.remote._bus.publish()
        elif what == "reload":
            with trio.move_on_after(0.001), suppress(ReloadError):
                await self.remote.reload()
        elif what == "cut":
            plane.cut()
        elif what == "down":
            plane.down = True
            plane.cut()
        elif what == "up":
            plane.down = False
        elif what == "lose notices":
            for session in plane.service._open:
                session.watch = None
        else:
            await trio.sleep(0.01 if what == "short wait" else 20)


@attrs.define(eq=False)
class Watched(Generic[P]):
    """A pool that is checked for going back."""

    snapshot: ProviderSnapshot[P] | None = None

    def note(self, snapshot: ProviderSnapshot[P]) -> None:
        assert self.snapshot is None or not snapshot.older_than(self.snapshot)
        self.snapshot = snapshot


@hypothesis.given(STEPS)
@hypothesis.settings(deadline=None, max_examples=60)
def test_any_interleaving_converges_to_the_last_revision_and_never_goes_back(
    steps: Sequence[str],
) -> None:
    async def main() -> None:
        first: ProviderSnapshot[Depot] = ProviderSnapshot(())
        async with (
            open_plane() as plane,
            open_remote_providers(plane.connect, ROWS, name="front") as remote,
            open_bridge_pool(open_nothing, first) as pool,
            trio.open_nursery() as nursery,
        ):
            seen = Watched[Depot]()

            class Pool:
                def replace_providers(self, snapshot: ProviderSnapshot[Depot]) -> Replacement:
                    replacement = pool.replace_providers(snapshot)
                    seen.note(pool.snapshot)
                    return replacement

            nursery.start_soon(watch_providers, Pool(), remote, remote.changes)
            driver = Driver(plane, remote)
            for what in steps:
                await driver.step(what)
            plane.down = False
            last = plane.owner.set_rows([row(1), row(2, name="last"), row(3)])
            await trio.sleep(320)  # the poll finds what lost notices did not tell
            assert pool.snapshot.revision == last
            names = [provider.name for provider in pool.snapshot.providers]
            assert names == ["depot-1", "last", "depot-3"]
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@attrs.define(eq=False)
class Rig:
    """For `check_reloader`."""

    plane: Plane
    remote: RemoteProviders[Depot]

    @property
    def reloader(self) -> RemoteProviders[Depot]:
        return self.remote

    @property
    def changes(self) -> trio.abc.ReceiveChannel[None]:
        return self.remote.changes

    async def change(self, number: int) -> None:
        revision = self.plane.owner.set_rows([row(1, name=f"name-{number}")])
        self.plane.down = False
        while (  # noqa: ASYNC110 -- the status has no event
            self.remote.status.revision is None
            or not self.remote.status.connected
            or self.remote.status.revision < revision
        ):
            await trio.sleep(0.01)

    async def break_source(self) -> None:
        self.plane.down = True
        self.plane.cut()
        while self.remote.status.connected:  # noqa: ASYNC110 -- the status has no event
            await trio.sleep(0.01)


@asynccontextmanager
async def open_rig() -> AsyncIterator[Rig]:
    async with (
        open_plane(Owner()) as plane,
        open_remote_providers(plane.connect, ROWS, name="front") as remote,
    ):
        yield Rig(plane, remote)


def test_the_remote_reloader_keeps_the_contract_of_reloaders() -> None:
    check_reloader(open_rig, max_examples=20)
