"""Breakers of a real gateway: what opens them, what clients see, what they survive."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from bridgepool.gateway import GatewaySettings, UsageRecord
from bridgepool.http import UpstreamLimits
from tests.gateway.proxy.dying import CUT, HANG, answer, closed_port, start_dying
from tests.gateway.proxy.raw import connect, post
from tests.gateway.proxy.rig import CHAT, Answer, Rig, anthropic, open_rig, openai, own_refusals

AI = f"/ai/v1{CHAT}"
SHORT = GatewaySettings(
    allow_anonymous=True,
    min_reload_interval=0.001,
    upstream_limits=UpstreamLimits(head_timeout=0.1),
)


@pytest.fixture
def clock(mock_clock: MockClock) -> MockClock:
    """Time passes as it does, and can be made to jump."""
    mock_clock.rate = 1
    return mock_clock


async def ask(rig: Rig, count: int = 1) -> list[int]:
    return [(await rig.ask(AI, {"model": "m"})).status for _ in range(count)]


def document(rig: Rig) -> Any:
    """Return what `/status` says of the one provider."""
    status: Any = rig.gateway.status()
    return status["providers"][0]["resilience"]


def refused(found: Answer) -> tuple[int, str, bytes]:
    return found.status, found.code, found.headers[b"retry-after"]


async def test_after_five_failures_requests_are_refused_until_a_probe_succeeds(
    nursery: trio.Nursery, clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "bridgepool.gateway")
    upstream = await start_dying(nursery, then=answer(503))
    async with open_rig(openai(upstream.url, breaker=True), nursery=nursery) as rig:
        assert await ask(rig, 5) == [503] * 5
        found = await rig.ask(AI, {"model": "m"})
        assert refused(found) == (503, "circuit_open", b"30")
        assert upstream.count == 5
        clock.jump(20)
        assert refused(await rig.ask(AI, {})) == (503, "circuit_open", b"10")
        clock.jump(10)
        assert await ask(rig) == [503]
        assert refused(await rig.ask(AI, {})) == (503, "circuit_open", b"60")
        clock.jump(60)
        upstream.then = answer(200)
        assert await ask(rig, 8) == [200] * 8
        *_, last = await rig.wait_records(17)
        assert [record.code for record in rig.records].count("circuit_open") == 3
        assert (last.code, last.attempts) == ("", 1)
    messages = [line.message for line in caplog.records]
    assert [m for m in messages if "breaker" in m] == ["breaker opened"] * 2 + ["breaker closed"]
    assert own_refusals(caplog) == [("INFO", "circuit_open")] * 3


async def test_the_model_of_a_refused_request_is_known_where_its_body_was_received(
    nursery: trio.Nursery,
) -> None:
    usage: list[UsageRecord] = []
    upstream = closed_port()
    broken = openai(upstream, breaker=True, breaker_failures=1)
    body = {"model": "gpt-5", "input": ""}
    async with open_rig(broken, nursery=nursery, on_usage=usage.append) as rig:
        await rig.ask(AI, body)
        for long in ("", "a" * 100_000):
            refused = await rig.ask(AI, {**body, "input": long})
            assert refused.code == "circuit_open"
        await rig.ask(AI, {"no": "model"})
        await rig.wait_records(4)
    assert [(one.attempts, one.model) for one in usage] == [
        (1, "gpt-5"),
        (0, "gpt-5"),
        (0, "gpt-5"),
        (0, ""),
    ]


async def test_a_refusal_is_in_the_dialect_of_the_provider(nursery: trio.Nursery) -> None:
    provider = anthropic(closed_port(), breaker=True, breaker_failures=1)
    async with open_rig(provider, nursery=nursery) as rig:
        await rig.ask("/claude/v1/messages", {})
        found = await rig.ask("/claude/v1/messages", {})
        assert found.json["type"] == "error"
        assert b"retry-after" in found.headers


@pytest.mark.parametrize(
    "said", [answer(502), answer(503), answer(504), answer(529), CUT, b"nonsense\r\n\r\n", HANG]
)
async def test_each_of_these_is_a_failure(nursery: trio.Nursery, said: bytes) -> None:
    upstream = await start_dying(nursery, then=said)
    provider = openai(upstream.url, breaker=True, breaker_failures=2)
    async with open_rig(provider, nursery=nursery, settings=SHORT) as rig:
        await ask(rig, 2)
        assert (await rig.ask(AI, {})).code == "circuit_open"


async def test_a_refused_connection_is_a_failure(nursery: trio.Nursery) -> None:
    provider = openai(closed_port(), breaker=True, breaker_failures=2)
    async with open_rig(provider, nursery=nursery) as rig:
        assert await ask(rig, 2) == [502, 502]
        assert (await rig.ask(AI, {})).code == "circuit_open"


CUT_LATER = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\nab"


@pytest.mark.parametrize("said", [answer(429), answer(500), answer(404), answer(401), CUT_LATER])
async def test_none_of_these_is_a_failure(nursery: trio.Nursery, said: bytes) -> None:
    upstream = await start_dying(nursery, then=said)
    provider = openai(upstream.url, breaker=True, breaker_failures=1, client_keys=True)
    async with open_rig(provider, nursery=nursery, settings=SHORT) as rig:
        for _ in range(3):
            async with connect(rig.address) as client:
                await client.send(post(AI, extra=b"X-Api-Key: sk-own\r\nConnection: close\r\n"))
                await client.read_to_end()
        assert upstream.count == 3
        assert document(rig)["breakers"]["generate"]["state"] == "closed"


async def test_clients_that_leave_are_no_failures_and_hold_no_probe(
    nursery: trio.Nursery, clock: MockClock
) -> None:
    upstream = await start_dying(nursery, answer(503), then=HANG)
    provider = openai(upstream.url, breaker=True, breaker_failures=1)
    async with open_rig(provider, nursery=nursery) as rig:
        assert await ask(rig) == [503]
        clock.jump(31)
        for number in range(5):
            async with connect(rig.address) as client:
                await client.send(post(AI))
                await upstream.wait_count(number + 2)
                assert document(rig)["breakers"]["generate"]["probes"] == 1
            await rig.wait_records(number + 2)
        upstream.then = answer(200)
        assert await ask(rig) == [200]
        assert document(rig)["breakers"]["generate"]["state"] == "closed"


async def test_a_rate_limit_of_a_probe_neither_closes_nor_opens_a_breaker(
    nursery: trio.Nursery, clock: MockClock
) -> None:
    upstream = await start_dying(nursery, answer(503), then=answer(429, "retry-after: 1"))
    keyless = openai(upstream.url, keys=[], breaker=True, breaker_failures=1)
    async with open_rig(keyless, nursery=nursery) as rig:
        await ask(rig)
        clock.jump(31)
        assert await ask(rig, 4) == [429] * 4
        breaker = document(rig)["breakers"]["generate"]
        assert (breaker["state"], breaker["probes"]) == ("half_open", 0)


async def test_a_probe_that_tries_two_keys_has_one_place(
    nursery: trio.Nursery, clock: MockClock
) -> None:
    upstream = await start_dying(nursery, answer(503), then=answer(429, "retry-after: 1"))
    provider = openai(upstream.url, keys=["a", "b"], breaker=True, breaker_failures=1)
    async with open_rig(provider, nursery=nursery) as rig:
        await ask(rig)
        clock.jump(31)
        assert await ask(rig) == [429]
        assert upstream.count == 3
        breaker = document(rig)["breakers"]["generate"]
        assert (breaker["state"], breaker["probes"]) == ("half_open", 0)


async def test_three_probes_run_at_a_time(nursery: trio.Nursery, clock: MockClock) -> None:
    upstream = await start_dying(nursery, answer(503), then=HANG)
    provider = openai(upstream.url, breaker=True, breaker_failures=1)
    async with open_rig(provider, nursery=nursery) as rig:
        await ask(rig)
        clock.jump(31)
        async with connect(rig.address) as a, connect(rig.address) as b, connect(rig.address) as c:
            for number, client in enumerate((a, b, c)):
                await client.send(post(AI))
                await upstream.wait_count(number + 2)
            assert refused(await rig.ask(AI, {})) == (503, "circuit_open", b"1")


async def test_each_class_of_routes_has_a_breaker_of_its_own(nursery: trio.Nursery) -> None:
    upstream = await start_dying(nursery, answer(503))
    async with open_rig(
        openai(upstream.url, breaker=True, breaker_failures=1), nursery=nursery
    ) as rig:
        await ask(rig)
        assert (await rig.ask("/ai/v1/responses", {})).code == "circuit_open"
        assert (await rig.ask("/ai/v1/models")).status == 200
        assert (await rig.ask("/ai/v1/embeddings", {})).status == 200
        states = {name: one["state"] for name, one in document(rig)["breakers"].items()}
        assert states == {"embed": "closed", "generate": "open", "models": "closed"}


async def test_a_breaker_outlives_every_edit_but_one_of_the_endpoint(
    nursery: trio.Nursery,
) -> None:
    upstream, other = await start_dying(nursery, then=answer(503)), await start_dying(nursery)
    on: dict[str, Any] = {"breaker": True, "breaker_failures": 1}
    async with open_rig(openai(upstream.url, **on), nursery=nursery) as rig:
        await ask(rig)
        for edited in (
            openai(upstream.url, keys=["sk-new"], **on),
            openai(upstream.url, headers={"x-team": "a"}, **on),
            openai(upstream.url, breaker=True, breaker_open=5.0, retries=2),
        ):
            await rig.replace(edited)
            assert (await rig.ask(AI, {})).code == "circuit_open"
        await rig.replace(openai(other.url, **on))
        assert await ask(rig) == [200]
        await rig.replace(openai(upstream.url, **on))
        assert (await rig.ask(AI, {})).code == "circuit_open"
        await rig.replace(openai(upstream.url))
        assert await ask(rig, 3) == [503] * 3
        await rig.replace(openai(other.url, "another", **on))
        await rig.replace(openai(upstream.url, **on))
        assert await ask(rig) == [503]
