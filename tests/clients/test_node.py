"""The SDKs of OpenAI, Anthropic and Vercel for Node, through a real gateway."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from bridgepool.gateway.demo._upstream import WORDS
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


async def run_node(script: str, plan: dict[str, str], **env: str) -> Any:
    """Run a script, and return what it printed last."""
    with trio.fail_after(300):
        ran = await trio.run_process(
            ["node", str(NODE / script), json.dumps(plan)],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env={**os.environ, **env},
        )
    assert ran.returncode == 0, (ran.stdout + ran.stderr).decode()
    return json.loads(ran.stdout.splitlines()[-1])


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
        seen = await run_node("sdks.mjs", plan)
        log = await gateway.stop()
    served = {"model": "m@north", "whole": TEXT, "text": TEXT}
    limited = {"name": "RateLimitError", "status": 429, "code": "rate_limited", "waits": True}
    spent = {**limited, "code": "budget_exceeded", "waits": None}  # no time helps
    off = {"status": 503, "code": "provider_disabled"}
    assert seen == {
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


async def test_the_realtime_socket_of_the_sdk_for_node_is_opened_anew_after_a_provider_change(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    north = await start_talking_upstream(nursery, "north")
    south = await start_talking_upstream(nursery, "south")
    file, usage = tmp_path / "providers.toml", tmp_path / "usage.jsonl"
    (ada, ada_key), (eve, eve_key) = client_row_and_key("ada"), client_row_and_key("eve")
    clients = (ada, f'{eve}\nmodels = ["other"]')
    write(file, provider("ai", "openai", north.openai_url), *clients)
    authority, ca, pem = trustme.CA(), tmp_path / "ca.pem", tmp_path / "gateway.pem"
    authority.cert_pem.write_to_path(str(ca))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pem))
    options = ("--drain-timeout", "2", "--max-websockets-per-client", "1")
    tls = ("--tls-cert", str(pem), "--tls-key", str(pem))  # it makes wss: of every address

    async def change_after_two_turns() -> None:
        while len(north.asked) < 2:  # noqa: ASYNC110 -- no event tells
            await trio.sleep(0.01)
        write(file, provider("ai", "openai", south.openai_url), *clients)

    async with run_gateway(file, "--usage-log", str(usage), *options, *tls) as gateway:
        nursery.start_soon(change_after_two_turns)
        plan = {"gateway": gateway.url, "ada": ada_key, "eve": eve_key}
        seen = await run_node("realtime.mjs", plan, NODE_EXTRA_CA_CERTS=str(ca))
        log = await gateway.stop()
    before = len(north.asked)
    assert before >= 2
    # Each response came whole, with its usage: none was cut, and none was asked for twice.
    turn = [TEXT, len(WORDS)]
    assert seen["answers"] == [["m@north", *turn]] * before + [["m@south", *turn]] * 2
    assert seen["reconnected"] == 1
    assert (north.sockets, south.sockets) == (1, 1)
    records = [json.loads(line) for line in usage.read_text().splitlines()]
    tokens = [one["output_tokens"] for one in records if one["status"] == 101]
    assert tokens == [len(WORDS)] * (before + 2)
    statuses = {"cap": 426, "key": 401, "model": 403}
    assert seen["refusals"] == {
        name: ["OpenAIRealtimeError", f"Unexpected server response: {status}"]
        for name, status in statuses.items()
    }
    refused = {line["code"] for line in log if line["status"] != 101}
    assert refused == {"too_many_websockets", "invalid_api_key", "model_not_allowed"}
    closed = [line["close_code"] for line in log if line["status"] == 101]
    assert closed == [1012, 1000]
