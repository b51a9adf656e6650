"""A gateway that is started while its control plane is down, or loses it for too long."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from bridgepool.gateway.sources._snapshot_file import decode_snapshot, encode_snapshot
from tests.gateway.control.stores import ADA
from tests.system.faulty import World, open_world
from tests.system.load import open_load
from tests.waiting import wait_until


async def fill(world: World, file: Path) -> None:
    """Have a gateway write the file, with its client."""
    async with world.front(snapshot_file=file) as front:
        await front.converge(world.north, "the first start")


def down(world: World) -> None:
    world.proxy.refuse()
    world.proxy.cut()


async def test_without_a_snapshot_file_it_comes_up_by_itself(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        down(world)
        async with world.front() as front:
            answer = await front.wait_ready(ready=False, connected=False)
            assert answer.document["reason"] == "no snapshot of providers yet"
            early = await front.ask()
            assert (early.status, early.code) == (503, "not_ready")
            assert b"retry-after" in early.headers
            await world.point_at(world.south)
            world.proxy.heal()
            await front.converge(world.south, "a start with the control plane down")
            async with open_load(front.url, front.key):
                down(world)
                stranger = await front.ask("bp_stranger_of_whom_nobody_knows")
                assert (stranger.status, stranger.code) == (503, "authorization_unavailable")
                assert int(stranger.headers[b"retry-after"]) >= 1
                world.proxy.heal()
                await front.wait_ready(ready=True, connected=True)
                assert (await front.ask("bp_stranger_of_whom_nobody_knows")).status == 401


async def test_with_a_snapshot_file_those_who_are_in_it_are_served_from_the_start(
    tmp_path: Path,
) -> None:
    async with open_world(tmp_path) as world:
        await fill(world, tmp_path / "snapshot")
        down(world)
        await world.point_at(world.south)
        async with (
            world.front(snapshot_file=tmp_path / "snapshot") as front,
            open_load(front.url, front.key),
        ):
            answer = await front.wait_ready(ready=True, connected=False)
            assert answer.document["source"] == "snapshot file"
            assert (await front.ask()).model == "m@north"
            assert (await front.ask("bp_stranger")).status == 503
            world.proxy.heal()
            await front.converge(world.south, "a start from the snapshot file")
            await front.wait_ready(ready=True, connected=True, source="control plane")
            assert (await front.ask("bp_stranger")).status == 401


@pytest.mark.parametrize("damage", ["cut", "changed"])
async def test_a_damaged_snapshot_file_is_said_and_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    file = tmp_path / "snapshot"
    async with open_world(tmp_path) as world:
        await fill(world, file)
        data = file.read_bytes()
        middle = len(data) // 2
        changed = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        file.write_bytes({"cut": data[:-1], "changed": changed}[damage])
        down(world)
        async with world.front(snapshot_file=file) as front:
            assert (await front.ask()).code == "not_ready"
            assert "snapshot file ignored: it is damaged" in caplog.text
            world.proxy.heal()
            await front.converge(world.north, "a start with a damaged snapshot file")
        assert "5ecre7" not in caplog.text
        down(world)
        async with world.front(snapshot_file=file) as front:  # it was written anew
            assert (await front.ask()).model == "m@north"


async def test_a_client_who_was_removed_while_the_gateway_was_down_is_refused_once_it_can_ask(
    tmp_path: Path,
) -> None:
    async with open_world(tmp_path) as world:
        await fill(world, tmp_path / "snapshot")
        down(world)
        await world.store.remove_client(ADA, "ann")
        async with world.front(snapshot_file=tmp_path / "snapshot") as front:
            assert (await front.ask()).status == 200
            world.proxy.heal()
            await front.wait_ready(ready=True, connected=True)
            assert (await front.ask()).status == 401


async def test_too_old_a_snapshot_file_is_served_and_not_ready_across_restarts(
    tmp_path: Path,
) -> None:
    file = tmp_path / "snapshot"
    async with open_world(tmp_path) as world:
        await fill(world, file)
        saved = decode_snapshot(file.read_bytes(), None)
        file.write_bytes(encode_snapshot(attrs.evolve(saved, known_age=7200.0), None))
        down(world)
        for _ in range(2):
            async with world.front(snapshot_file=file, max_stale=3600.0) as front:
                answer = await front.ready()
                assert (answer.status, answer.document["source"]) == (503, "snapshot file")
                assert answer.document["reason"] == "the providers are too old"
                assert float(str(answer.document["age"])) >= 7200
                assert (await front.ask()).status == 200
        async with world.front(snapshot_file=file, max_stale=3600.0) as front:
            world.proxy.heal()
            await front.wait_ready(ready=True, connected=True)


async def test_providers_that_were_not_confirmed_for_too_long_make_it_not_ready(
    tmp_path: Path,
) -> None:
    async with open_world(tmp_path) as world, world.loaded(max_stale=1.0) as (front, _):
        # Confirmed by the poll as long as there is a connection, though nothing changes.
        status = front.gateway.reload_status
        attempts = status.attempts
        await wait_until(lambda: status.attempts >= attempts + 4)
        assert status.staleness < 1
        assert (await front.ready()).status == 200
        down(world)
        answer = await front.wait_ready(ready=False, connected=False)
        assert answer.document["reason"] == "the providers are too old"
        assert float(str(answer.document["age"])) >= 1
        assert (await front.ask()).model == "m@north", "it serves all the same"
        await world.point_at(world.south)
        world.proxy.heal()
        await front.converge(world.south, "too long a loss of the control plane")
        await front.wait_ready(ready=True, connected=True)


async def test_a_client_is_in_the_snapshot_file_before_a_crash_could_forget_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridgepool.gateway.sources._snapshot_file._LOOK_INTERVAL", 0.05)
    file, copy = tmp_path / "snapshot", tmp_path / "copy"
    async with open_world(tmp_path) as world:
        async with world.front(snapshot_file=file) as front:
            await wait_until(file.exists)
            size = file.stat().st_size
            assert (await front.ask()).status == 200
            await wait_until(lambda: file.stat().st_size > size)
            copy.write_bytes(file.read_bytes())  # what a crash would leave
            copy.chmod(0o600)
        down(world)
        async with world.front(snapshot_file=copy) as front:
            assert (await front.ask()).model == "m@north"
