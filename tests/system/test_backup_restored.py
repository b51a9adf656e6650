"""A backup is put back under a control plane and gateways that were further already.

Nobody goes back by itself: what was in force serves on, whoever writes is told so, and a restart
takes up what the backup holds.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import AsyncExitStack, closing
from pathlib import Path

import trio

from bridgepool.gateway.control._records import Actor, ProviderPatch
from bridgepool.gateway.demo._upstream import SimulatedUpstream
from bridgepool.http import open_upstream_client
from tests.e2e.process import run_command
from tests.postgres import PostgresServer
from tests.system.asking import Home
from tests.system.load import open_load
from tests.system.rig import (
    control_source,
    make_home,
    open_front,
    open_home_store,
    open_plane,
    store_source,
)

ADA = Actor("program", "ada")


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
    with trio.fail_after(15):
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
        old = await home.add("ai", north, "sk-1")
    await trio.to_thread.run_sync(server.execute, f"CREATE DATABASE backup TEMPLATE {name}")

    def put_back() -> None:
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")
        server.execute(f"ALTER DATABASE backup RENAME TO {name}")

    async with open_plane(home):
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
            await trio.to_thread.run_sync(put_back)
            assert "went back to an earlier revision" in await wait_unready(home)
            for front in (standalone, embedded):
                assert await front.outcome() == "south"
            # A change is made, and nobody says that it is live.
            async with open_home_store(home) as store:
                patch = ProviderPatch(enabled=False)
                change = await store.update_provider(ADA, "ai", patch, allow_empty=True)
            assert old < change.revision < new
            path = f"/api/v1/revisions/{change.revision}/applied?wait=1"
            status, said = await api_answers(home, path)
            assert status == 503
            assert "restart the control planes and the gateways" in said
            for front in (standalone, embedded):
                assert await front.outcome() == "south"
    # All restarted.
    async with (
        open_plane(home),
        open_front(home, control_source(home)) as (standalone, _),
        open_front(home, store_source(home)) as (embedded, _),
    ):
        for front in (standalone, embedded):
            await front.wait_outcome("provider_disabled")


def copy_store(path: Path, backup: Path) -> None:
    """Make a backup, as SQLite says that it is to be made."""
    with closing(sqlite3.connect(path)) as connection, closing(sqlite3.connect(backup)) as copy:
        connection.backup(copy)


def put_in_place(backup: Path, path: Path) -> None:
    """Put a backup in the place of a store that nobody has open."""
    os.replace(backup, path)
    for side in ("-wal", "-shm"):
        path.with_name(path.name + side).unlink(missing_ok=True)


async def test_in_sqlite_under_what_runs(
    tmp_path: Path, north: SimulatedUpstream, south: SimulatedUpstream
) -> None:
    path, backup = tmp_path / "store.db", tmp_path / "backup.db"
    home = await make_home(tmp_path, str(path))
    async with (
        open_plane(home, poll_interval=0.5),
        open_front(home, control_source(home)) as (front, _),
    ):
        await home.add("ai", north, "sk-1")
        copy_store(path, backup)
        await home.change("ai", base_url=south.openai_url)
        await front.wait_outcome("south")
        async with open_load(front.url, front.key):
            os.replace(backup, path)
            said = await wait_unready(home)
            assert "another file was put in the place of the store" in said
            assert "restart to use it" in said
            assert await front.outcome() == "south"


async def test_a_gateway_that_is_further_than_the_store_counts_as_pending(
    tmp_path: Path, north: SimulatedUpstream, south: SimulatedUpstream
) -> None:
    path, backup = tmp_path / "store.db", tmp_path / "backup.db"
    home = await make_home(tmp_path, str(path))
    async with open_plane(home):
        await home.add("ai", north, "sk-1")
        copy_store(path, backup)
        for upstream in (south, north, south, north, south):
            new = await home.change("ai", base_url=upstream.openai_url)
    async with open_front(home, control_source(home)) as (front, _):
        async with open_plane(home):
            await front.wait_outcome("south")  # and so the client is known
        put_in_place(backup, path)
        async with open_load(front.url, front.key), open_plane(home) as plane:
            await front.wait_ready(ready=True, connected=True)
            change = await home.change("ai", enabled=False)
            assert change < new
            report = await plane.hub.wait_applied(change, 0.5)
            assert [(row.state, row.revision) for row in report.gateways] == [("pending", new)]
            assert await front.outcome() == "south"
            # The same from the store itself, as the command line asks it.
            where = ("--store", str(path), "--encryption-key-file", str(home.encryption_file))
            change_it = ("update", "ai", "--base-url", north.openai_url, "--wait", "0.5")
            async with run_command("providers", *change_it, *where) as command:
                assert await command.wait() == 1
                await command.stdout.wait_end()
            assert any(line.split()[2:4] == ["pending", str(new)] for line in command.stdout.lines)
            # Enough changes later the store is further, and the gateway follows again.
            while change <= new:
                url = (north if change % 2 else south).openai_url + f"/{change}"
                change = await home.change("ai", base_url=url, enabled=True)
            await home.change("ai", base_url=north.openai_url)
            await front.wait_outcome("north")
