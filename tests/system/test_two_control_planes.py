"""Two control planes on one PostgreSQL: one writes, the gateways are at the other."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from bridgepool.gateway.control._hub import Hub
from bridgepool.gateway.control.store import GatewayExpiry
from bridgepool.gateway.demo._upstream import SimulatedUpstream
from bridgepool.gateway.serving._listening import Address, open_listeners
from bridgepool.transports.websocket import serve_websockets
from tests.ports import free_port
from tests.postgres import PostgresServer
from tests.system.asking import GENEROUS, Front, Home
from tests.system.command import run_to_end
from tests.system.load import open_load
from tests.system.rig import (
    Plane,
    control_source,
    make_home,
    open_front,
    open_plane,
    run_plane,
)


@pytest.fixture
def url(postgres_server: PostgresServer) -> str:
    return postgres_server.create_database()


async def another(home: Home) -> Home:
    """Return another control plane's home on the same store, with the same keys."""
    return attrs.evolve(home, api_port=free_port(), rpc_port=free_port())


@asynccontextmanager
async def open_two(
    folder: Path, url: str, north: SimulatedUpstream
) -> AsyncIterator[tuple[Plane, Plane, Front]]:
    """Open two, and a gateway of the second one, which serves what was added through the first."""
    home = await make_home(folder, url)
    async with open_plane(home) as one, open_plane(await another(home)) as other:
        await home.add("ai", north, "sk-1")
        async with open_front(other.home, control_source(other.home)) as (front, _):
            await front.wait_ready(ready=True, connected=True)
            await front.wait_outcome("north")
            await wait_connected(one.hub, True)
            yield one, other, front


async def wait_connected(hub: Hub, connected: bool) -> float:
    """Wait until a control plane says that of its one gateway; return how long it took."""
    began = trio.current_time()
    with trio.fail_after(GENEROUS):
        while [row.connected for row in await hub.gateways()] != [connected]:  # noqa: ASYNC110
            await trio.sleep(0.02)
    return trio.current_time() - began


async def test_a_change_through_one_is_served_by_a_gateway_of_the_other_and_told_to_the_writer(
    url: str, tmp_path: Path, north: SimulatedUpstream, south: SimulatedUpstream
) -> None:
    async with (
        open_two(tmp_path, url, north) as (one, other, front),
        open_load(front.url, front.key),
    ):
        for writer, upstream in ((one, south), (other, north), (one, south)):
            revision = await writer.home.change("ai", base_url=upstream.openai_url)
            took = await front.wait_outcome(upstream.identity)
            print(f"converged: {took:.3f} s after a change through a control plane")
            began = trio.current_time()
            [row] = await one.home.wait_applied(revision)
            assert (row["state"], row["revision"]) == ("applied", revision)
            took = trio.current_time() - began
            print(f"converged: {took:.3f} s until the writer was told")


async def test_the_command_waits_for_the_gateways_of_the_other(
    url: str, tmp_path: Path, north: SimulatedUpstream, south: SimulatedUpstream
) -> None:
    async with open_two(tmp_path, url, north) as (one, _, front):
        url = f"http://127.0.0.1:{one.home.api_port}"
        where = ("--url", url, "--admin-key-file", str(one.home.admin_file))
        change = ("update", "ai", "--base-url", south.openai_url, "--wait", "15")
        command = await run_to_end("providers", *change, *where)
        assert command.status == 0, command.everything
        # What the command said is so at once.
        assert await front.outcome() == "south"
        [row] = [line for line in command.out.splitlines() if " applied " in f"{line} "]
        assert row.split()[0] == "first", command.everything  # the name of the gateway's key


async def test_a_gateway_that_is_rejected_a_row_at_one_is_told_of_at_the_other(
    url: str,
    tmp_path: Path,
    north: SimulatedUpstream,
) -> None:
    async with open_two(tmp_path, url, north) as (one, _, front):
        revision = await one.home.add("by-env", north, key_env="BRIDGEPOOL_NOT_SET")
        [row] = await one.home.wait_applied(revision)
        assert row["state"] == "rejected"
        assert "BRIDGEPOOL_NOT_SET" in json.dumps(row["rejected"])
        assert await front.outcome() == "north"


async def test_a_gateway_moves_to_the_other_when_one_is_killed_and_never_goes_back(
    url: str, tmp_path: Path, north: SimulatedUpstream, south: SimulatedUpstream
) -> None:
    home = await make_home(tmp_path, url)
    second = await another(home)
    seen: list[int] = []
    async with open_plane(second) as other, run_plane(home) as killed:
        await home.add("ai", north, "sk-1")
        async with open_front(home, control_source(home)) as (front, gateway):
            await front.wait_ready(ready=True, connected=True)
            await front.wait_outcome("north")
            await wait_connected(other.hub, True)
            [before] = await other.hub.gateways()

            async def watch() -> None:
                while True:
                    seen.append(gateway.pool.snapshot.revision or 0)
                    await trio.sleep(0.002)

            async with open_load(front.url, front.key), trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                killed.signal(signal.SIGKILL)
                await killed.wait()
                await front.wait_ready(ready=True, connected=False)
                revision = await second.change("ai", base_url=south.openai_url)
                # Nobody can know yet that it is gone: the writer is told that it did not answer.
                [row] = (await other.hub.wait_applied(revision, 0)).gateways
                assert row.state == "pending"
                assert await front.outcome() == "north"
                # The address of the dead one is given to the other.
                rpc = await open_listeners([Address("127.0.0.1", home.rpc_port)], None)
                serve = partial(serve_websockets, other.service.serve, admit=other.service.admit)
                await nursery.start(serve, rpc)
                took = await front.wait_outcome("south")
                print(f"converged: {took:.3f} s after another control plane took over")
                [told] = await second.wait_applied(revision)
                assert told["state"] == "applied"
                [after] = await other.hub.gateways()
                assert after.instance == before.instance
                assert after.control_plane != before.control_plane
                nursery.cancel_scope.cancel()
    assert seen == sorted(seen)
    assert seen[-1] == revision


async def test_the_gateways_of_one_that_was_killed_are_offline_after_the_limit(
    url: str,
    tmp_path: Path,
    north: SimulatedUpstream,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = await make_home(tmp_path, url)
    second = await another(home)
    async with open_plane(second) as other, run_plane(home) as killed:
        await home.add("ai", north, "sk-1")
        async with open_front(home, control_source(home)) as (front, _):
            await front.wait_ready(ready=True, connected=True)
            await front.wait_outcome("north")
            await wait_connected(other.hub, True)
            killed.signal(signal.SIGKILL)
            await killed.wait()
            assert (await other.hub.gateways())[0].connected
            # The other's own look at who is stale, with a shorter limit than its 35 s.
            expire = partial(
                other.store.expire_gateways, GatewayExpiry(stale_after=1.5, reconnect_within=1.5)
            )
            began = trio.current_time()
            with trio.fail_after(GENEROUS):
                while not await expire():  # noqa: ASYNC110
                    await trio.sleep(0.1)
            took = trio.current_time() - began
            print(f"converged: {took:.3f} s until it was offline (limit: 1.5 s)")
            assert took >= 1
            [reconnecting] = await other.hub.gateways()
            assert (reconnecting.connected, reconnecting.reconnecting) == (False, True)
            with trio.fail_after(GENEROUS):
                while not await expire():  # noqa: ASYNC110
                    await trio.sleep(0.1)
            revision = await second.change("ai", enabled=False)
            [row] = await second.wait_applied(revision)
            assert row["state"] == "offline"
            assert row["revision"] == revision - 1
