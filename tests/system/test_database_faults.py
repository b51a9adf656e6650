"""What can become of the database under a control plane and an embedded gateway.

Two gateways are asked all the time, and none of their requests fails: one follows the control
plane, one has the store itself. A change that is made in or after the fault reaches both.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar, cast

import attrs
import pytest
import trio

from bridgepool.gateway._options import GatewayOptions
from bridgepool.gateway.control._encryption import read_encryption_keys
from bridgepool.gateway.control._records import Actor, ProviderPatch
from bridgepool.gateway.control.database import Database, Transaction, open_database
from bridgepool.gateway.control.store import Store
from bridgepool.gateway.control.store._keyring import Keyring
from bridgepool.gateway.control.store._provider_settings import Rules
from bridgepool.gateway.control.store._schema import MIGRATIONS
from bridgepool.gateway.demo._upstream import SimulatedUpstream
from bridgepool.gateway.providers import PROVIDER_TYPES
from tests.e2e.process import run_command
from tests.postgres import PostgresServer
from tests.system.asking import Front, Home
from tests.system.load import open_load
from tests.system.rig import (
    Plane,
    control_source,
    make_home,
    open_front,
    open_home_store,
    open_plane,
    store_source,
)

T = TypeVar("T")
ADA = Actor("program", "ada")


@attrs.frozen
class World:
    """A control plane, and two gateways that are asked all the time."""

    home: Home
    plane: Plane
    fronts: dict[str, Front]

    async def converge(self, outcome: str, what: str) -> None:
        """Wait until both gateways serve that, and say how long it took from now on."""
        async with trio.open_nursery() as nursery:
            for kind in self.fronts:
                nursery.start_soon(self._converge, kind, outcome, what)

    async def _converge(self, kind: str, outcome: str, what: str) -> None:
        took = await self.fronts[kind].wait_outcome(outcome)
        print(f"converged: {took:.3f} s after {what}, {kind}")

    async def serve(self, outcome: str) -> None:
        """See that both serve that."""
        for front in self.fronts.values():
            assert await front.outcome() == outcome


@asynccontextmanager
async def open_world(
    folder: Path, url: str, north: SimulatedUpstream, *, poll: float = 2.0
) -> AsyncIterator[World]:
    """Open both, with a store that is polled so often, in seconds."""
    home = await make_home(folder, url)
    embedded = GatewayOptions(store=url, drain_timeout=5, max_stale=3 * poll)
    async with open_plane(home, poll_interval=poll) as plane:
        await home.add("ai", north, "sk-1")
        async with (
            open_front(home, control_source(home)) as (standalone, _),
            open_front(home, store_source(home), embedded) as (on_the_store, _),
        ):
            await standalone.wait_ready(ready=True, connected=True)
            await standalone.wait_outcome("north")  # its control plane has read that, too
            async with (
                open_load(standalone.url, standalone.key),
                open_load(on_the_store.url, on_the_store.key),
            ):
                fronts = {"standalone": standalone, "embedded": on_the_store}
                yield World(home, plane, fronts)


async def test_postgresql_is_restarted(
    own_postgres_server: PostgresServer,
    tmp_path: Path,
    north: SimulatedUpstream,
    south: SimulatedUpstream,
) -> None:
    url = own_postgres_server.create_database()
    async with open_world(tmp_path, url, north) as world:
        await trio.to_thread.run_sync(own_postgres_server.stop)
        await world.serve("north")
        await trio.to_thread.run_sync(own_postgres_server.start)
        await world.home.change("ai", base_url=south.openai_url)
        await world.converge("south", "a restart of PostgreSQL and a change by the API")
        async with open_home_store(world.home) as other:
            patch = ProviderPatch(base_url=north.openai_url)
            await other.update_provider(ADA, "ai", patch)
        await world.converge("north", "a restart of PostgreSQL and a change from elsewhere")


async def test_postgresql_is_frozen_for_a_while(
    own_postgres_server: PostgresServer,
    tmp_path: Path,
    north: SimulatedUpstream,
    south: SimulatedUpstream,
) -> None:
    url = own_postgres_server.create_database()
    async with open_world(tmp_path, url, north) as world:
        own_postgres_server.freeze()
        changed = trio.Event()

        async def change() -> None:
            await world.home.change("ai", base_url=south.openai_url)
            changed.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(change)
            await trio.sleep(1)
            await world.serve("north")
            assert not changed.is_set()
            own_postgres_server.thaw()
            await world.converge("south", "a second for which PostgreSQL was frozen")


async def test_a_gateway_that_has_a_standby_of_the_store_follows_it(
    own_postgres_server: PostgresServer,
    tmp_path: Path,
    north: SimulatedUpstream,
    south: SimulatedUpstream,
) -> None:
    url = own_postgres_server.create_database()
    home = await make_home(tmp_path, url)
    async with open_plane(home):
        await home.add("ai", north, "sk-1")
        with own_postgres_server.lend_standby() as standby:
            replica = url.replace(f":{own_postgres_server.port}/", f":{standby.port}/")
            reader = attrs.evolve(home, store_url=f"{replica}?target_session_attrs=any")
            options = GatewayOptions(store=reader.store_url, drain_timeout=5, max_stale=3.0)
            async with open_front(reader, store_source(reader), options) as (front, _):
                await front.wait_outcome("north")
                await home.change("ai", base_url=south.openai_url)
                await front.wait_outcome(
                    "south"
                )  # by a poll, each second: a standby gives no notices


async def test_the_connections_that_listen_are_ended_and_a_change_is_made_meanwhile(
    own_postgres_server: PostgresServer,
    tmp_path: Path,
    north: SimulatedUpstream,
    south: SimulatedUpstream,
) -> None:
    url = own_postgres_server.create_database()
    async with open_world(tmp_path, url, north) as world, open_home_store(world.home) as other:
        for upstream in (south, north, south):
            # The other store listens to nothing.
            assert own_postgres_server.cut_connections(url, like="LISTEN%") == 2
            patch = ProviderPatch(base_url=upstream.openai_url)
            await other.update_provider(ADA, "ai", patch)
            await world.converge(upstream.identity, "LISTEN was cut and a change made")


@attrs.frozen
class _MuteDatabase:
    """A database all of whose notices are lost."""

    _database: Database

    async def write(self, function: Callable[[Transaction], T]) -> T:
        return await self._database.write(lambda tx: function(Transaction(tx.run_statement)))


async def test_a_change_whose_notice_is_lost_is_found_by_the_poll(
    database_url: str, tmp_path: Path, north: SimulatedUpstream, south: SimulatedUpstream
) -> None:
    async with (
        open_world(tmp_path, database_url, north, poll=1.0) as world,
        open_database(database_url, MIGRATIONS) as database,
    ):
        keys = read_encryption_keys(world.home.encryption_file)
        await trio.sleep(0.5)  # who begins to listen is told once, and reads
        store = Store(
            cast("Database", _MuteDatabase(database)),
            Keyring(keys),
            lambda: 1_800_000_000.0,
            Rules(5, PROVIDER_TYPES),
        )
        await store.update_provider(ADA, "ai", ProviderPatch(base_url=south.openai_url))
        await world.converge("south", "a change without a notice (polls: 1 s)")


LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.readline()
"""


