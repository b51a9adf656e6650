"""Limits over many gateways: in total never more than the limit, and nearly all of it is used.

Ten simulated gateways with real limiters, and a control plane's ledger, under load that moves
between them: answers that are late or lost, gateways that are killed and started, clocks that are
set, and a control plane that starts again without memory.
"""

from __future__ import annotations

import random
from typing import Any

import attrs
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from bridgepool.gateway.limits._leased import LeasedScope
from bridgepool.gateway.limits._limiter import Amounts, Exceeded, Grant, Limiter
from bridgepool.gateway.limits._shares import Share, ShareDemand, ShareLedger
from bridgepool.gateway.providers import Caller, ClientRules

NEW_YEAR = 1_767_225_600.0
TICK = 0.1
GATEWAYS = 10


@attrs.define(eq=False)
class Gateway:
    name: str
    world: World
    limiter: Limiter = attrs.field(init=False)
    skew: float = 0.0
    """How much its clock is wrong."""
    next_report: float = 0.0
    # (when it arrives, at the plane, what was asked)
    asking: tuple[float, tuple[ShareDemand, ...]] | None = None
    # (when it arrives, what was asked, the answer)
    answer: tuple[float, tuple[ShareDemand, ...], tuple[Share, ...]] | None = None
    running: list[tuple[float, Grant, float]] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        world = self.world
        self.limiter = Limiter(
            lambda: world.now, lambda: NEW_YEAR + world.now + self.skew, LeasedScope
        )

    def turn(self) -> None:
        """Let time pass: answers arrive, requests end, it reports."""
        world = self.world
        if self.answer is not None and self.answer[0] <= world.now:
            _when, asked, given_shares = self.answer
            self.answer = None
            for one, share in zip(asked, given_shares, strict=True):
                scope = self.limiter.scopes["client", one.id]
                assert isinstance(scope, LeasedScope)
                scope.apply(one, share, world.now)
        for request in list(self.running):
            ends, grant, tokens = request
            if ends <= world.now:
                self.running.remove(request)
                grant.end(Amounts(tokens, 0.0))
        if self.asking is not None and self.asking[0] <= world.now:
            asked = self.asking[1]
            shares = world.ledger.lease(self.name, asked, world.now, NEW_YEAR + world.now)
            self.asking = None
            if world.random.random() > world.loss:
                self.answer = (world.now + world.delay(), asked, shares)
        if world.now >= self.next_report and world.plane_is_there:
            # One that is unanswered is given up.
            self.next_report = world.now + 1.0
            self.answer = None
            asked = tuple(self.demands())
            lost = world.random.random() <= world.loss
            self.asking = None if lost else (world.now + world.delay(), asked)

    def demands(self) -> list[ShareDemand]:
        return [
            one
            for (kind, name), scope in self.limiter.scopes.items()
            for one in scope.demands(kind, name, self.world.now)  # type: ignore[attr-defined]  # leased
        ]

    def ask(self, tokens: float, duration: float) -> bool:
        """Make a request; the first one waits for a share, if a control plane can be asked."""
        for scope in self.limiter.scopes_of(self.world.caller):
            if scope.lacks_shares and self.world.plane_is_there:  # type: ignore[attr-defined]  # leased
                if self.asking is None and self.answer is None:
                    self.next_report = min(self.next_report, self.world.now)
                return False
        found = self.limiter.admit(self.world.caller, Amounts(tokens, 0.0))
        if isinstance(found, Exceeded):
            return False
        self.running.append((self.world.now + duration, found, tokens))
        return True


@attrs.define(eq=False)
class World:
    caller: Caller
    random: random.Random
    loss: float = 0.0
    now: float = 100.0
    ledger: ShareLedger = attrs.field(factory=lambda: ShareLedger(0.0))
    plane_is_there: bool = True
    gateways: list[Gateway] = attrs.field(factory=list)
    started: int = 0

    def delay(self) -> float:
        return self.random.choice((0.0, 0.0, 0.05, 0.3))

    def start(self) -> None:
        self.started += 1
        gateway = Gateway(f"g{self.started}", self, next_report=self.now)
        self.gateways.append(gateway)
        self.ledger.begin(gateway.name)

    def kill(self) -> None:
        gateway = self.gateways.pop(self.random.randrange(len(self.gateways)))
        self.ledger.end(gateway.name, self.now)

    def restart_plane(self) -> None:
        self.ledger = ShareLedger(self.now)
        for gateway in self.gateways:
            self.ledger.begin(gateway.name)
            gateway.asking = gateway.answer = None


def run(
    rules: dict[str, Any],
    seed: int,
    seconds: float = 120.0,
    per_tick: int = 4,
    tokens: float = 1.0,
    duration: float = 0.2,
    kills: float = 0.0,
    restarts: bool = False,
    loss: float = 0.1,
) -> tuple[list[tuple[float, float]], int]:
    """Return when how much was admitted, and the most requests that ran at the same time."""
    world = World(Caller("ada", "k", ClientRules(**rules)), random.Random(seed), loss)
    for _ in range(GATEWAYS):
        world.start()
    admitted: list[tuple[float, float]] = []
    most, weights = 0, [1.0] * GATEWAYS
    while world.now < 100.0 + seconds:
        world.now += TICK
        if world.random.random() < 0.01:  # the load moves
            weights = [world.random.choice((0.0, 0.1, 1.0, 5.0)) for _ in range(GATEWAYS)]
        if world.random.random() < kills:
            world.kill()
            world.start()
        if restarts and world.random.random() < 0.002:
            world.restart_plane()
        if world.random.random() < 0.01:
            world.random.choice(world.gateways).skew = world.random.uniform(-7200, 7200)
        for gateway in world.gateways:
            gateway.turn()
        if not any(weights):
            continue
        for gateway in world.random.choices(world.gateways, weights, k=per_tick):
            if gateway.ask(tokens, duration):
                admitted.append((world.now, tokens))
        most = max(most, sum(len(gateway.running) for gateway in world.gateways))
    return admitted, most


