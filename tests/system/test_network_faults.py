"""What a network can do between a gateway and its control plane, on real sockets.

In each test a known client is served all the time, blocking and streaming, and none of its
requests fails; a change that is made during the fault is served soon after its end.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from bridgepool.testing import Toward
from tests.system.faulty import LINE, Front, World, open_world
from tests.waiting import wait_until

ANOTHER_HEARTBEAT = 1.2 * LINE.heartbeat_timeout


async def serves_still(front: Front, world: World) -> None:
    assert (await front.ask()).model == f"m@{world.north.identity}"


@pytest.mark.parametrize("toward", [Toward.BOTH, Toward.TARGET, Toward.CLIENT])
async def test_a_connection_that_is_cut_is_made_again(tmp_path: Path, toward: Toward) -> None:
    async with open_world(tmp_path) as world, world.loaded() as (front, _):
        world.proxy.cut(toward)
        await world.point_at(world.south)
        # The side that was not told finds out by the heartbeat.
        await front.converge(world.south, f"a cut, told to {toward}")
        world.proxy.heal()
        await front.wait_ready(ready=True, connected=True)
        await world.point_at(world.north)
        await front.converge(world.north, "that was over")


async def test_connections_that_are_cut_again_and_again_are_made_again(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.loaded() as (front, _):
        for count in (0, 1, 100, 300, 600, 1000):
            world.proxy.cut_after(count, Toward.CLIENT)
            await trio.sleep(0.2)
            world.proxy.cut()
        await world.point_at(world.south)
        await front.converge(world.south, "six cuts in the middle of something")


@pytest.mark.parametrize("toward", [Toward.BOTH, Toward.TARGET, Toward.CLIENT])
async def test_a_connection_that_passes_nothing_is_given_up_by_the_heartbeat(
    tmp_path: Path, toward: Toward
) -> None:
    async with open_world(tmp_path) as world, world.loaded() as (front, load):
        world.proxy.black_hole(toward)
        await world.point_at(world.south)
        await front.wait_ready(connected=False, ready=True)
        if toward is not Toward.TARGET:  # towards the gateway the notice has passed
            await serves_still(front, world)
        await trio.sleep(ANOTHER_HEARTBEAT)
        assert load.slowest < 1.5
        world.proxy.heal()
        await front.converge(world.south, f"a black hole toward {toward}")
        # No session of before is left over.
        await wait_until(lambda: len(world.service.sessions) == 1)


async def test_a_black_hole_that_is_shorter_than_the_heartbeat_costs_no_session(
    tmp_path: Path,
) -> None:
    async with open_world(tmp_path) as world, world.loaded() as (front, _):
        accepted = world.proxy.statistics().accepted
        world.proxy.black_hole()
        await world.point_at(world.south)
        await trio.sleep(LINE.heartbeat_interval / 2)
        await serves_still(front, world)
        world.proxy.heal()
        await front.converge(world.south, "a short black hole")
        assert world.proxy.statistics().accepted == accepted


@pytest.mark.parametrize("toward", [Toward.TARGET, Toward.CLIENT])
async def test_a_connection_of_which_one_direction_was_ended_is_made_again(
    tmp_path: Path, toward: Toward
) -> None:
    async with open_world(tmp_path) as world, world.loaded() as (front, _):
        world.proxy.close_half(toward)
        await world.point_at(world.south)
        await front.converge(world.south, f"the end of the direction toward {toward}")


async def test_connections_that_are_refused_for_a_while_are_tried_again(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.loaded() as (front, _):
        world.proxy.refuse()
        world.proxy.cut()
        await front.wait_ready(connected=False, ready=True)
        await world.point_at(world.south)
        await world.wait_heard()
        await wait_until(lambda: world.proxy.statistics().refused >= 3)
        await serves_still(front, world)
        world.proxy.heal()
        await front.converge(world.south, "connections were refused")


async def test_a_slow_connection_serves_and_follows(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.loaded() as (front, _):
        world.proxy.delay(0.15)
        await world.point_at(world.south)
        await front.converge(world.south, "a change over a line of 0.15 s")
        world.proxy.cut()
        await world.point_at(world.north)
        await front.converge(world.north, "a change, and a new connection over such a line")
        world.proxy.heal()
        world.proxy.throttle(1500)
        await world.point_at(world.south)
        await front.converge(world.south, "a change over a line of 1,500 bytes a second")
