"""A rotated key of a provider, from the request that still uses it to the word that it can go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from bridgepool.gateway.demo._upstream import SimulatedUpstream
from tests.system.asking import GENEROUS, Gate, Home
from tests.system.command import run_to_end
from tests.system.rig import make_home, run_front, run_plane

OLD, NEW = "sk-old-0123456789abcdefgh", "sk-new-0123456789-stuvwxyz"


async def wait_usage(home: Home, hint: str, holds: Callable[[Any], bool]) -> Any:
    with trio.fail_after(GENEROUS):
        while True:
            shown = await home.api("GET", "providers/ai")
            for usage in shown["key_usage"]:
                if usage["hint"] == hint and holds(usage):
                    return usage
            await trio.sleep(0.02)


async def test_an_old_key_is_safe_to_revoke_when_its_last_request_has_ended(
    tmp_path: Path, north: SimulatedUpstream
) -> None:
    home = await make_home(tmp_path)
    gate = Gate()
    async with (
        run_plane(home) as plane,
        run_front(home, *home.standalone()) as (front, gateway),
    ):
        await home.wait_applied(await home.add("ai", north, OLD))
        await front.wait_outcome("north", "ai")
        await wait_usage(home, "…efgh", lambda usage: usage["last_used"] is not None)
        north.before_word = gate
        gate.shut()
        async with front.stream() as stream:
            rotated = await home.change("ai", keys=[{"value": NEW}])
            [applied] = await home.wait_applied(rotated)
            assert applied["state"] == "applied"
            running = await wait_usage(home, "…efgh", lambda usage: usage["in_flight"] == 1)
            assert (running["id"], running["safe_to_revoke"]) == (None, "no")
            gate.open()
            assert await stream.finish() == "north"
        over = await wait_usage(home, "…efgh", lambda usage: usage["safe_to_revoke"] == "yes")
        assert over["gateways"] == over["unknown"] == []
        key = home.admin_file.read_text().strip()
        url = f"http://127.0.0.1:{home.api_port}"
        where = {"BRIDGEPOOL_URL": url, "BRIDGEPOOL_ADMIN_KEY": key, "BRIDGEPOOL_STORE": ""}
        text = (await run_to_end("providers", "show", "ai", env=where)).out.splitlines()
        assert any("…efgh" in line and line.rstrip().endswith("yes") for line in text), text
        assert any("…wxyz" in line and line.rstrip().endswith("no") for line in text), text
        everything = plane.everything + gateway.everything + "".join(text)
        assert OLD not in everything
        assert NEW not in everything
