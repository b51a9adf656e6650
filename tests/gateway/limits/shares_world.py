"""Simulated gateways and control planes that share limits."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import attrs

from bridgepool.gateway.limits._leased import LeasedScope
from bridgepool.gateway.limits._limiter import Costs, Exceeded, Grant, Limiter, costs_of
from bridgepool.gateway.limits._share_pool import Share, ShareDemand
from bridgepool.gateway.limits._shares import ShareLedger
from bridgepool.gateway.providers import Caller, ClientRules

NEW_YEAR = 1_767_225_600.0
TICK = 0.1
GATEWAYS = 10


@attrs.define(eq=False)
class Gateway:
    name: str
    world: World
    limiter: Limiter[LeasedScope] = attrs.field(init=False)
    skew: float = 0.0
    """How much its clock is wrong."""
    plane: int = 0
    """To which control plane it is connected."""
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
                scope.apply(one, share, world.now)
        for request in list(self.running):
            ends, grant, tokens = request
            if ends <= world.now:
                self.running.remove(request)
                grant.end(world.costs(tokens))
        if self.asking is not None and self.asking[0] <= world.now:
            asked = self.asking[1]
            shares = world.lease(self, asked)
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

    def lose_session(self) -> None:
        self.asking = self.answer = None
        for scope in self.limiter.scopes.values():
            scope.lend_least(self.world.now)

    def demands(self) -> list[ShareDemand]:
        return [
            one
            for (kind, name), scope in self.limiter.scopes.items()
            for one in scope.demands(kind, name, self.world.now)
        ]

    def ask(self, tokens: float, duration: float) -> bool:
        """Make a request; the first one waits for a share, if a control plane can be asked."""
        for scope in self.limiter.scopes_of(self.world.caller):
            if scope.lacks_shares and self.world.plane_is_there:
                if self.asking is None and self.answer is None:
                    self.next_report = min(self.next_report, self.world.now)
                return False
        estimate = self.world.costs(tokens * self.world.estimated)
        found = self.limiter.admit(self.world.caller, estimate)
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
    count: int = 1
    """Of control planes."""
    stored: dict[object, float] | None = None
    """The budgets in their store, if it keeps them."""
    ledgers: list[ShareLedger] = attrs.field(init=False)
    skews: list[float] = attrs.field(init=False)
    """How much the clocks of control planes are wrong."""
    price: float = 0.0
    """Of a token."""
    estimated: float = 1.0
    """What part of it a request is estimated to use when it begins."""
    plane_is_there: bool = True
    gone: dict[str, float] = attrs.field(factory=dict)
    """When which gateways were killed."""
    gateways: list[Gateway] = attrs.field(factory=list)
    started: int = 0

    def costs(self, tokens: float) -> Costs:
        return costs_of(tokens, tokens * self.price)

    def delay(self) -> float:
        return self.random.choice((0.0, 0.0, 0.05, 0.3))

    def __attrs_post_init__(self) -> None:
        self.ledgers = [self.make_ledger(number, 0.0) for number in range(self.count)]
        self.skews = [0.0] * self.count

    def make_ledger(self, number: int, started: float, awaited: Iterable[str] = ()) -> ShareLedger:
        ledger = ShareLedger(started, awaited, self.stored is not None)
        ledger.part = number, self.count
        return ledger

    def lease(self, gateway: Gateway, asked: tuple[ShareDemand, ...]) -> tuple[Share, ...]:
        ledger, wall = self.ledgers[gateway.plane], NEW_YEAR + self.now + self.skews[gateway.plane]
        noted = ledger.note(gateway.name, asked, self.now, wall)
        draws = ledger.draws(self.now, 1000)
        if self.stored is not None and self.random.random() < 0.95:  # the store is there
            drawn = []
            for draw in draws:
                key = draw.id, draw.rule, draw.period
                drawn.append(draw.take_from(self.stored.get(key, 0.0)))
                self.stored[key] = drawn[-1].spent
            ledger.drew(draws, drawn, self.now)
        return ledger.give(noted, self.now)

    def start(self) -> None:
        self.started += 1
        plane = self.random.randrange(self.count) if self.count > 1 else 0
        gateway = Gateway(f"g{self.started}", self, plane=plane, next_report=self.now)
        self.gateways.append(gateway)
        self.ledgers[plane].begin(gateway.name)

    def kill(self) -> None:
        gateway = self.gateways.pop(self.random.randrange(len(self.gateways)))
        self.ledgers[gateway.plane].end(gateway.name, self.now)
        self.gone[gateway.name] = self.now

    def move(self) -> None:
        """Let a gateway connect to a control plane anew."""
        gateway = self.random.choice(self.gateways)
        self.ledgers[gateway.plane].end(gateway.name, self.now)
        gateway.plane = self.random.randrange(self.count)
        gateway.lose_session()
        self.ledgers[gateway.plane].begin(gateway.name)

    def restart_plane(self) -> None:
        number = self.random.randrange(self.count) if self.count > 1 else 0
        lost = [name for name, when in self.gone.items() if self.now - when < 60]
        awaited = [*(gateway.name for gateway in self.gateways), *lost]
        self.ledgers[number] = self.make_ledger(number, self.now, awaited)
        for gateway in self.gateways:
            if gateway.plane == number:
                self.ledgers[number].begin(gateway.name)
                gateway.lose_session()


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
    planes: int = 1,
    stored: dict[object, float] | None = None,
    moves: float = 0.0,
    turns: float = 0.0,
    price: float = 0.0,
    estimated: float = 1.0,
) -> tuple[list[tuple[float, float]], int]:
    """Return when how much was admitted, and the most requests that ran at the same time."""
    world = World(
        Caller("ada", "k", ClientRules(**rules)),
        random.Random(seed),
        loss,
        count=planes,
        stored=stored,
        price=price,
        estimated=estimated,
    )
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
        if moves and world.random.random() < moves:
            world.move()
        if turns and world.random.random() < turns:
            number = world.random.randrange(planes)
            world.skews[number] = world.random.uniform(-7200, 7200)
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
