"""A gateway that is cut off by the network is waited for; one that was stopped is not."""

from __future__ import annotations

from pathlib import Path

import trio

from bridgepool.gateway.demo._upstream import SimulatedUpstream
from bridgepool.testing import open_fault_proxy
from tests.system.asking import GENEROUS
from tests.system.rig import (
    Plane,
    control_source,
    make_home,
    open_front,
    open_home_store,
    open_plane,
    run_front,
)


async def wait_connected(plane: Plane, count: int) -> None:
    """Wait until the control plane knows that so many gateways are connected."""
    with trio.fail_after(GENEROUS):
        while sum(one.connected for one in await plane.hub.gateways()) != count:  # noqa: ASYNC110
            await trio.sleep(0.01)


async def test_a_gateway_that_the_network_cut_off_is_waited_for_and_one_that_stopped_is_not(
    tmp_path: Path, north: SimulatedUpstream, south: SimulatedUpstream
) -> None:
    """It counted as offline while it was in its back-off, and the change as applied."""
    home = await make_home(tmp_path)
    async with (
        open_plane(home) as plane,
        open_fault_proxy("127.0.0.1", home.rpc_port) as proxy,
        run_front(home, *home.standalone()) as (stays, stopped),
        open_front(home, control_source(home, port=proxy.port)) as (front, _),
    ):
        await home.add("ai", north, "sk-1")
        for each in (stays, front):
            await each.wait_outcome("north")
        proxy.refuse()
        proxy.cut()
        await wait_connected(plane, 1)
        change = await home.change("ai", base_url=south.openai_url)
        await stays.wait_outcome("south")
        report = await plane.hub.wait_applied(change, 0.5)
        assert {one.state for one in report.gateways} == {"applied", "reconnecting"}
        assert (report.complete, report.applied) == (False, False)
        proxy.heal()
        assert (await plane.hub.wait_applied(change, GENEROUS)).applied
        await stopped.stop()
        await wait_connected(plane, 1)
        assert (await plane.hub.wait_applied(change, 0)).applied
        [gone] = [one for one in await plane.hub.gateways() if not one.connected]
        assert (gone.stopped, gone.reconnecting) == (True, False)


async def test_a_gateway_whose_control_plane_stopped_is_expected_back(
    tmp_path: Path, north: SimulatedUpstream
) -> None:
    home = await make_home(tmp_path)
    async with open_plane(home):
        await home.add("ai", north, "sk-1")
    async with open_front(home, control_source(home)) as (front, _):
        async with open_plane(home):
            await front.wait_outcome("north")
        async with open_home_store(home) as store:
            [row] = await store.list_gateways()
        assert (row.connected, row.reconnecting, row.stopped) == (False, True, False)
