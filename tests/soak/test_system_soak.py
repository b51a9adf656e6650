"""A whole system under load: nothing is cut by a change, no usage is wrong, lost or doubled."""

from __future__ import annotations

import os
import signal
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from bridgepool import BridgePoolError
from tests.e2e.process import GatewayProcess
from tests.soak.system_load import Clients, PacedUpstream, refuse_keys, tokens_of
from tests.system.asking import Front, Home
from tests.system.rig import make_home, run_front, run_plane

CLIENTS = 200
REPLACEMENTS = 20  # a second
KEYS = ("sk-soak-a", "sk-soak-b", "sk-soak-c", "sk-soak-d")
RULES = {
    "models": ["m*"],
    "providers": ["ai", "stand-in"],
    "requests_per_minute": 10_000_000,
    "tokens_per_minute": 10_000_000_000,
    "max_concurrent": 100_000,
}


@attrs.define(eq=False)
class Changes:
    """Changes of the providers all the time, as far as there is a control plane."""

    home: Home
    made: int = 0
    failed: int = 0
    plane_up: bool = True

    async def run(self) -> None:
        """Change a header of one provider and the order of its keys, on schedule."""
        start, number = trio.current_time(), 0
        while True:
            number += 1
            await trio.sleep_until(start + number / REPLACEMENTS)  # the load is paced
            if not self.plane_up:
                continue
            try:
                await self._change(number)
                self.made += 1
            except (AssertionError, BridgePoolError):  # its answer, or its connection
                if self.plane_up:
                    raise
                self.failed += 1

    async def _change(self, number: int) -> None:
        headers = {"x-soak": str(number)}
        if number % 5 == 0:  # the last key leaves, and comes back with an id of its own
            turn = number // 5 % len(KEYS)
            keys = [{"value": key} for key in KEYS[turn:] + KEYS[:turn]]
            await self.home.change("ai", headers=headers, keys=keys)
        else:
            await self.home.change("ai" if number % 2 else "stand-in", headers=headers)


async def records_of(home: Home) -> list[dict[str, Any]]:
    """Return all records of the store, by the API."""
    page = await home.api("GET", "usage/records?limit=1000")
    found: list[dict[str, Any]] = list(page["records"])
    while page["next"] is not None:
        page = await home.api("GET", f"usage/records?limit=1000&before_id={page['next']}")
        found += page["records"]
    return found


async def set_up(home: Home, main: PacedUpstream, other: PacedUpstream) -> None:
    """Make the provider and the one that stands in for it, and give the client rules."""
    common: dict[str, object] = {
        "type": "openai", "allow_private": True, "headers": {"x-soak": "0"},
        "key_policy": "round_robin", "max_concurrent": 1000,
    }  # fmt: skip
    [client] = (await home.api("GET", "clients"))["clients"]
    await home.api("PATCH", f"clients/{client['id']}", {"rules": RULES})
    stand_in = {"name": "stand-in", "base_url": other.base_url, "keys": [{"value": "sk-soak-z"}]}
    await home.api("POST", "providers", common | stand_in)
    recovery = {"breaker": True, "breaker_open": 1.0, "retries": 2, "fallback": ["stand-in"]}
    keys = {"keys": [{"value": key} for key in KEYS]}
    draft = common | {"name": "ai", "base_url": main.base_url} | recovery | keys
    await home.api("POST", "providers", draft)


