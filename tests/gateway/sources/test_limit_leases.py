"""Limits over two gateways of one control plane, by real sessions."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from bridgepool.gateway import ControlPlane, open_control_plane, open_gateway
from bridgepool.gateway._protocol import LeasedShares, LeaseShares
from bridgepool.gateway.control import (
    MemoryBackend,
    open_gateway_service,
    open_hub,
)
from bridgepool.gateway.control.store import budgets_of
from bridgepool.gateway.limits._budgets import period_start
from bridgepool.gateway.limits._draws import Draw
from bridgepool.gateway.limits._limiter import (
    ONE_REQUEST,
    Costs,
    Exceeded,
    Grant,
    SharedLimits,
    costs_of,
)
from bridgepool.gateway.limits._share_pool import Share
from bridgepool.gateway.providers import Caller, ClientRules
from bridgepool.gateway.providers._access_keys import GATEWAY_KEYS
from bridgepool.gateway.providers._wire import ProviderRow
from bridgepool.gateway.sources._limit_leases import LimitLeases
from bridgepool.remote import Identity, RemoteError, RemoteService
from tests.gateway.control.stores import ADA
from tests.gateway.control.stores import opened as opened_store


def ada(**rules: Any) -> Caller:
    return Caller("ada", "k1", ClientRules(**rules))


async def ask(
    limits: SharedLimits, caller: Caller, tokens: float = 0.0, money: float = 0.0
) -> Grant | Exceeded:
    """Ask for a request of so much as a gateway does."""
    return await ask_for(limits, caller, costs_of(tokens, money))


async def ask_for(limits: SharedLimits, caller: Caller, costs: Costs) -> Grant | Exceeded:
    await limits.prepare(caller, costs)
    found = limits.limiter.admit(caller, costs)
    refused = isinstance(found, Exceeded) and not found.is_budget
    if refused and await limits.refresh(caller):
        found = limits.limiter.admit(caller, costs)
    return found


async def admits(
    limits: SharedLimits, caller: Caller, tokens: float = 0.0, money: float = 0.0
) -> str:
    """Make a request; return the rule that refuses it, or ""."""
    found = await ask(limits, caller, tokens, money)
    return found.rule if isinstance(found, Exceeded) else ""


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[ControlPlane, ControlPlane]]:
    backend = MemoryBackend()
    async with open_gateway_service(backend) as service:
        await trio.sleep(10)  # it has settled
        identities = [identify(backend, name) for name in ("one", "two")]
        async with connected(service, *identities) as planes:
            yield planes


def identify(backend: MemoryBackend, name: str) -> Identity:
    """Register a gateway."""
    key_id = GATEWAY_KEYS.id_of(backend.add_gateway_key(name).reveal().encode())
    return Identity(name, (key_id or b"").decode())


@asynccontextmanager
async def connected(
    service: RemoteService[ProviderRow], *identities: Identity
) -> AsyncIterator[tuple[ControlPlane, ControlPlane]]:
    """Connect two gateways."""
    first, second = identities
    async with (
        open_control_plane(partial(service.connect, first), name="one") as one,
        open_control_plane(partial(service.connect, second), name="two") as two,
    ):
        for plane in (one, two):
            while not plane.providers.status.connected:  # noqa: ASYNC110 -- no event tells
                await trio.sleep(0.1)
        yield one, two


async def test_two_gateways_admit_together_what_the_limit_says(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with opened() as (one, two):
        caller = ada(requests_per_minute=10, tokens_per_day=1000)
        remote = one.providers
        async with open_gateway(remote, remote.changes, clients=one.clients) as gateway:
            assert gateway._uses.limiter is one.clients._leases.limiter
        done = [await admits(one.clients._leases, caller, 10) for _ in range(6)]
        assert done == [""] * 6  # the first waited for its share, and no other
        await trio.sleep(2)
        done = [await admits(plane.clients._leases, caller, 10) for plane in (one, two) * 20]
        assert 3 <= done.count("") <= 5  # four are left, and some time has passed
        assert set(done) == {"", "requests_per_minute"}
        await trio.sleep(120)
        done = []
        for _ in range(60):
            await trio.sleep(0.2)
            done += [await admits(two.clients._leases, caller, 10)]
        assert 10 <= done.count("") <= 12  # all of it can be used at the other gateway


async def test_a_burst_over_two_gateways_by_turns_is_served_up_to_the_limit(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The first gateway got all of it, and the other refused nearly all of its requests."""
    async with opened() as (one, two):
        caller = ada(requests_per_minute=30, max_concurrent=40)
        done = [await admits(plane.clients._leases, caller) for plane in (one, two) * 23]
        assert done[:28] == [""] * 28
        assert 30 <= done.count("") <= 31


