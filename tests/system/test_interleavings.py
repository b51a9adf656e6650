"""Whatever happens in whatever order between a real store and who follows it over a bad network."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import attrs
import hypothesis
import hypothesis.strategies as st
import trio

from bridgepool import (
    ProviderSnapshot,
    ReloadError,
    Replacement,
    Secret,
    open_bridge_pool,
    watch_providers,
)
from bridgepool.gateway import provider_rows
from bridgepool.gateway.control._records import ProviderPatch
from bridgepool.gateway.control.store import Store
from bridgepool.gateway.providers import Provider
from bridgepool.remote import RemoteProviders, open_remote_providers, websocket_connector
from bridgepool.testing import Toward
from tests.gateway.control.stores import ADA, draft, opened
from tests.remote.test_convergence import Watched, open_nothing
from tests.system.faulty import LINE, PATIENCE, World, open_world
from tests.waiting import wait_until

CHANGES = ("change", "change elsewhere", "add", "remove", "client", "notice", "reload")
FAULTS = ("cut", "half cut", "cut soon", "hole", "refuse", "heal", "lose notices", "damage", "wait")
STEPS = st.lists(st.sampled_from(CHANGES + FAULTS), min_size=1, max_size=20)


@attrs.define(eq=False)
class Driver:
    world: World
    elsewhere: Store
    remote: RemoteProviders[Provider]
    number: int = 0

    async def change(self, store: Store) -> None:
        url = f"https://api-{self.number}.example/v1"
        await store.update_provider(ADA, "ai", ProviderPatch(base_url=url))

    async def step(self, what: str) -> None:
        world, proxy = self.world, self.world.proxy
        self.number += 1
        if what == "change":
            await self.change(world.store)
        elif what == "change elsewhere":
            await self.change(self.elsewhere)
        elif what == "add":
            await world.store.add_provider(ADA, draft(f"more-{self.number}"))
        elif what == "remove":
            for view in (await world.store.list_providers())[1:2]:
                await self.elsewhere.remove_provider(ADA, view.name, allow_empty=True)
        elif what == "client":
            await world.store.add_client(ADA, f"client-{self.number}")
        elif what == "notice":
            self.remote._bus.publish()
        elif what == "reload":
            with trio.move_on_after(0.01), suppress(ReloadError):
                await self.remote.reload()
        elif what == "lose notices":
            for session in world.service._open:
                session.watch = None
        elif what == "wait":
            await trio.sleep(0.02)
        else:
            faults: dict[str, Callable[[], None]] = {
                "cut": proxy.cut,
                "half cut": lambda: proxy.cut(Toward.TARGET),
                "cut soon": lambda: proxy.cut_after(40 * self.number, Toward.CLIENT),
                "hole": proxy.black_hole,
                "refuse": proxy.refuse,
                "heal": proxy.heal,
                "damage": lambda: proxy.corrupt(30, skip=self.number),
            }
            faults[what]()


@hypothesis.given(STEPS)
@hypothesis.settings(deadline=None, max_examples=20)
def test_any_interleaving_converges_to_the_last_revision_of_the_store_and_never_goes_back(
    steps: Sequence[str],
) -> None:
    async def main(folder: Path) -> None:
        first: ProviderSnapshot[Provider] = ProviderSnapshot(())
        async with (
            open_world(folder) as world,
            opened(f"sqlite:{folder / 'store.db'}") as elsewhere,
        ):
            connect = websocket_connector(
                f"ws://127.0.0.1:{world.proxy.port}",
                Secret(world.key_file.read_text()),
                limits=LINE,
            )
            async with (
                open_remote_providers(
                    connect, provider_rows(), name="f", limits=PATIENCE
                ) as remote,
                open_bridge_pool(open_nothing, first) as pool,
                trio.open_nursery() as nursery,
            ):
                seen = Watched[Provider]()

                class Pool:
                    def replace_providers(self, fresh: ProviderSnapshot[Provider]) -> Replacement:
                        replacement = pool.replace_providers(fresh)
                        seen.note(pool.snapshot)
                        return replacement

                async def watch() -> None:
                    await watch_providers(
                        Pool(), remote, remote.changes, poll_interval=0.5, reload_timeout=2
                    )

                nursery.start_soon(watch)
                driver = Driver(world, elsewhere, remote)
                for what in steps:
                    await driver.step(what)
                await driver.change(elsewhere)
                world.proxy.heal()
                last = await world.store.snapshot()
                await wait_until(lambda: pool.snapshot.revision == last.revisions.revision)
                found = [(each.name, str(each.base_url)) for each in pool.snapshot.providers]
                assert found == [(row.name, row.base_url) for row in last.rows]
                nursery.cancel_scope.cancel()

    with tempfile.TemporaryDirectory() as folder:
        trio.run(main, Path(folder))