@pytest.mark.soak
async def test_a_system_under_load_cuts_nothing_and_counts_right_also_when_it_is_killed(
    tmp_path: Path, nursery: trio.Nursery, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = float(os.environ.get("SOAK_SECONDS", "15"))
    main, other = PacedUpstream(), PacedUpstream()
    upstreams = (main, other)
    for upstream in upstreams:
        await nursery.start(upstream.serve)
    home = await make_home(tmp_path)
    options = (
        *home.standalone(), "--store-usage", "--usage-spool", str(tmp_path / "spool"),
        "--snapshot-file", str(tmp_path / "snapshot"), "--access-log", "none",
        "--admin-listen", "127.0.0.1:0",
    )  # fmt: skip
    async with trio.open_nursery() as tasks, AsyncExitStack() as stack:

        async def start_gateway() -> tuple[Front, GatewayProcess]:
            front, gateway = await stack.enter_async_context(run_front(home, *options))
            await front.wait_ready(ready=True)
            return front, gateway

        plane = await stack.enter_async_context(run_plane(home))
        await set_up(home, *upstreams)
        front, gateway = await start_gateway()
        clients = Clients(front.url, home.client_key, upstreams)
        changes = Changes(home)
        changing = trio.CancelScope()

        async def change() -> None:
            with changing:
                await changes.run()

        async def kill_plane() -> None:
            changes.plane_up = False
            plane.signal(signal.SIGKILL)
            await plane.wait()

        async def kill_gateway() -> None:
            clients.gateway_gone()
            gateway.signal(signal.SIGKILL)
            await gateway.wait()

        tasks.start_soon(change)
        keys = tuple(key.encode() for key in KEYS)
        refusing = trio.CancelScope()

        async def refuse() -> None:
            with refusing:
                await refuse_keys(main, keys)

        tasks.start_soon(refuse)
        asking = trio.Event()

        async def ask() -> None:
            async with trio.open_nursery() as crowd:
                for _ in range(CLIENTS):
                    crowd.start_soon(clients.run)
            asking.set()

        tasks.start_soon(ask)
        # Changes, keys that are refused, and a provider that dies and returns.
        await trio.sleep(seconds / 3)
        main.die()
        await trio.sleep(seconds / 3)
        await nursery.start(main.serve)
        await trio.sleep(seconds / 3)
        before_kills = len(clients.whole)
        # The control plane dies, then the gateway, then both.
        await kill_plane()
        await trio.sleep(2)
        plane = await stack.enter_async_context(run_plane(home))
        changes.plane_up = True
        await kill_gateway()
        front, gateway = await start_gateway()
        clients.gateway_back(front.url)
        await trio.sleep(3)
        await kill_plane()
        await kill_gateway()
        front, gateway = await start_gateway()
        clients.gateway_back(front.url)
        await trio.sleep(2)
        plane = await stack.enter_async_context(run_plane(home))
        changes.plane_up = True
        await trio.sleep(3)
        clients.stopping = True
        with trio.fail_after(30):
            await asking.wait()
        changing.cancel()
        refusing.cancel()
        await front.wait_ready(connected=True)  # else its records stay in the spool
        await gateway.stop()
        assert "unexpected" not in gateway.everything
        kept = await records_of(home)
        [total] = (await home.api("GET", "usage"))["sums"]
        tasks.cancel_scope.cancel()
    nursery.cancel_scope.cancel()
    count = Counter(str(record["request_id"]) for record in kept)
    by_id = {str(record["request_id"]): record for record in kept}
    last = clients.whole - clients.sealed
    lost = clients.sealed - by_id.keys()
    wrong = [
        by_id[one]
        for one in clients.whole & by_id.keys()
        if (by_id[one]["input_tokens"], by_id[one]["output_tokens"]) != tokens_of(one)
        or not by_id[one]["complete"]
    ]
    with capsys.disabled():
        print(
            f"\n{len(clients.whole)} whole streams ({before_kills} before the kills), "
            f"{len(clients.cut)} cut by their upstream, {clients.killed} by a killed gateway, "
            f"{clients.fallbacks} by fallback; {changes.made} changes, {changes.failed} failed "
            f"with a killed control plane; refused keys: {dict(main.refusals)}; "
            f"{len(kept)} records, {len(lost)} lost, {len(last - by_id.keys())} of the very "
            f"last instant without one, {len(kept) - len(count)} doubled, {len(wrong)} wrong"
        )
    assert clients.faults == []
    assert set(clients.statuses) == {200}
    assert wrong == []
    assert lost == set()
    assert [one for one, times in count.items() if times > 1] == []
    assert len({record["id"] for record in kept}) == len(kept)
    for name in ("input_tokens", "output_tokens"):
        assert total[name] == sum(record[name] or 0 for record in kept)
    assert total["requests"] == len(kept)
    answered = main.answered + other.answered
    told = [one for one, record in by_id.items() if record["complete"]]
    assert all(answered[one] for one in told), "no more than the upstreams told"
    # It did what it is for.
    assert min(clients.fallbacks, len(clients.cut), clients.killed) > 0
    assert min(main.refusals[429], main.refusals[401]) > 0
    assert changes.made > seconds * REPLACEMENTS / 2