async def test_the_first_request_at_each_gateway_waits_for_a_share_and_has_a_place(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It ran on a share that nobody had given, and held no place in the reports."""
    async with opened() as (one, two):
        caller = ada(max_concurrent=3)
        leases = [plane.clients._leases for plane in (one, two)]
        done = [await admits(limits, caller) for limits in leases for _ in range(3)]
        assert done == [""] * 3 + ["max_concurrent"] * 3
        # A request that needs nothing of a limit asks for shares, too, and does not wait for long.
        for name, rules, costs in (
            ("bob", ClientRules(tokens_per_day=9), costs_of()),
            ("cyd", ClientRules(money_per_day=9), ONE_REQUEST),
        ):
            started = trio.current_time()
            found = await ask_for(leases[1], Caller(name, name, rules), costs)
            assert isinstance(found, Grant)
            assert trio.current_time() - started < 0.4
    limits, caller = LimitLeases(), ada(max_concurrent=9)
    assert [await admits(limits, caller) for _ in range(2)] == ["", "max_concurrent"]
    [(_scope, asked)] = limits._demands()
    assert asked.held == 1  # what runs on a share that was lent


async def test_a_budget_that_is_spent_anywhere_is_spent_everywhere(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """That it does not outlive this control plane, which has no store, was not logged."""
    line = "budgets of clients are in memory; a restart begins them anew"
    async with opened() as (one, two):
        await admits(one.clients._leases, ada(tokens_per_minute=1000), 5)
        assert line not in caplog.messages
        caller, spent = ada(tokens_per_day=1000), 0
        for _ in range(300):
            await trio.sleep(0.2)
            for plane in (one, two):
                spent += await admits(plane.clients._leases, caller, 5) == ""
        assert 180 <= spent <= 202
        for plane in (one, two):
            found = plane.clients._leases.limiter.admit(caller, costs_of(5))
            assert isinstance(found, Exceeded)
            assert (found.rule, found.is_budget) == ("tokens_per_day", True)
            # `/status` had that they outlive it.
            remote = plane.providers
            async with open_gateway(remote, remote.changes, clients=plane.clients) as gateway:
                assert (await gateway.budgets())["in_memory"]
    assert [one.name for one in caplog.records if one.message == line] == ["bridgepool.control"]


@pytest.mark.parametrize(("pause", "each"), [(3.0, 50), (100.0, 15)])
async def test_requests_that_cost_little_are_served_to_the_end_of_a_budget(
    autojump_clock: trio.testing.MockClock, pause: float, each: int
) -> None:
    """Such a client was refused for good when it had spent a hundredth of its budget."""
    async with opened() as (one, two):
        caller, price, done = ada(money_per_day=0.01), 0.009 / each / 2, 0
        for plane in (one, two) * each:
            await trio.sleep(pause)
            grant = await ask(plane.clients._leases, caller, 0, 1e-6)
            assert isinstance(grant, Grant)
            grant.end(costs_of(0, price))  # the output costs more
            done += 1
        for plane in (one, two) * 20:
            await trio.sleep(1)
            found = await ask(plane.clients._leases, caller, 0, price)
            done += isinstance(found, Grant)
        assert 2.15 * each <= done <= 2.3 * each + 1
        assert isinstance(found, Exceeded)
        assert (found.rule, found.is_budget) == ("money_per_day", True)


async def test_a_request_that_runs_no_model_needs_nothing_of_a_budget(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with opened() as (one, _two):
        caller, limits = ada(money_per_day=0, requests_per_minute=3), one.clients._leases
        assert await admits(limits, caller) == "money_per_day"
        for expected in (Grant, Grant, Grant, Exceeded):
            found = await ask_for(limits, caller, ONE_REQUEST)
            assert isinstance(found, expected)
            if isinstance(found, Grant):
                found.end(None)


async def test_small_sums_are_spent_once_by_two_gateways_over_restarts(tmp_path: Path) -> None:
    """With budgets in a store, at real time: what is refused is tried again."""
    caller, price, done = ada(money_per_month=2e-3), 4e-5, 0
    async with opened_store(f"sqlite:{tmp_path / 'store.db'}") as store:
        keys = [(await store.create_gateway_key(ADA, name)).access_key for name in ("a", "b")]
        identities = [Identity(key.name, key.id) for key in keys]
        month = period_start("month", time.time())
        draw = Draw(
            scope="client", id="ada", rule="money_per_month", period=month, until=month, limit=1
        )
        await budgets_of(store).draw([attrs.evolve(draw, owed=1e-3)])  # half of it
        for most in (12, 100):
            async with (
                open_hub(store) as hub,
                open_gateway_service(hub, observer=hub, limits=hub.limits) as service,
                connected(service, *identities) as planes,
            ):
                spent = False
                with trio.fail_after(60):
                    while done < most and not spent:
                        for plane in planes:
                            grant = await ask(plane.clients._leases, caller, 0, price / 20)
                            if isinstance(grant, Grant):
                                grant.end(costs_of(0, price))
                                done += 1
                            else:
                                spent = grant.is_budget
                assert not planes[0].clients._leases.in_memory
        assert 22 <= done <= 27
        [row] = await budgets_of(store).draw([draw])
        assert 2e-3 <= row.spent <= 1.1 * 2e-3


async def test_what_the_last_request_before_a_stop_used_is_charged(tmp_path: Path) -> None:
    """It was reported a second later at most, and not at all by a gateway that had stopped.

    Nor by one that a program of its own follows: by turns it leaves the block, and is cancelled.
    """
    caller, done = ada(money_per_month=1.0), 0
    async with opened_store(f"sqlite:{tmp_path / 'store.db'}") as store:
        keys = [(await store.create_gateway_key(ADA, name)).access_key for name in ("a", "b")]
        identities = [Identity(key.name, key.id) for key in keys]
        async with (
            open_hub(store) as hub,
            open_gateway_service(hub, observer=hub, limits=hub.limits) as service,
        ):
            spent = False
            while not spent and done < 30:
                with trio.CancelScope() as scope:
                    async with connected(service, *identities) as (one, _):
                        leases = one.clients._leases
                        grant = await ask(leases, caller, 0, 1e-3)
                        if isinstance(grant, Grant):
                            grant.end(costs_of(0, 0.1))
                            done += 1
                        else:
                            spent = grant.is_budget
                        if done % 2:
                            scope.cancel()
                            await trio.lowlevel.checkpoint()
    assert 9 <= done <= 12  # 10, if each report was answered in time


async def test_what_a_gateway_holds_of_a_budget_when_it_stops_is_spent_by_others(
    autojump_clock: trio.testing.MockClock,
) -> None:
    caller, used = ada(money_per_day=1.0), 0.0
    async with open_gateway_service(backend := MemoryBackend()) as service:
        await trio.sleep(10)  # it has settled
        identities = [identify(backend, name) for name in ("one", "two")]
        for _ in range(20):  # each held up to a fiftieth
            async with connected(service, *identities) as (one, _two):
                grant = await ask(one.clients._leases, caller, 0, 1e-3)
                assert isinstance(grant, Grant)
                grant.end(costs_of(0, 1e-3))
                used += 1e-3
        async with connected(service, *identities) as (_one, two):
            while isinstance(grant := await ask(two.clients._leases, caller, 0, 0.01), Grant):
                grant.end(costs_of(0, 0.01))
                used += 0.01
                await trio.sleep(1)
        assert grant.is_budget
        assert 0.95 <= used <= 1.02


async def test_a_gateway_whose_control_plane_is_away_or_older_serves_nevertheless(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits, caller = LimitLeases(), ada(requests_per_minute=200)
    done = [await admits(limits, caller) for _ in range(5)]
    assert done.count("") == 2  # the least share, one of a hundred

    async def old(asked: LeaseShares) -> LeasedShares:
        await trio.lowlevel.checkpoint()
        raise RemoteError("unknown_method", "")

    limits.note_session(old)
    await admits(limits, caller)
    done = [await admits(limits, caller) for _ in range(300)]
    assert 196 <= done.count("") <= 199  # it counts alone, with what was used
    assert limits.in_memory
    async with trio.open_nursery() as nursery:
        nursery.start_soon(limits.run)
        await trio.sleep(5)
        nursery.cancel_scope.cancel()


async def test_a_client_whose_gateway_stops_is_served_by_the_next_one_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What a gateway could have used of a rate stayed reserved, so for a minute each got 429."""
    backend, caller = MemoryBackend(), ada(requests_per_minute=200, tokens_per_minute=1000)
    async with open_gateway_service(backend) as service:
        await trio.sleep(10)
        done = []
        for name in ("one", "two"):
            key_id = GATEWAY_KEYS.id_of(backend.add_gateway_key(name).reveal().encode())
            connect = partial(service.connect, Identity(name, (key_id or b"").decode()))
            async with open_control_plane(connect, name=name) as plane:
                while not plane.providers.status.connected:  # noqa: ASYNC110 -- no event tells
                    await trio.sleep(0.1)
                leases = plane.clients._leases
                done.append([await admits(leases, caller, 5) for _ in range(120)].count(""))
    # What was used has not come back, and no more than that is kept from the next one.
    assert done[0] == 120
    assert 78 <= done[1] <= 86


@pytest.mark.parametrize("number", [math.nan, math.inf])
async def test_a_share_that_is_no_number_is_not_taken(
    autojump_clock: trio.testing.MockClock, number: float
) -> None:
    """Requests got 500, and no further report of the gateway was taken, until it was restarted."""
    limits, caller, given = LimitLeases(), ada(requests_per_minute=10, max_concurrent=5), [number]

    async def lease(asked: LeaseShares) -> LeasedShares:
        await trio.lowlevel.checkpoint()
        assert all(math.isfinite(demand.held) for demand in asked.demands)
        return LeasedShares(tuple(Share(given[0], given[0]) for _ in asked.demands))

    limits.note_session(lease)
    assert await admits(limits, caller) == ""
    given[0] = 5.0
    await trio.sleep(60)
    assert await admits(limits, caller) == ""
    assert limits.limiter.scopes["client", "ada"].rates["requests_per_minute"].share == 5


async def test_a_client_that_paused_is_served_while_the_control_plane_is_away(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Its share of whole requests had gone back, and 0 was held on to: each request got 429."""
    async with opened() as (one, _two):
        caller, leases = ada(requests_per_minute=200, max_concurrent=5), one.clients._leases
        for _ in range(3):
            found = await ask(leases, caller)
            assert isinstance(found, Grant)
            found.end(None)
        await trio.sleep(100)
        leases.note_session(None)
        grants = []
        for _ in range(2):  # the least share: of requests at a time one, of 200 a minute two
            found = await ask(leases, caller)
            assert isinstance(found, Grant)
            refused = await ask(leases, caller)
            assert isinstance(refused, Exceeded)
            grants.append(refused.rule)
            found.end(None)
        assert grants == ["max_concurrent", "max_concurrent"]
        assert await admits(leases, caller) == "requests_per_minute"
