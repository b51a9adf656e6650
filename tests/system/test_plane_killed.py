"""The control plane's process is killed while it writes, and started again on the same ports."""

from __future__ import annotations

import signal
from contextlib import AsyncExitStack
from itertools import cycle
from pathlib import Path

import trio

from bridgepool.gateway.control._records import ProviderPatch
from bridgepool.gateway.demo._upstream import SimulatedUpstream
from bridgepool.http import UpstreamError
from tests.gateway.control.stores import ADA
from tests.system.asking import Home, slowly
from tests.system.load import open_load
from tests.system.rig import make_home, open_home_store, run_front, run_plane


async def write_on(home: Home, answered: list[int], urls: list[str]) -> None:
    """Change a provider again and again, until the control plane is gone."""
    for url in cycle(urls):
        try:
            answered.append(await home.change("other", base_url=url))
        except UpstreamError:  # it is gone
            return


async def test_what_it_answered_is_kept_and_a_change_meanwhile_is_served_and_no_request_fails(
    database_url: str,
    tmp_path: Path,
    north: SimulatedUpstream,
    south: SimulatedUpstream,
    steady: SimulatedUpstream,
) -> None:
    steady.before_word = slowly
    home = await make_home(tmp_path, database_url)
    answered: list[int] = []
    with trio.fail_after(180):
        async with AsyncExitStack() as stack:
            plane = await stack.enter_async_context(run_plane(home))
            await home.add("ai", steady)
            await home.add("other", north)
            front, gateway = await stack.enter_async_context(run_front(home, *home.standalone()))
            await front.wait_outcome("steady")
            load = await stack.enter_async_context(open_load(front.url, front.key))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write_on, home, answered, [south.openai_url, north.openai_url])
                while len(answered) < 10:  # noqa: ASYNC110 -- no event tells
                    await trio.sleep(0.005)
                plane.signal(signal.SIGKILL)
            await plane.wait()
            await front.wait_ready(connected=False, ready=True)
            async with open_home_store(home) as store:  # as a command on the store does
                patch = ProviderPatch(base_url=south.openai_url, name="changed")
                await store.update_provider(ADA, "other", patch)
            assert await front.outcome("changed") == "unknown_provider"
            await load.wait_more(1)
            plane = await stack.enter_async_context(run_plane(home))
            began = trio.current_time()
            assert (await home.api("GET", "revision"))["revision"] > answered[-1]
            await front.wait_outcome("south", "changed")
            change = await home.api(
                "PATCH", "providers/changed", {"base_url": north.openai_url, "name": "moved"}
            )
            await front.wait_outcome("north", "moved")
            print(f"served after the start: {trio.current_time() - began:.2f} s")
            await front.wait_ready(connected=True, ready=True)
            told = await home.wait_applied(change["revision"])
            assert [row["state"] for row in told] == ["applied"], told
    said = plane.everything + gateway.everything
    assert not [secret for secret in home.secrets if secret in said]