async def test_another_process_holds_the_file_locked_for_a_while(
    tmp_path: Path, north: SimulatedUpstream, south: SimulatedUpstream
) -> None:
    path = tmp_path / "store.db"
    async with open_world(tmp_path, f"sqlite:{path}", north) as world:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-c", LOCK, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdin is not None
        changed = trio.Event()

        async def change() -> None:
            await world.home.change("ai", base_url=south.openai_url)
            changed.set()

        async with trio.open_nursery() as nursery:
            told = b""
            while part := await process.stdout.receive_some(1):
                told += part
                if part == b"\n":
                    break
            assert told == b"locked\n"
            nursery.start_soon(change)
            await trio.sleep(1)
            assert not changed.is_set()
            # Who only reads does not wait.
            [row] = (await world.home.api("GET", "providers"))["providers"]
            assert row["base_url"] == north.openai_url
            await world.serve("north")
            await process.stdin.aclose()
            await world.converge("south", "a second for which the file was locked")
        await process.wait()


async def test_a_table_that_is_dropped_is_said_and_what_was_read_serves_on(
    tmp_path: Path,
    north: SimulatedUpstream,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "store.db"
    async with open_world(tmp_path, f"sqlite:{path}", north) as world:
        with sqlite3.connect(path) as connection:
            connection.execute("DROP TABLE providers")
            connection.execute("UPDATE state SET revision = revision + 1")
        connection.close()
        with trio.fail_after(60):
            while (problem := world.plane.hub.status().read_problem) is None:  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert "no such table: providers" in problem
        assert "put a backup in its place" in problem
        await world.serve("north")
    assert any("store unavailable" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("program", ["control-plane", "gateway"])
async def test_a_start_without_the_store_ends_at_once_and_says_why(
    own_postgres_server: PostgresServer, tmp_path: Path, program: str
) -> None:
    url = own_postgres_server.create_database()
    home = await make_home(tmp_path, url)
    own_postgres_server.stop()
    options = {
        "control-plane": home.plane_options(),
        "gateway": ("--encryption-key-file", str(home.encryption_file), "--listen", "127.0.0.1:0"),
    }[program]
    async with run_command(program, *options, env=home.environ) as run:
        assert await run.wait() == 2
        await run.stderr.wait_end()
    said = run.everything
    assert "--store: the store in PostgreSQL at 127.0.0.1" in said
    assert "refused" in said
    assert "pg-password-of-the-tests" not in said
    assert "Traceback" not in said
