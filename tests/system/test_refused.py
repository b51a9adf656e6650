"""Keys that are revoked and versions that are not spoken: who is told what, and what is served."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import pytest
import trio

from bridgepool import Secret
from bridgepool.gateway import open_control_plane
from bridgepool.remote import PROTOCOL, ProtocolVersion
from bridgepool.testing import Toward
from bridgepool.transports.websocket import WebSocketLimits, open_websocket_channel
from tests.gateway.control.conftest import database_url, postgres_server
from tests.gateway.control.stores import ADA, draft, opened
from tests.system.faulty import PATIENCE, open_world
from tests.waiting import wait_until

__all__ = ["database_url", "postgres_server"]


async def test_a_revoked_key_ends_its_session_within_a_second_and_a_new_one_brings_it_back(
    tmp_path: Path, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with (
        open_world(tmp_path, url=database_url) as world,
        opened(database_url) as elsewhere,  # as another process has it
        world.loaded() as (front, _),
    ):
        old = world.gateway_key_id
        began = trio.current_time()
        await elsewhere.revoke_key(ADA, "gateway", old)
        await wait_until(lambda: len(world.service.sessions) == 0)
        took = trio.current_time() - began
        print(f"the session of a revoked key ended after {took:.3f} s")
        assert took < 10  # alone on a machine far less than 1; a heartbeat takes 20 and more
        answer = await front.wait_ready(ready=False, connected=False)
        assert "unknown_key" in str(answer.document["reason"])
        assert "have a new one made" in str(answer.document["reason"])
        assert "session ended: this key was revoked" in caplog.text
        assert "the connection was lost: this key was revoked" in caplog.text
        await wait_until(lambda: "refused by the control plane" in caplog.text)
        refusals = [r for r in caplog.records if r.message == "gateway refused"]
        assert vars(refusals[0])["code"] == "unknown_key"
        await world.point_at(world.south)
        assert (await front.ask()).model == "m@north"
        assert (await front.ask("bp_stranger")).status == 503
        await world.new_gateway_key()  # into the key file
        await front.converge(world.south, "a new key was put into the key file")
        await front.wait_ready(ready=True, connected=True)


async def test_a_gateway_that_takes_nothing_of_what_is_sent_cannot_put_its_revocation_off(
    tmp_path: Path,
) -> None:
    line = WebSocketLimits()  # as a control plane has them: it is patient
    async with open_world(tmp_path, line=line) as world, world.loaded() as (front, _):
        for number in range(8):
            keys = [letter * 4000 for letter in "abcde"]
            await world.store.add_provider(ADA, draft(f"large-{number}", *keys))
        await world.wait_heard()
        world.proxy.black_hole(Toward.CLIENT)
        sent = 0
        while sent < 8 << 20:  # more than sockets and queues hold
            sent += 8 * 20_000
            await world.point_at(world.south if sent % 320_000 else world.north)
        await world.wait_heard()
        began = trio.current_time()
        await world.store.revoke_key(ADA, "gateway", world.gateway_key_id)
        await wait_until(lambda: len(world.service.sessions) == 0)
        took = trio.current_time() - began
        print(f"the session that took nothing ended after {took:.3f} s")
        assert took < 10  # alone on a machine far less than 1; a heartbeat takes 20 and more
        await world.point_at(world.south)
        await world.new_gateway_key()
        world.proxy.heal()
        await front.converge(world.south, "it takes again what is sent, and has a new key")


@pytest.mark.parametrize("version", ["1.1", "2.0"])
async def test_a_newer_gateway_is_told_to_wait_for_the_control_plane(
    tmp_path: Path, version: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_world(tmp_path) as world:
        url = f"ws://127.0.0.1:{world.proxy.port}/?version={version}"
        key = Secret(world.key_file.read_text())
        connect = partial(open_websocket_channel, url, bearer=key)
        async with open_control_plane(connect, name="front", limits=PATIENCE) as plane:
            with trio.fail_after(60):
                refusal = await plane.providers.wait_refused()
    assert (refusal.status, refusal.code) == (426, "version_refused")
    reason = f"the gateway speaks protocol {version}, the control plane 1.0; "
    reason += "upgrade the control plane"
    assert refusal.reason == reason
    refusals = [vars(r) for r in caplog.records if r.message == "gateway refused"]
    assert refusals[0]["reason"] == reason
    assert f"refused by the control plane: {reason}" in caplog.text


async def test_a_version_that_is_refused_later_costs_no_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_world(tmp_path) as world, world.loaded() as (front, _):
        world.speaks = ProtocolVersion(0, 9)
        await world.point_at(world.south)
        await front.converge(world.south, "a change before the session was lost")
        world.proxy.cut()
        answer = await front.wait_ready(ready=False, connected=False)
        assert "upgrade the owner" in str(answer.document["reason"])
        await world.point_at(world.north)
        await world.wait_heard()
        assert (await front.ask()).model == "m@south"
        world.speaks = PROTOCOL
        await front.converge(world.north, "the control plane was upgraded")
        await front.wait_ready(ready=True, connected=True)
