"""Retries: what is tried again at a provider, when, and with which key and body."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from bridgepool.gateway import GatewaySettings
from bridgepool.http import UpstreamLimits
from tests.gateway.proxy.dying import CUT, HANG, answer, start_dying
from tests.gateway.proxy.raw import connect, post
from tests.gateway.proxy.rig import CHAT, Answer, Rig, open_rig, openai

AI = f"/ai/v1{CHAT}"
SHORT = GatewaySettings(
    allow_anonymous=True,
    min_reload_interval=0.001,
    upstream_limits=UpstreamLimits(head_timeout=3),
)


async def ask(rig: Rig, body: object = None) -> Answer:
    return await rig.ask(AI, {"model": "m"} if body is None else body)


@pytest.mark.parametrize("said", [CUT, answer(502), answer(503), answer(504), answer(529)])
async def test_a_failure_is_tried_again_and_the_client_sees_the_success(
    nursery: trio.Nursery, clock: MockClock, said: bytes
) -> None:
    upstream = await start_dying(nursery, said, said)
    async with open_rig(openai(upstream.url, retries=2), nursery=nursery) as rig:
        assert (await ask(rig, {"model": "m" * 1000})).status == 200
        [record] = await rig.wait_records(1)
    assert record.attempts == upstream.count == 3
    assert len(set(upstream.bodies)) == 1
    assert len(upstream.bodies[0]) > 1000


async def test_a_timeout_is_tried_again_only_if_that_is_wanted(
    nursery: trio.Nursery, clock: MockClock
) -> None:
    upstream = await start_dying(nursery, HANG, HANG)
    async with open_rig(openai(upstream.url, retries=1), nursery=nursery, settings=SHORT) as rig:
        assert (await ask(rig)).code == "upstream_timeout"
        await rig.replace(openai(upstream.url, retries=1, retry_on=["timeout"]))
        assert (await ask(rig)).status == 200
    assert upstream.count == 3


async def test_after_the_last_retry_the_client_gets_the_answer_as_it_came(
    nursery: trio.Nursery, clock: MockClock
) -> None:
    upstream = await start_dying(nursery, then=answer(503, "x-theirs: 1", body='{"their": 1}'))
    async with open_rig(openai(upstream.url, retries=2), nursery=nursery) as rig:
        found = await ask(rig)
        assert (found.status, found.json, found.headers[b"x-theirs"]) == (503, {"their": 1}, b"1")
    assert upstream.count == 3


@pytest.mark.parametrize(
    "said",
    [
        *(answer(429), answer(500), answer(400)),
        answer(503, "x-should-retry: false"),
        answer(503, "retry-after: 6"),
        answer(503, "retry-after-ms: 6000"),
    ],
)
async def test_an_answer_that_wants_no_retry_goes_to_the_client_at_once(
    nursery: trio.Nursery, said: bytes
) -> None:
    upstream = await start_dying(nursery, said)
    async with open_rig(openai(upstream.url, retries=3), nursery=nursery) as rig:
        assert (await ask(rig)).status >= 400
    assert upstream.count == 1


async def test_a_short_retry_after_is_honoured(
    nursery: trio.Nursery, clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    upstream = await start_dying(nursery, answer(503, "retry-after: 5"))
    async with open_rig(openai(upstream.url, retries=1), nursery=nursery) as rig:
        started = trio.current_time()
        assert (await ask(rig)).status == 200
        assert trio.current_time() - started >= 5
    [line] = [one for one in caplog.records if one.message == "upstream attempt failed"]
    assert (line.failure, line.retry_in) == ("503", 5.0)  # type: ignore[attr-defined]


async def test_each_delay_may_be_twice_as_long_as_the_one_before(
    nursery: trio.Nursery,
    clock: MockClock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("random.random", lambda: 1.0)
    upstream = await start_dying(nursery, CUT, CUT, CUT)
    async with open_rig(openai(upstream.url, retries=3), nursery=nursery) as rig:
        assert (await ask(rig)).status == 200
    lines = [vars(one) for one in caplog.records if one.message == "upstream attempt failed"]
    assert [line["retry_in"] for line in lines] == [0.25, 0.5, 1.0]


async def test_a_failure_that_opens_the_breaker_is_not_tried_again(nursery: trio.Nursery) -> None:
    upstream = await start_dying(nursery, then=answer(503, "x-theirs: 1"))
    provider = openai(upstream.url, retries=5, breaker=True, breaker_failures=2)
    async with open_rig(provider, nursery=nursery) as rig:
        assert b"x-theirs" in (await ask(rig)).headers
        assert (await ask(rig)).code == "circuit_open"
    assert upstream.count == 2


async def test_nothing_is_tried_again_after_the_first_byte(nursery: trio.Nursery) -> None:
    cut = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\nab"
    upstream, other = await start_dying(nursery, cut), await start_dying(nursery)
    providers = (openai(upstream.url, retries=3, fallback=["b"]), openai(other.url, "b"))
    async with open_rig(*providers, nursery=nursery) as rig, connect(rig.address) as client:
        await client.send(post(AI))
        assert b"\r\n\r\nab" in await client.read_to_end()
    assert (upstream.count, other.count) == (1, 0)


async def test_a_body_that_was_too_long_to_keep_is_sent_once(nursery: trio.Nursery) -> None:
    upstream = await start_dying(nursery, answer(503), answer(503))
    provider = openai(upstream.url, retries=3, max_replay_bytes=100_000)
    async with open_rig(provider, nursery=nursery) as rig:
        assert (await ask(rig, b"x" * 100_001)).status == 503
        assert upstream.count == 1
        await rig.replace(openai(upstream.url, retries=3, max_replay_bytes=100_001))
        assert (await ask(rig, b"x" * 100_001)).status == 200
    assert upstream.bodies[1] == upstream.bodies[2]
    assert rig.gateway._replay_budget.used == 0


async def test_a_body_is_kept_until_its_answer_begins(nursery: trio.Nursery) -> None:
    upstream = await start_dying(nursery, b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab")
    provider = openai(upstream.url, retries=3)
    async with open_rig(provider, nursery=nursery) as rig, connect(rig.address) as client:
        await client.send(post(AI, b"x" * 100_000))
        await client.read_until(b"\r\n\r\nab")  # it goes on
        assert rig.gateway._replay_budget.used == 0


async def test_a_body_that_nobody_takes_is_kept_no_longer(
    nursery: trio.Nursery, clock: MockClock
) -> None:
    upstream = await start_dying(nursery, then=CUT)
    async with open_rig(openai(upstream.url, retries=1), nursery=nursery) as rig:
        assert (await ask(rig, b"x" * 100_000)).code == "upstream_cut"
        assert rig.gateway._replay_budget.used == 0


async def test_after_a_delay_all_keys_may_be_tried_and_the_next_one_at_once(
    nursery: trio.Nursery, clock: MockClock
) -> None:
    limited, failing = answer(429, "retry-after-ms: 1"), answer(503, "retry-after: 5")
    upstream = await start_dying(nursery, limited, failing, limited)
    provider = openai(upstream.url, retries=1, keys=["a", "b"])
    async with open_rig(provider, nursery=nursery) as rig, trio.open_nursery() as asking:
        asking.start_soon(ask, rig)
        await upstream.wait_count(3)
        clock.rate, delayed = 1, trio.current_time()
        await upstream.wait_count(4)
        assert trio.current_time() - delayed < 5
    keys = [head.partition(b"bearer ")[2][:1] for head in upstream.heads]
    assert keys == [b"a", b"b", b"a", b"b"]


async def test_a_storm_of_failures_is_not_multiplied_by_retries(
    nursery: trio.Nursery, clock: MockClock
) -> None:
    clock.rate = 1
    upstream = await start_dying(nursery, then=answer(503))
    async with (
        open_rig(openai(upstream.url, retries=5), nursery=nursery) as rig,
        trio.open_nursery() as asking,
    ):
        for _ in range(50):
            asking.start_soon(ask, rig)
    assert 53 < upstream.count <= 60  # three can be tried again whatever the budget is
