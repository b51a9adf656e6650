"""A backup is put back under a control plane and gateways that were further already.

They go back with it, whether or not somebody says so by `bridgepool store restored`: nothing is
restarted, nothing is cut, and what was concluded from lost revisions holds no more.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import AsyncExitStack, closing
from pathlib import Path

import trio

from bridgepool.gateway._options import GatewayOptions
from bridgepool.gateway._process import open_source
from bridgepool.gateway.control._encryption import add_encryption_key, promote_encryption_key
from bridgepool.gateway.control._records import Actor
from bridgepool.gateway.demo._upstream import SimulatedUpstream
from bridgepool.http import open_upstream_client
from tests.postgres import PostgresServer
from tests.system.asking import Home
from tests.system.command import run_to_end
from tests.system.load import open_load
from tests.system.rig import (
    control_source,
    make_home,
    open_front,
    open_home_store,
    open_plane,
    store_source,
)


async def api_answers(home: Home, path: str) -> tuple[int, str]:
    """Ask the API, and return the status and the text."""
    token = f"Bearer {home.admin_file.read_text().strip()}".encode()
    pieces = []
    async with (
        open_upstream_client(f"http://127.0.0.1:{home.api_port}") as client,
        client.request(b"GET", path.encode(), ((b"authorization", token),)) as response,
    ):
        while piece := await response.receive_some():
            pieces.append(piece)
        return response.status, b"".join(pieces).decode()


async def wait_unready(home: Home) -> str:
    """Wait until the control plane says that it is not ready; return why."""
    with trio.fail_after(60):
        while (answer := await api_answers(home, "/readyz"))[0] != 503:  # noqa: ASYNC110
            await trio.sleep(0.01)
        return answer[1]


async def test_in_postgresql_under_what_runs(
    own_postgres_server: PostgresServer,
    tmp_path: Path,
    north: SimulatedUpstream,
    south: SimulatedUpstream,
) -> None:
    server = own_postgres_server
    url = server.create_database()
    name = url.rpartition("/")[2]
    home = await make_home(tmp_path, url)
    async with open_plane(home):
        await home.add("ai", north, "sk-1")
    await trio.to_thread.run_sync(server.execute, f"CREATE DATABASE backup TEMPLATE {name}")

    def put_back() -> None:
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")
        server.execute(f"ALTER DATABASE backup RENAME TO {name}")

    async with open_plane(home, poll_interval=0.5) as plane:
        for upstream in (south, north, south):
            new = await home.change("ai", base_url=upstream.openai_url)
        async with (
            open_front(home, control_source(home)) as (standalone, _),
            open_front(home, store_source(home)) as (embedded, _),
            AsyncExitStack() as stack,
        ):
            for front in (standalone, embedded):
                await front.wait_outcome("south")
            await stack.enter_async_context(open_load(standalone.url, standalone.key))
            await stack.enter_async_context(open_load(embedded.url, embedded.key))
            async with standalone.stream() as stream:
                await trio.to_thread.run_sync(put_back)
                for front in (standalone, embedded):
                    await front.wait_outcome("north")
                assert await stream.finish() == "south"
            change = await home.change("ai", base_url=south.openai_url)
            assert change <= new
            report = await plane.hub.wait_applied(change, 10)
            assert [(row.state, row.revision) for row in report.gateways] == [("applied", change)]
            for front in (standalone, embedded):
                await front.wait_outcome("south")


def copy_store(path: Path, backup: Path) -> None:
    """Make a backup, as SQLite says that it is to be made."""
    with closing(sqlite3.connect(path)) as connection, closing(sqlite3.connect(backup)) as copy:
        connection.backup(copy)


def put_in_place(backup: Path, path: Path) -> None:
    """Put a backup in the place of a store that nobody has open."""
    os.replace(backup, path)
    for side in ("-wal", "-shm"):
        path.with_name(path.name + side).unlink(missing_ok=True)


async def test_in_sqlite_under_what_runs_by_the_two_commands_of_the_page(
    tmp_path: Path, north: SimulatedUpstream, south: SimulatedUpstream
) -> None:
    path, backup = tmp_path / "store.db", tmp_path / "backup.db"
    home = await make_home(tmp_path, str(path))
    async with (
        open_plane(home) as plane,
        open_front(home, control_source(home)) as (standalone, _),
        open_front(home, store_source(home)) as (embedded, _),
        AsyncExitStack() as stack,
    ):
        await home.add("ai", north, "sk-1")
        with trio.fail_after(60):  # the store that comes back knows the gateway
            while not await plane.store.list_gateways():  # noqa: ASYNC110
                await trio.sleep(0.01)
        copy_store(path, backup)
        for upstream in (south, north, south):
            new = await home.change("ai", base_url=upstream.openai_url)
        fronts = (standalone, embedded)
        for front in fronts:
            await front.wait_outcome("south")
            await stack.enter_async_context(open_load(front.url, front.key))
        async with standalone.stream() as stream:
            await trio.to_thread.run_sync(copy_store, backup, path)
            where = ("--store", str(path), "--encryption-key-file", str(home.encryption_file))
            command = await run_to_end("store", "restored", "--wait", "10", *where)
            assert command.status == 0, command.everything
            for front in fronts:
                await front.wait_outcome("north")
            assert await stream.finish() == "south"
        assert any("applied" in line.split() for line in command.out.splitlines())
        assert await home.change("ai", base_url=south.openai_url) <= new
        for front in fronts:
            await front.wait_outcome("south")


async def test_a_backup_under_a_dropped_encryption_key_is_noticed_by_what_runs(
    tmp_path: Path, north: SimulatedUpstream
) -> None:
    """It said that it was ready with 0 unreadable providers, though no restart could read one."""
    path, backup = tmp_path / "store.db", tmp_path / "backup.db"
    home = await make_home(tmp_path, str(path))
    async with open_plane(home):
        await home.add("ai", north, "sk-1")
    copy_store(path, backup)
    add_encryption_key(home.encryption_file)
    both = promote_encryption_key(home.encryption_file)
    async with open_home_store(home) as store:
        await store.rotate_encryption(Actor("local", "ada"))
    home.encryption_file.write_text(both.keys[0].reveal())
    async with (
        open_plane(home, poll_interval=0.5),
        open_front(home, control_source(home)) as (standalone, _),
        open_front(home, store_source(home)) as (embedded, _),
    ):
        for front in (standalone, embedded):
            await front.wait_outcome("north")
        await trio.to_thread.run_sync(copy_store, backup, path)
        with trio.fail_after(60):
            while '"unreadable":1' not in (await api_answers(home, "/readyz"))[1]:  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert (await api_answers(home, "/readyz"))[0] == 200
        for front in (standalone, embedded):  # the last good form
            await front.wait_outcome("north")


async def test_another_file_in_the_place_of_the_store_is_reported_and_not_used(
    tmp_path: Path, north: SimulatedUpstream, south: SimulatedUpstream
) -> None:
    path, backup = tmp_path / "store.db", tmp_path / "backup.db"
    home = await make_home(tmp_path, str(path))
    async with (
        open_plane(home, poll_interval=0.5) as plane,
        open_front(home, control_source(home)) as (front, _),
    ):
        await home.add("ai", north, "sk-1")
        copy_store(path, backup)
        await home.change("ai", base_url=south.openai_url)
        await front.wait_outcome("south")
        async with open_load(front.url, front.key):
            os.replace(backup, path)
            await wait_unready(home)
            said = plane.hub.status().read_problem or ""
            assert "another file was put in the place of the store" in said
            assert "restart to use it" in said
            assert await front.outcome() == "south"


async def test_a_gateway_tells_a_new_control_plane_that_the_store_went_back(
    tmp_path: Path, north: SimulatedUpstream, south: SimulatedUpstream
) -> None:
    """Revoked keys stayed good and new ones got 503: the gateway kept its higher revisions."""
    path, backup = tmp_path / "store.db", tmp_path / "backup.db"
    home = await make_home(tmp_path, str(path))
    async with open_plane(home):
        await home.add("ai", north, "sk-1")
        copy_store(path, backup)
        for number in range(5):
            await home.api("POST", "clients", {"id": f"lost-{number}"})
        lost = (await home.api("POST", "clients", {"id": "lost"}))["key"]
        new = await home.change("ai", base_url=south.openai_url)
    async with open_front(home, control_source(home)) as (front, _):
        async with open_plane(home):
            await front.wait_outcome("south")  # and so the client is known
            assert (await front.ask(key=lost)).status == 200
        put_in_place(backup, path)
        async with open_load(front.url, front.key), open_plane(home) as plane:
            await front.wait_outcome("north")
            assert (await front.ask(key=lost)).status == 401
            added = await home.api("POST", "clients", {"id": "after"})
            assert added["revision"] < new
            await home.wait_applied(added["revision"])
            assert (await front.ask(key=added["key"])).status == 200
            gone = await home.api("DELETE", "clients/after")
            await home.wait_applied(gone["revision"])
            assert (await front.ask(key=added["key"])).status == 401
            report = await plane.hub.wait_applied(gone["revision"], 10)
            assert [row.state for row in report.gateways] == ["applied"]


async def test_a_gateway_started_from_its_snapshot_file_tells_it_too(
    tmp_path: Path, north: SimulatedUpstream, south: SimulatedUpstream
) -> None:
    path, backup = tmp_path / "store.db", tmp_path / "backup.db"
    home = await make_home(tmp_path, str(path))
    options = GatewayOptions(
        control=f"ws://127.0.0.1:{home.rpc_port}", key_file=home.gateway_file, name="front",
        snapshot_file=tmp_path / "snapshot",
    )  # fmt: skip
    async with open_plane(home):
        await home.add("ai", north, "sk-1")
        copy_store(path, backup)
        await home.change("ai", base_url=south.openai_url)
        async with open_front(home, open_source(options, allow_anonymous=False)) as (front, _):
            await front.wait_outcome("south")
    put_in_place(backup, path)
    async with open_front(home, open_source(options, allow_anonymous=False)) as (front, _):
        await front.wait_outcome("south")  # from the file, while no control plane runs
        async with open_plane(home):
            await front.wait_outcome("north")
