"""The SDKs of OpenAI, Anthropic and Vercel for Node, through a real gateway."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

from tests.e2e.files import client_row_and_key, provider, write
from tests.e2e.process import run_gateway
from tests.e2e.talking import TEXT, TalkingUpstream, start_talking_upstream

pytestmark = pytest.mark.clients

NODE = Path(__file__).parent / "node"
LIMITED = 429, ((b"retry-after", b"1"),)


async def give_back_keys(upstream: TalkingUpstream) -> None:
    """Take each key again once it was refused."""
    refused = upstream.plain.key_answers
    while refused:
        for seen in upstream.plain.received:
            key = seen.header(b"x-api-key") or seen.header(b"authorization") or b""
            refused.pop(key.removeprefix(b"Bearer "), None)
        await trio.sleep(0.05)


async def test_the_sdks_for_node_are_served_wait_as_told_and_give_up_when_a_budget_is_spent(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    north = await start_talking_upstream(nursery, "north")
    north.plain.key_answers = {b"sk-one": LIMITED, b"sk-two": LIMITED}
    openai, anthropic = north.plain.openai_url, north.plain.anthropic_url
    file = tmp_path / "providers.toml"
    rows = {name: client_row_and_key(name) for name in ("ada", "eve", "max")}
    write(
        file,
        provider("ai", "openai", openai),
        provider("claude", "anthropic", anthropic),
        provider("one", "openai", openai, key="sk-one"),
        provider("claude-one", "anthropic", anthropic, key="sk-two"),
        provider("off", "openai", openai, enabled=False),
        provider("claude-off", "anthropic", anthropic, enabled=False),
        rows["ada"][0],
        rows["eve"][0] + "\nrequests_per_minute = 2",
        rows["max"][0] + "\ntokens_per_day = 1",
    )
    async with run_gateway(file) as gateway:
        nursery.start_soon(give_back_keys, north)
        plan = {"gateway": gateway.url} | {name: key for name, (_, key) in rows.items()}
        with trio.fail_after(300):
            ran = await trio.run_process(
                ["node", str(NODE / "sdks.mjs"), json.dumps(plan)],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        assert ran.returncode == 0, (ran.stdout + ran.stderr).decode()
        log = await gateway.stop()
    served = {"model": "m@north", "whole": TEXT, "text": TEXT}
    limited = {"name": "RateLimitError", "status": 429, "code": "rate_limited", "waits": True}
    spent = {**limited, "code": "budget_exceeded", "waits": None}  # no time helps
    off = {"status": 503, "code": "provider_disabled"}
    assert json.loads(ran.stdout.splitlines()[-1]) == {
        "openai": {**served, "last": "response.completed"},
        "anthropic": {**served, "last": "end_turn"},
        "vercel": [TEXT] * 6,
        "websocket": ["m@north"] * 3,
        "openai_waits": "m@north",
        "anthropic_waits": "m@north",
        "openai_limited": limited,
        "anthropic_limited": limited,
        "openai_spent": spent,
        "anthropic_spent": spent,
        "openai_off": {**off, "name": "InternalServerError", "waits": None},
        "anthropic_off": {**off, "name": "ServiceUnavailableError", "waits": None},
        "vercel_off": {**off, "status": 400},  # after 503 it would ask again
    }
    codes = [line["code"] for line in log]
    assert codes.count("budget_exceeded") == 2  # neither was asked again
    assert codes.count("provider_disabled") == 3
    for name in ("one", "claude-one"):
        statuses = [line["status"] for line in log if line["provider"] == name]
        assert (statuses[0], statuses[-1]) == (429, 200)
