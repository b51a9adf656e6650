"""Processes: the store is changed by the command line while the control plane is not there."""

from __future__ import annotations

import signal
from contextlib import AsyncExitStack
from pathlib import Path

import trio

from bridgepool.gateway.demo._upstream import SimulatedUpstream
from tests.system.asking import Home, slowly
from tests.system.command import run_to_end
from tests.system.load import open_load
from tests.system.rig import make_home, run_front, run_plane


async def provider(home: Home, *arguments: str) -> None:
    """Run `bridgepool providers` on the store."""
    where = ("--store", home.store_url, "--encryption-key-file", str(home.encryption_file))
    command = await run_to_end("providers", *arguments, *where)
    assert command.status == 0, command.everything


async def test_a_change_on_the_store_is_served_when_a_killed_control_plane_is_started_again(
    tmp_path: Path, north: SimulatedUpstream, south: SimulatedUpstream
) -> None:
    north.before_word = south.before_word = slowly
    home = await make_home(tmp_path)
    with trio.fail_after(180):
        async with AsyncExitStack() as stack:
            plane = await stack.enter_async_context(run_plane(home))
            await home.add("ai", north)
            front, gateway = await stack.enter_async_context(run_front(home, *home.standalone()))
            await front.wait_outcome("north")
            load = await stack.enter_async_context(open_load(front.url, front.key))
            plane.signal(signal.SIGKILL)
            await plane.wait()
            await front.wait_ready(connected=False, ready=True)
            await provider(home, "update", "ai", "--base-url", south.openai_url)
            stranger = await front.ask(key="bp_stranger")
            assert (stranger.status, stranger.code) == (503, "authorization_unavailable")
            assert await front.outcome() == "north"
            await load.wait_more(2)
            began = trio.current_time()
            await stack.enter_async_context(run_plane(home))
            started = trio.current_time()
            took = await front.wait_outcome("south")
            print(f"converged: {took:.3f} s after a start that took {started - began:.2f} s")
            await front.wait_ready(connected=True, ready=True)
            assert (await front.ask(key="bp_stranger")).status == 401
            # While both run, the control plane hears of a change by the command line.
            await provider(home, "update", "ai", "--base-url", north.openai_url)
            await front.wait_outcome("north")
    said = plane.everything + gateway.everything
    assert not [secret for secret in home.secrets if secret in said]
