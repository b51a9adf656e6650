"""One provider of ten that a gateway cannot use: nine are served, and the writer is told."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import trio

from bridgepool.gateway.demo._upstream import SimulatedUpstream
from tests.system.asking import Front, Home
from tests.system.command import run_to_end
from tests.system.load import open_load
from tests.system.rig import control_source, make_home, open_front, open_plane, store_source

SECRET = "sk-that-cannot-be-read"


async def add_ten(home: Home, upstream: SimulatedUpstream) -> None:
    """Add ``ai`` and nine others."""
    for name in ("ai", *(f"row-{number}" for number in range(1, 10))):
        await home.add(name, upstream, SECRET)


async def wait_rejected(home: Home, revision: int) -> list[dict[str, str]]:
    """Wait until the gateway has told what it made of a revision, and return what it rejected."""
    [row] = await home.wait_applied(revision)
    assert row["state"] == "rejected", row
    rejected = row["rejected"]
    assert isinstance(rejected, list)
    return rejected


async def serves(front: Front, identity: str, *numbers: int) -> None:
    for number in numbers:
        assert await front.outcome(f"row-{number}") == identity


def spoil(path: Path, change: str) -> None:
    """Change rows behind the store's back, and have everybody read anew."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(change)
        connection.execute(
            "UPDATE state SET revision = revision + 1, providers_revision = revision + 1"
        )
        connection.commit()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("UPDATE providers SET sealed = 'bad' WHERE name = 'row-3'", "is damaged"),
        ("UPDATE providers SET type = 'from-the-future' WHERE name = 'row-3'", "known types"),
    ],
)
async def test_a_row_that_went_bad_in_the_store_is_served_as_it_was(
    tmp_path: Path, north: SimulatedUpstream, south: SimulatedUpstream, change: str, reason: str
) -> None:
    home = await make_home(tmp_path)
    async with open_plane(home) as plane:
        await add_ten(home, north)
        async with (
            open_front(home, control_source(home)) as (standalone, _),
            open_front(home, store_source(home)) as (embedded, _),
        ):
            for front in (standalone, embedded):
                await front.wait_outcome("north", "row-9")
            async with (
                open_load(standalone.url, standalone.key),
                open_load(embedded.url, embedded.key),
            ):
                await trio.to_thread.run_sync(spoil, tmp_path / "store.db", change)
                # A good row of the same moment, so that there is something to wait for.
                revision = await home.change("row-4", base_url=south.openai_url)
                for front in (standalone, embedded):
                    await front.wait_outcome("south", "row-4")
                    await serves(front, "north", 1, 2, 3, 5, 6, 7, 8, 9)
                [row] = await wait_rejected(home, revision)
                assert row["name"] == "row-3"
                assert reason in row["reason"]
                assert SECRET not in json.dumps(row)
            where = ("--url", f"http://127.0.0.1:{home.api_port}")
            key = ("--admin-key-file", str(home.admin_file))
            disable = ("disable", "row-5", "--wait", "15")
            command = await run_to_end("providers", *disable, *where, *key)
            assert command.status == 1
            assert "rejected" in command.everything
            assert "row-3: " in command.everything
            assert reason in " ".join(command.everything.split())  # a table wraps its cells
        # One that starts now has no good form of it, and serves the nine.
        async with open_front(home, control_source(home)) as (front, _):
            await front.wait_outcome("south", "row-4")
            await serves(front, "north", 1, 2, 6, 7, 8, 9)
            assert await front.outcome("row-3") == "provider_misconfigured"
            assert plane.hub.status().read_problem is None


async def test_a_variable_that_is_not_set_costs_its_provider_and_no_other(
    tmp_path: Path, north: SimulatedUpstream, south: SimulatedUpstream
) -> None:
    home = await make_home(tmp_path)
    async with open_plane(home):
        await add_ten(home, north)
        async with open_front(home, control_source(home)) as (front, _):
            await front.wait_outcome("north", "row-9")
            async with open_load(front.url, front.key):
                revision = await home.change("row-3", keys=[], key_env="BRIDGEPOOL_NOT_SET")
                [row] = await wait_rejected(home, revision)
                assert row["name"] == "row-3"
                assert "BRIDGEPOOL_NOT_SET" in row["reason"]
                await serves(front, "north", 1, 2, 4, 5, 6, 7, 8, 9)
                assert await front.outcome("row-3") == "north"  # by its last good form
                # It is made good, and that is told, too.
                revision = await home.change("row-3", key_env=None, base_url=south.openai_url)
                [told] = await home.wait_applied(revision)
                assert told["state"] == "applied"
                assert await front.outcome("row-3") == "south"