def worst(admitted: list[tuple[float, float]], limit: float) -> float:
    """Return the largest excess over the burst and the rate in any time, as a part of the limit."""
    level, last, excess = 0.0, 0.0, 0.0
    for at, amount in admitted:  # a leaky bucket that is the limit of all
        level = max(0.0, level - (at - last) * limit / 60) + amount
        last, excess = at, max(excess, level - limit)
    return excess / limit


@settings(max_examples=8, deadline=None, phases=[Phase.generate])
@given(st.integers(0, 2**32))
def test_a_rate_holds_over_all_gateways_and_most_of_it_is_used(seed: int) -> None:
    admitted, _ = run({"requests_per_minute": 600}, seed)
    assert worst(admitted, 600) <= 0.001
    assert len(admitted) >= 0.7 * (600 + 600 * 2)


@settings(max_examples=8, deadline=None, phases=[Phase.generate])
@given(st.integers(0, 2**32))
def test_a_rate_holds_when_gateways_are_killed_or_the_control_plane_starts_anew(
    seed: int,
) -> None:
    admitted, _ = run({"requests_per_minute": 600}, seed, kills=0.01)
    assert worst(admitted, 600) <= 0.05
    admitted, _ = run({"requests_per_minute": 600}, seed, restarts=True)
    assert worst(admitted, 600) <= 0.05


@settings(max_examples=6, deadline=None, phases=[Phase.generate])
@given(st.integers(0, 2**32))
def test_a_rate_of_tokens_holds_over_all_gateways(seed: int) -> None:
    admitted, _ = run({"tokens_per_minute": 10_000}, seed, tokens=50, kills=0.003)
    assert worst(admitted, 10_000) <= 0.05


@settings(max_examples=6, deadline=None, phases=[Phase.generate])
@given(st.integers(0, 2**32))
def test_a_budget_holds_over_all_gateways_and_is_spent(seed: int) -> None:
    admitted, _ = run({"tokens_per_day": 5000}, seed, tokens=10)
    total = sum(amount for _at, amount in admitted)
    assert 0.9 * 5000 <= total <= 1.05 * 5000
    admitted, _ = run({"tokens_per_day": 5000}, seed, tokens=10, kills=0.005, restarts=False)
    assert sum(amount for _at, amount in admitted) <= 1.05 * 5000


@settings(max_examples=6, deadline=None, phases=[Phase.generate])
@given(st.integers(0, 2**32))
def test_requests_at_the_same_time_hold_over_all_gateways(seed: int) -> None:
    _, most = run({"max_concurrent": 20}, seed, duration=1.5, seconds=60)
    assert 10 <= most <= 20


def test_while_the_control_plane_is_away_gateways_go_on_with_what_they_hold() -> None:
    world = World(Caller("ada", "k", ClientRules(requests_per_minute=600)), random.Random(1))
    for _ in range(2):
        world.start()
    first, second = world.gateways

    def go_on(seconds: float, *asking: Gateway) -> int:
        done = 0
        for _ in range(round(seconds / TICK)):
            world.now += TICK
            for gateway in world.gateways:
                gateway.turn()
            done += sum(gateway.ask(1.0, 0.0) for gateway in asking for _ in range(3))
        return done

    go_on(100, first)
    world.plane_is_there = False
    assert 560 <= go_on(60, first) <= 600  # it held nearly all of it
    assert second.limiter.scopes == {}
    assert go_on(60, second) <= 12  # the least share: 6 a minute, and as many at once


@pytest.mark.parametrize("limit", [1, 3])
def test_a_small_limit_is_whole_somewhere(limit: int) -> None:
    admitted, _ = run({"requests_per_minute": limit}, 7, seconds=240)
    assert worst(admitted, limit) <= 1e-6 or len(admitted) <= limit * 4 + GATEWAYS
    assert len(admitted) >= limit


def test_a_gateway_that_is_gone_keeps_its_share_for_a_while() -> None:
    ledger = ShareLedger(-100.0)

    def lease(name: str, held: float, now: float, demand: float = 1.0) -> float:
        asked = ShareDemand(
            scope="client", id="a", rule="tokens_per_minute", limit=100, held=held, demand=demand
        )
        return ledger.lease(name, [asked], now, NEW_YEAR)[0].share

    for name in ("a", "b"):
        ledger.begin(name)
    assert lease("a", 0, 0.0) == pytest.approx(100)
    assert lease("b", 0, 1.0) == 0
    assert lease("a", 100, 2.0) == pytest.approx(50)
    assert lease("b", 0, 3.0) == 0  # until the other one has confirmed that it has less
    assert lease("a", 50, 4.0) == pytest.approx(50)
    assert lease("b", 0, 5.0) == pytest.approx(50)
    ledger.end("a", 6.0)
    assert lease("b", 50, 60.0) == pytest.approx(50)
    assert lease("b", 50, 66.0) == pytest.approx(100)
