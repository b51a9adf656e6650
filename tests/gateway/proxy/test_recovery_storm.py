"""A storm: upstreams that fail at random, clients that leave, providers that change meanwhile."""

from __future__ import annotations

import random
from typing import Any

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from bridgepool.gateway import GatewaySettings
from bridgepool.gateway.proxy._access_log import Outcome
from bridgepool.http import UpstreamError
from tests.gateway.proxy.dying import CUT, Dying, answer, closed_port, start_dying
from tests.gateway.proxy.rig import CHAT, Rig, open_rig, openai

REQUESTS = 200
HALF = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\nab"
ANSWERS = (answer(200), answer(503), answer(429), answer(502), answer(401), answer(500), CUT, HALF)
WEIGHTS = (20, 3, 0.1, 2, 0.1, 1, 3, 1)


def providers(draw: random.Random, first: Dying, second: Dying, closed: str) -> list[Any]:
    """Return any form of three providers, of which each may stand in for another."""
    shared = {
        "breaker": draw.random() < 0.7,
        "breaker_open": 0.5,
        "breaker_failures": draw.choice([2, 5]),
        "retries": draw.choice([0, 1, 3]),
        "max_concurrent": draw.choice([0, 3, 20]),
        "max_waiting": draw.choice([0, 5]),
        "wait_timeout": 0.5,
    }
    return [
        openai(
            first.url, "ai", keys=["a", "b"][: draw.choice([1, 2])], fallback=["b", "c"], **shared
        ),
        openai(second.url, "b", keys=["c"], fallback=["ai"], **shared),
        # Never the same again: that would be no replacement.
        openai(closed, "c", headers={"x-form": str(draw.random())}, **shared),
    ]


async def test_nothing_is_lost_or_left_behind_in_a_storm(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    mock_clock.rate = 10
    draw = random.Random(7)
    first, second = await start_dying(nursery), await start_dying(nursery)
    for upstream in (first, second):
        upstream.answers.extend(draw.choices(ANSWERS, WEIGHTS, k=2 * REQUESTS))
    closed = closed_port()
    settings = GatewaySettings(
        allow_anonymous=True, min_reload_interval=0.001, max_concurrent=30, max_waiting=500
    )
    async with open_rig(
        *providers(draw, first, second, closed), nursery=nursery, settings=settings
    ) as rig:
        async with trio.open_nursery() as asking:
            for number in range(REQUESTS):
                asking.start_soon(ask, rig, number, draw.random() < 0.1)
                if number % 10 == 0:
                    await rig.replace(*providers(draw, first, second, closed))
        with trio.fail_after(300):
            while rig.gateway.statistics().requests:  # noqa: ASYNC110 -- no event tells
                await trio.sleep(0.01)
        await wait_all_tasks_blocked()
        records = rig.records
        assert not [one for one in records if one.outcome is Outcome.FAILED]
        # A stream that was cut is not tried again, and no request more often than all may.
        assert max(one.attempts for one in records) <= 4 * 2 + 4 + 4
        assert sum(one.status == 200 for one in records) > REQUESTS / 10
        check_nothing_is_left(rig)
    bodies: dict[bytes, set[bytes]] = {}
    for body in first.bodies + second.bodies:
        bodies.setdefault(body[:12], set()).add(body)
    assert all(len(forms) == 1 for forms in bodies.values())
    assert any(one.fallback_from for one in records)
    assert any(one.attempts > 1 for one in records)


async def ask(rig: Rig, number: int, leaves: bool) -> None:
    """Ask once; the body has the number of the request at its beginning and at its end."""
    body = b'{"n":"%04d","text":"%s%04d"}' % (number, b"x" * (number * 400), number)
    with trio.move_on_after(0.2 if leaves else 60):
        try:
            found = await rig.ask(f"/ai/v1{CHAT}", body)
        except UpstreamError:
            return  # a stream that was cut
        assert found.status in (200, 401, 429, 500, 502, 503)


def check_nothing_is_left(rig: Rig) -> None:
    assert rig.gateway._replay_budget.used == 0
    admission = rig.gateway._admission
    assert (admission.running, admission.waiting) == (0, 0)
    for entry in rig.gateway._runtimes.in_force.entries():
        state: Any = rig.gateway._runtimes.states.get(entry.provider.name)
        limits = state.resilience.admission
        assert (limits.running, limits.waiting) == (0, 0)
        for endpoint in state.resilience.breakers._endpoints.values():
            assert all(breaker._probes == 0 for breaker in endpoint.values())
        assert all(key.in_flight == 0 for key in state.keys.states.values())
