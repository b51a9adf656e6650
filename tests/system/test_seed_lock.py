"""A seed that takes long, in a process of its own, and who reads meanwhile, on both engines.

Readers wait and then have all of it: by the store in another process, by the API of a control
plane, by the reload of an embedded gateway. A gateway serves on meanwhile.
"""

from __future__ import annotations

import signal
import stat
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs
import trio

from bridgepool import Secret
from bridgepool.gateway import Gateway
from bridgepool.gateway.control._records import Actor, KeyValue, ProviderDraft
from bridgepool.gateway.demo._upstream import SimulatedUpstream
from tests.gateway.control.database.child import Child
from tests.system.asking import GENEROUS, Front, Home
from tests.system.load import Load, open_load
from tests.system.rig import make_home, open_front, open_plane, run_plane, store_source
from tests.system.store_child import SEEDED, open_store_child

LONG = 0.4  # seconds that a seed is held open: far longer than any reading takes
ADA = Actor("program", "ada")


@attrs.frozen
class World:
    """A control plane, an embedded gateway on its store, and requests to that all the time."""

    home: Home
    front: Front
    gateway: Gateway
    load: Load
    seeder: Child

    def in_force(self) -> int:
        """Tell how many providers the gateway serves."""
        return len(self.gateway.pool.snapshot.providers)


@asynccontextmanager
async def open_world(
    folder: Path, url: str, north: SimulatedUpstream, south: SimulatedUpstream
) -> AsyncIterator[World]:
    home = await make_home(folder, url)
    async with open_plane(home):
        await home.add("ai", north, "sk-1")
        async with (
            open_front(home, store_source(home)) as (front, gateway),
            open_store_child(home, "seed", south.openai_url) as seeder,
        ):
            with trio.fail_after(GENEROUS):
                assert await seeder.hear() == "half"
            async with open_load(front.url, front.key) as load:
                yield World(home, front, gateway, load, seeder)


async def test_who_reads_during_a_seed_waits_and_has_all_of_it(
    database_url: str, tmp_path: Path, north: SimulatedUpstream, south: SimulatedUpstream
) -> None:
    listed: list[int] = []
    counted: list[int] = []
    home = await make_home(tmp_path, database_url)

    async def by_the_api(world: World) -> None:
        listed.append(len((await world.home.api("GET", "providers"))["providers"]))

    async def by_another_process(reader: Child) -> None:
        assert await reader.hear() == "reading"
        counted.append(int(await reader.hear()))

    async with open_plane(home):
        await home.add("ai", north, "sk-1")
        async with (
            open_front(home, store_source(home)) as (front, gateway),
            open_store_child(home, "read") as one,
            open_store_child(home, "read") as other,
            open_store_child(home, "seed", south.openai_url) as seeder,
            trio.open_nursery() as nursery,
            AsyncExitStack() as stack,
        ):
            with trio.fail_after(GENEROUS):
                assert await seeder.hear() == "half"
            # Only from here on: it takes the processor from the processes that start.
            load = await stack.enter_async_context(open_load(front.url, front.key))
            world = World(home, front, gateway, load, seeder)
            nursery.start_soon(by_the_api, world)
            for reader in (one, other):
                nursery.start_soon(by_another_process, reader)
                await reader.go_on()
            answered = load.answered
            await trio.sleep(LONG)
            assert (listed, counted, world.in_force()) == ([], [], 1)
            assert load.answered > answered
            assert await front.outcome("seeded-0") == "unknown_provider"
            await seeder.go_on()
            began = trio.current_time()
            with trio.fail_after(GENEROUS):
                assert await seeder.hear() == f"seeded {SEEDED}"
                committed = trio.current_time()
                while world.in_force() == 1:  # noqa: ASYNC110 -- no event tells
                    await trio.sleep(0.002)
            assert world.in_force() == 1 + SEEDED
            assert await front.outcome(f"seeded-{SEEDED - 1}") == "south"
            took = trio.current_time()
            print(f"converged: {took - committed:.3f} s after a seed of {committed - began:.3f} s")
        assert listed == [1 + SEEDED]
        assert counted == [1 + SEEDED] * 2


