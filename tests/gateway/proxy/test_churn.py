"""Everything at once: clients that leave, upstreams that fail, replacements, forced drains."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import trio

from bridgepool.gateway import GatewaySettings, Outcome
from bridgepool.http import UpstreamError, UpstreamLimits
from tests.gateway.proxy.raw import raw_upstream, read_head
from tests.gateway.proxy.rig import Rig, open_rig, openai
from tests.waiting import wait_until

CHAT = "/ai/v1/chat/completions"
CLIENTS, ROUNDS, REPLACEMENTS = 30, 12, 40


def moody_upstream(rng: random.Random) -> object:
    """An upstream that answers well, slowly, half, wrongly, or not at all."""

    async def serve(stream: trio.SocketStream) -> None:
        try:
            while True:
                await read_head(stream)
                mood = rng.choice(["good", "good", "slow", "cut", "garbage", "close", "mute"])
                if mood == "good":
                    await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                    continue
                if mood == "garbage":
                    await stream.send_all(b"garbage\r\n\r\n")
                elif mood in ("slow", "cut"):
                    await stream.send_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                    for _ in range(4):
                        await stream.send_all(b"2\r\nok\r\n")
                        await trio.sleep(rng.random() / 200)
                    if mood == "slow":
                        await stream.send_all(b"0\r\n\r\n")
                        continue
                elif mood == "mute":
                    await stream.receive_some()
                return
        except (AssertionError, trio.BrokenResourceError):
            return  # the gateway has hung up

    return serve


@pytest.mark.parametrize("seed", range(3))
async def test_churn_leaves_nothing_and_every_request_has_one_outcome(
    nursery: trio.Nursery, seed: int
) -> None:
    rng = random.Random(seed)
    url = await raw_upstream(nursery, moody_upstream(rng))  # type: ignore[arg-type]  # it is one
    settings = GatewaySettings(
        allow_anonymous=True,
        min_reload_interval=0.001,
        drain_timeout=0.02,
        upstream_limits=UpstreamLimits(head_timeout=0.05, read_timeout=0.05),
    )
    seen: Counter[str] = Counter()
    async with open_rig(openai(url), nursery=nursery, settings=settings) as rig:
        async with trio.open_nursery() as clients:
            for _ in range(CLIENTS):
                clients.start_soon(ask_often, rig, rng, seen)
            for number in range(REPLACEMENTS):
                await rig.replace(openai(url, headers={"x-number": str(number)}))
                await trio.sleep(0.01)
        with trio.fail_after(60):  # and it serves as before
            while not seen["200 in the end"]:
                await ask(rig, seen, " in the end")
        await rig.gateway.pool.wait_drained(rig.gateway.pool.generation - 1)
        await wait_until(lambda: not rig.gateway.statistics().requests)
        await trio.testing.wait_all_tasks_blocked()
        pool, gateway = rig.gateway.pool.statistics(), rig.gateway.statistics()
    assert (pool.leased, pool.draining, pool.close_overruns, pool.close_failures) == (0, 0, 0, 0)
    assert gateway.runtimes == 1, "only the one in force"
    assert sum(gateway.ended.values()) == len(rig.records)
    assert gateway.ended[Outcome.FAILED] == 0
    assert {code[:3] for code in seen} <= {"200", "502", "503", "504", "cut", "lef"}


async def ask_often(rig: Rig, rng: random.Random, seen: Counter[str]) -> None:
    for _ in range(ROUNDS):
        with trio.move_on_after(rng.choice([0.002, 0.01, 1.0])) as patience:
            await ask(rig, seen)
        seen["left"] += patience.cancelled_caught


async def ask(rig: Rig, seen: Counter[str], when: str = "") -> None:
    try:
        seen[f"{(await rig.ask(CHAT, {})).status}{when}"] += 1
    except UpstreamError:
        seen["cut"] += 1
