"""Other providers in place of one that fails, and limits of running requests."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from bridgepool.gateway import GatewaySettings
from bridgepool.gateway.providers import Client, ClientRules, hash_key, new_client_key
from tests.gateway.proxy.dying import CUT, answer, closed_port, start_dying
from tests.gateway.proxy.raw import connect, post
from tests.gateway.proxy.rig import CHAT, Answer, Rig, anthropic, open_rig, openai, own_refusals

AI = f"/ai/v1{CHAT}"


async def ask(rig: Rig, body: object = None) -> Answer:
    return await rig.ask(AI, {"model": "m"} if body is None else body)


# -- other providers -------------------------------------------------------------------------------


async def broken(nursery: trio.Nursery, how: str) -> dict[str, Any]:
    """Return the fields of a provider that cannot serve, after one request."""
    if how == "refuses":
        return {"base_url": closed_port()}
    if how == "open":
        return {"base_url": closed_port(), "breaker": True, "breaker_failures": 1}
    said = {"503": answer(503), "cut": CUT, "429": answer(429), "401": answer(401)}[how]
    return {"base_url": (await start_dying(nursery, then=said)).url}


@pytest.mark.parametrize("how", ["refuses", "open", "503", "cut", "429", "401"])
async def test_a_request_that_a_provider_cannot_serve_goes_to_its_fallback(
    nursery: trio.Nursery, how: str
) -> None:
    fields = await broken(nursery, how)
    other = await start_dying(nursery)
    first = openai(fields.pop("base_url"), fallback=["other"], **fields)
    settings = GatewaySettings(allow_anonymous=True, expose_route_headers=True)
    async with open_rig(
        first, openai(other.url, "other", keys=["sk-other"]), nursery=nursery, settings=settings
    ) as rig:
        for _ in range(2):
            found = await ask(rig, {"model": "m" * 100})
            assert found.status == 200
            assert found.headers[b"x-bridgepool-fallback"] == b"other"
            assert found.headers[b"x-bridgepool-provider"] == b"other"
        *_, record = await rig.wait_records(2)
        assert (record.provider, record.fallback_from) == ("other", "ai")
        assert record.path == AI
    assert b"\r\nauthorization: bearer sk-other" in other.heads[0]
    assert len(other.bodies[0]) > 100


@pytest.mark.parametrize(("said", "status"), [(answer(503), 503), (CUT, 502)])
async def test_a_body_that_cannot_be_sent_again_goes_to_no_other_provider(
    nursery: trio.Nursery, said: bytes, status: int
) -> None:
    upstream, other = await start_dying(nursery, said), await start_dying(nursery)
    first = openai(upstream.url, fallback=["b"], max_replay_bytes=100_000)
    async with open_rig(first, openai(other.url, "b"), nursery=nursery) as rig:
        assert (await ask(rig, b"x" * 100_001)).status == status
    assert (upstream.count, other.count) == (1, 0)


async def test_a_provider_without_keys_that_stands_in_is_recorded_without_one(
    nursery: trio.Nursery,
) -> None:
    upstream, other = await start_dying(nursery, CUT), await start_dying(nursery)
    providers = openai(upstream.url, fallback=["b"]), openai(other.url, "b", keys=[])
    async with open_rig(*providers, nursery=nursery) as rig:
        assert (await ask(rig)).status == 200
        [record] = await rig.wait_records(1)
    assert (record.provider, record.upstream_key) == ("b", "")


async def test_a_healthy_provider_has_no_fallback_and_does_not_look_for_one(
    nursery: trio.Nursery,
) -> None:
    upstream, other = await start_dying(nursery), await start_dying(nursery)
    providers = (openai(upstream.url, fallback=["b"]), openai(other.url, "b"))
    async with open_rig(*providers, nursery=nursery) as rig:
        found = await ask(rig)
        assert b"x-bridgepool-fallback" not in found.headers
        [record] = await rig.wait_records(1)
        assert rig.gateway._runtimes.in_force.get("b") is None  # opened when it is needed
    assert (record.fallback_from, other.count) == ("", 0)


async def test_fallbacks_are_tried_in_order_after_the_retries_and_none_has_its_own(
    nursery: trio.Nursery, clock: MockClock
) -> None:
    first, second, third, fourth = [await start_dying(nursery, then=CUT) for _ in range(4)]
    fourth.then = answer(200)
    async with open_rig(
        openai(first.url, retries=1, fallback=["b", "c"]),
        openai(second.url, "b", fallback=["ai", "d"]),
        openai(third.url, "c", retries=1, fallback=["d"]),
        openai(fourth.url, "d"),
        nursery=nursery,
    ) as rig:
        assert (await ask(rig)).code == "upstream_cut"
        [record] = await rig.wait_records(1)
    assert [first.count, second.count, third.count, fourth.count] == [2, 1, 2, 0]
    assert (record.provider, record.fallback_from, record.attempts) == ("c", "ai", 5)


async def test_what_cannot_stand_in_is_passed_over(nursery: trio.Nursery) -> None:
    upstream = await start_dying(nursery, then=answer(503, body='{"their": 1}'))
    off, own = await start_dying(nursery), await start_dying(nursery)
    hurt = closed_port()
    async with open_rig(
        openai(upstream.url, fallback=["gone", "off", "claude", "own", "hurt"]),
        openai(off.url, "off", enabled=False),
        anthropic(off.url, "claude"),
        openai(own.url, "own", client_keys=True),
        openai(hurt, "hurt", breaker=True, breaker_failures=1),
        nursery=nursery,
    ) as rig:
        assert (await ask(rig)).code == "upstream_unreachable"  # of "hurt", which opens its breaker
        found = await ask(rig)
        assert (found.status, found.json) == (503, {"their": 1})
    assert (off.count, own.count) == (0, 0)


async def test_a_fallback_that_leads_nowhere_is_logged_once(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    upstream = await start_dying(nursery)
    first = openai(upstream.url, fallback=["gone", "claude"])
    async with open_rig(first, anthropic(upstream.url), nursery=nursery) as rig:
        await rig.replace(first, anthropic(upstream.url), openai(upstream.url, "new"))
        await rig.replace(first, anthropic(upstream.url), openai(upstream.url, "gone"))
    lines = [one for one in caplog.records if one.message == "fallback cannot be used"]
    assert [(one.fallback, one.reason) for one in lines] == [  # type: ignore[attr-defined]
        ("claude", "it is of another type"),
        ("gone", "there is no provider of that name"),
    ]


async def test_what_one_provider_keeps_is_asked_of_no_other(nursery: trio.Nursery) -> None:
    upstream, other = await start_dying(nursery, then=answer(503)), await start_dying(nursery)
    providers = (openai(upstream.url, fallback=["b"]), openai(other.url, "b"))
    async with open_rig(*providers, nursery=nursery) as rig:
        for method, path in (("GET", "/responses/r-1"), ("POST", "/conversations")):
            body: object = {} if method == "POST" else None
            assert (await rig.ask(f"/ai/v1{path}", body)).status == 503
    assert other.count == 0


async def test_a_key_that_a_client_brought_goes_to_its_provider_only(
    nursery: trio.Nursery,
) -> None:
    upstream, other = await start_dying(nursery, then=answer(503)), await start_dying(nursery)
    key = new_client_key()
    ada = Client(id="ada", key_hashes=(hash_key(key),))
    async with open_rig(
        openai(upstream.url, fallback=["b"], client_keys=True),
        openai(other.url, "b", keys=["sk-central"], client_keys="prefer"),
        nursery=nursery,
        clients=[ada],
    ) as rig:
        headers = (
            (b"x-bridgepool-key", key.reveal().encode()),
            (b"authorization", b"Bearer sk-hers"),
        )
        assert (await rig.ask(AI + "?api-key=sk-hers", {}, headers)).status == 200
    assert b"sk-hers" in upstream.heads[0]
    assert b"sk-hers" not in other.heads[0]
    assert b"bearer sk-central" in other.heads[0]


async def test_a_client_gets_no_fallback_that_it_may_not_use(nursery: trio.Nursery) -> None:
    upstream = await start_dying(nursery, then=answer(503))
    closed, open_ = await start_dying(nursery), await start_dying(nursery)
    key = new_client_key()
    rules = ClientRules(providers=("ai", "c"), models=("m",))
    ada = Client(id="ada", key_hashes=(hash_key(key),), rules=rules)
    async with open_rig(
        openai(upstream.url, retries=1, fallback=["b", "c"]),
        openai(closed.url, "b"),
        openai(open_.url, "c"),
        nursery=nursery,
        clients=[ada],
    ) as rig:
        headers = (
            (b"authorization", b"Bearer " + key.reveal().encode()),
            (b"content-type", b"application/json"),
        )
        found = await rig.ask(AI, {"model": "m"}, headers)
        assert found.headers[b"x-bridgepool-fallback"] == b"c"
    assert (upstream.count, closed.count, open_.count) == (2, 0, 1)
    assert upstream.bodies[0] == upstream.bodies[1] == open_.bodies[0] != b""


# -- running requests ------------------------------------------------------------------------------


async def test_over_its_limit_a_provider_refuses_and_a_place_is_held_until_the_end(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    half = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab"
    upstream, free = await start_dying(nursery, half), await start_dying(nursery)
    limited = openai(upstream.url, max_concurrent=1, max_waiting=0)
    async with open_rig(limited, openai(free.url, "free"), nursery=nursery) as rig:
        async with connect(rig.address) as client:
            await client.send(post(AI))
            await client.read_until(b"\r\n\r\nab")
            found = await ask(rig)
            assert (found.status, found.code) == (503, "provider_overloaded")
            assert found.headers[b"retry-after"] == b"1"
            await rig.replace(
                openai(upstream.url, max_concurrent=1, max_waiting=0, retries=1),
                openai(free.url, "free"),
            )
            assert (await ask(rig)).code == "provider_overloaded"
            assert (await rig.ask(f"/free/v1{CHAT}", {})).status == 200
            await rig.replace(
                openai(upstream.url, max_concurrent=1, max_waiting=0, fallback=["free"]),
                openai(free.url, "free"),
            )
            assert (await ask(rig)).headers[b"x-bridgepool-fallback"] == b"free"
        await rig.wait_records(5)
        assert (await ask(rig)).status == 200
    assert upstream.count == 2
    assert own_refusals(caplog) == [("WARNING", "provider_overloaded")] * 2


async def test_requests_that_wait_run_in_their_order(nursery: trio.Nursery) -> None:
    upstream = await start_dying(nursery)
    done: list[int] = []
    async with open_rig(
        openai(upstream.url, max_concurrent=1, max_waiting=5), nursery=nursery
    ) as rig:
        runtime: Any = rig.gateway._runtimes.in_force.get("ai")
        assert (await ask(rig)).status == 200
        runtime = rig.gateway._runtimes.in_force.get("ai")
        admission = runtime._resilience.state.admission
        await admission.enter()

        async def come(number: int) -> None:
            assert (await ask(rig, {"n": number})).status == 200
            done.append(number)

        async with trio.open_nursery() as asking:
            for number in range(5):
                asking.start_soon(come, number)
                with trio.fail_after(60):
                    while admission.waiting <= number:  # noqa: ASYNC110 -- no event tells
                        await trio.sleep(0.001)
            assert (await ask(rig)).code == "provider_overloaded"
            admission.leave()
        assert done == list(range(5))
        await wait_all_tasks_blocked()
        assert admission.document() == {"running": 0, "waiting": 0, "limit": 1, "refused": 1}


async def test_a_request_that_a_breaker_refuses_does_not_wait_for_its_turn(
    nursery: trio.Nursery,
) -> None:
    upstream = await start_dying(nursery, *[answer(503)] * 5)
    patient: dict[str, Any] = {"breaker_window": 300, "breaker_open": 300, "wait_timeout": 60}
    provider = openai(upstream.url, breaker=True, max_concurrent=1, max_waiting=5, **patient)
    async with open_rig(provider, nursery=nursery) as rig:
        for _ in range(5):
            assert (await ask(rig)).status == 503
        runtime: Any = rig.gateway._runtimes.in_force.get("ai")
        admission = runtime._resilience.state.admission
        await admission.enter()
        with trio.fail_after(30):
            assert (await ask(rig)).code == "circuit_open"
        admission.leave()
        assert (await ask(rig)).code == "circuit_open"
        assert (upstream.count, admission.running, admission.refused) == (5, 0, 0)