async def test_of_a_seeder_that_is_killed_nothing_is_seen_and_nobody_waits_any_more(
    database_url: str, tmp_path: Path, north: SimulatedUpstream, south: SimulatedUpstream
) -> None:
    async with open_world(tmp_path, database_url, north, south) as world:
        listed: list[int] = []

        async def list_them() -> None:
            listed.append(len((await world.home.api("GET", "providers"))["providers"]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(list_them)
            await trio.sleep(LONG)
            assert not listed
            world.seeder.process.kill()
            began = trio.current_time()
        print(f"converged: {trio.current_time() - began:.3f} s after the seeder was killed")
        assert trio.current_time() - began < 25  # who waits for the lock gives up after 30
        assert listed == [1]
        assert world.in_force() == 1
        # The next seeder is not kept out, and its seed is whole.
        async with open_store_child(world.home, "seed", south.openai_url) as seeder:
            with trio.fail_after(GENEROUS):
                assert await seeder.hear() == "half"
                await seeder.go_on()
                assert await seeder.hear() == f"seeded {SEEDED}"
        await world.front.wait_outcome("south", "seeded-7")
        assert world.in_force() == 1 + SEEDED


ROW = """
[[providers]]
name = "{name}"
type = "openai"
base_url = "{url}"
keys = ["sk-seed"]
"""


async def test_no_drift_keeps_a_control_plane_from_starting_and_its_keys_are_made_once(
    tmp_path: Path,
) -> None:
    home = await make_home(tmp_path)
    names = ("kept", "changed", "removed", "remade", "left-out")
    url = "https://api.openai.example/v1"
    seed = tmp_path / "seed.toml"
    seed.write_text("".join(ROW.format(name=name, url=url) for name in names))

    def draft(name: str) -> ProviderDraft:
        key = KeyValue(Secret("sk-by-hand"))
        return ProviderDraft(name=name, type="openai", base_url=url, keys=(key,))

    async with run_plane(home, "--seed", str(seed)) as plane:
        await plane.wait_event("seed applied", applied=5)
        await home.change("changed", base_url="https://by-hand.example/v1")
        for name in ("removed", "remade"):
            await home.api("DELETE", f"providers/{name}?allow_empty=true")
        made = {"name": "remade", "type": "anthropic", "base_url": url, "client_keys": True}
        await home.api("POST", "providers", made)
        await home.api("POST", "providers", made | {"name": "by-hand"})
        for file in (home.admin_file, home.gateway_file, home.client_file):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
        first = home.admin_file.read_text()
        plane.signal(signal.SIGKILL)
        await plane.wait()
    elsewhere = "https://elsewhere.example/v1"
    kept = [*names[:4], "by-hand"]
    many = ", ".join(f'"sk-{number}"' for number in range(6))
    seed.write_text(
        "".join(ROW.format(name=name, url=elsewhere) for name in kept)
        + ROW.format(name="new", url=url)
        + ROW.format(name="with-many-keys", url=url).replace('"sk-seed"', many)
    )
    # The seed has more keys than this control plane takes, as one that was told another number.
    async with run_plane(home, "--seed", str(seed), "--max-keys", "6") as plane:
        await plane.wait_event("seed applied", applied=3)
        drift = {}
        for name in ("changed", "removed", "remade", "by-hand", "left-out"):
            line = await plane.wait_event("drift from the seed", row=name)
            drift[name] = str(line["reason"])
        assert "was changed by hand: base_url" in drift["changed"]
        assert "was removed by hand" in drift["removed"]
        assert "recreated by hand" in drift["remade"]
        assert "was made by hand" in drift["by-hand"]
        assert "not in the seed any more" in drift["left-out"]
        rows = {row["name"]: row for row in (await home.api("GET", "providers"))["providers"]}
        assert set(rows) == {"kept", "changed", "remade", "by-hand", "left-out", "new",
                             "with-many-keys"}  # fmt: skip
        assert rows["kept"]["base_url"] == elsewhere
        assert rows["changed"]["base_url"] == "https://by-hand.example/v1"
        assert rows["remade"]["type"] == "anthropic"
        assert "sk-seed" not in plane.everything
        assert home.admin_file.read_text() == first
        assert len((await home.api("GET", "admin-keys"))["keys"]) == 1
