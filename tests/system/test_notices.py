"""Notices that are lost, and notices by the thousand."""

from __future__ import annotations

from pathlib import Path

import trio

from bridgepool.gateway._options import GatewayOptions
from tests.system.faulty import open_world
from tests.waiting import wait_until


def test_a_gateway_of_a_control_plane_polls_every_five_minutes_at_the_latest() -> None:
    assert GatewayOptions().settings([]).poll_interval == 300
    assert GatewayOptions(max_stale=60).settings([]).poll_interval == 20


async def test_a_poll_finds_what_lost_notices_did_not_tell(tmp_path: Path) -> None:
    # The limit of staleness makes the poll come each 0.7 s.
    async with open_world(tmp_path) as world, world.loaded(max_stale=2.1) as (front, _):
        for session in world.service._open:
            session.watch = None  # it gets no notice any more
        await world.point_at(world.south)
        took = await front.converge(world.south, "a change whose notice was lost")
        assert took < 60, "without it, the poll comes after five minutes"
        assert world.proxy.statistics().accepted == 1, "no new session has helped"


async def test_a_control_plane_finds_changes_of_which_its_store_does_not_tell(
    tmp_path: Path,
) -> None:
    async with open_world(tmp_path, notices=False) as world, world.loaded() as (front, _):
        await world.point_at(world.south)
        await front.converge(world.south, "a change that the store did not tell of")


async def test_a_thousand_notices_in_a_second_are_a_handful_of_reloads(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world, world.loaded() as (front, load):
        status, before = front.gateway.reload_status, world.proxy.statistics().bytes_to_client
        reloads, began = status.attempts, trio.current_time()
        [session] = world.service._open
        for number in range(1000):
            session.sent = None  # so it is sent a notice, with the providers
            session.publish_changed()
            if number % 100 == 50:
                await world.point_at(world.south if number % 200 == 50 else world.north)
            await trio.sleep(0.0005)
        sent = world.proxy.statistics().bytes_to_client - before
        last = (await world.store.revisions()).revision
        await wait_until(lambda: front.gateway.pool.snapshot.revision == last)
        took = trio.current_time() - began
        reloads = status.attempts - reloads
        print(f"{reloads} reloads in {took:.2f} s of notices, {sent} bytes of them")
        assert sent > 100_000
        assert reloads <= 6 + took  # 0.1, 0.2, 0.4, 0.8, then 1 s apart
        assert load.slowest < 2
        await front.converge(world.north, "a thousand notices")
