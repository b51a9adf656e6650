"""A budget in a store is spent once, and to its end, whatever is lost, late, or goes elsewhere."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgepool.gateway.limits._draws import Draw
from bridgepool.gateway.limits._shares import ShareLedger
from tests.gateway.limits.shares_world import NEW_YEAR
from tests.gateway.limits.test_budget_draws import budget


@attrs.define(eq=False)
class Gateway:
    """What a gateway holds of a budget, and has used."""

    name: str
    plane: int | None = None
    held: float = 0.0
    used: float = 0.0
    unconfirmed: float = 0.0
    """What its control plane counts as held beside that, until the next report."""


@attrs.define(eq=False)
class OneBudget:
    """A budget in a store, with the ledgers of two control planes and three gateways."""

    now: float = 0.0
    stored: float = 0.0
    lost: float = 0.0
    """What counts as spent since a gateway did not confirm that it does not hold it."""
    spent_beyond: float = 0.0
    """What gateways spent beyond their shares."""
    ledgers: list[ShareLedger] = attrs.field(
        factory=lambda: [ShareLedger(0.0, (), True) for _ in range(2)]
    )
    drawing: list[list[Draw]] = attrs.field(factory=lambda: [[], []])
    gateways: list[Gateway] = attrs.field(factory=lambda: [Gateway(name) for name in "abc"])

    def __attrs_post_init__(self) -> None:
        for number, ledger in enumerate(self.ledgers):
            ledger.part = (number, 2)

    def move(self, gateway: Gateway, plane: int | None) -> None:
        """Connect a gateway to a control plane, or to none."""
        if gateway.plane is not None:
            self.ledgers[gateway.plane].end(gateway.name, self.now)
        # What it spent beyond its share it reports again.
        self.lost += gateway.unconfirmed + max(0.0, -gateway.held)
        gateway.unconfirmed = 0.0
        gateway.plane = plane
        if plane is not None:
            self.ledgers[plane].begin(gateway.name)

    def report(
        self, gateway: Gateway, part: float, *, draws: bool = True, arrives: bool = True
    ) -> None:
        """Spend a part of what a gateway holds, or more than that, and report."""
        spent = part * max(10.0, gateway.held)
        self.spent_beyond += max(0.0, spent - max(0.0, gateway.held))
        gateway.held, gateway.used = gateway.held - spent, gateway.used + spent
        if gateway.plane is None:
            return
        ledger, demand = self.ledgers[gateway.plane], 1.0 if part else 0.0
        asked = budget(gateway.held, gateway.used, demand=demand)
        noted = ledger.note(gateway.name, [asked], self.now, NEW_YEAR)
        if draws:
            self.begin(gateway.plane)
            self.answer(gateway.plane)
        [share] = ledger.give(noted, self.now)
        assert 0 <= share.remaining <= 1000
        assert share.share >= 0
        most = max(0.0, gateway.held, share.share)
        if arrives:
            gateway.held = share.share
        gateway.unconfirmed = most - max(0.0, gateway.held)

    def begin(self, plane: int) -> None:
        """Ask the store for what is to be drawn; it has not answered yet."""
        failed = self.drawing[plane]
        self.drawing[plane] = self.ledgers[plane].draws(self.now, 10)
        assert self.drawing[plane] or not failed  # so only the store can let it succeed

    def answer(self, plane: int) -> None:
        """Let the store answer."""
        draws, self.drawing[plane] = self.drawing[plane], []
        drawn = []
        for draw in draws:
            drawn.append(draw.take_from(self.stored))
            self.stored = drawn[-1].spent
        self.ledgers[plane].drew(draws, drawn, self.now)

    def end(self) -> float:
        """Let the store answer, and stop the control planes; return what was spent then."""
        for plane, ledger in enumerate(self.ledgers):
            self.begin(plane)
            self.answer(plane)
            assert ledger.draws(self.now, 10) == []
            left = ledger.give_back()
            assert all(one.owed <= 1e-6 for one in left)  # what was owed was drawn
            self.stored += sum(one.owed for one in left)
        return self.stored


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["report"] * 6 + ["move", "leave", "begin", "answer", "wait"]),
        st.integers(0, 2),  # the gateway
        st.integers(0, 1),  # the control plane
        st.sampled_from([0.0, 0.3, 1.0, 1.5]),  # what is spent
        st.sampled_from(["fails", "is lost", "works", "works", "works"]),
        st.sampled_from([1.0, 6.0, 70.0]),  # the time
    ),
    min_size=10,
    max_size=50,
)


@given(_STEPS)
def test_what_is_drawn_in_the_end_is_what_was_spent_or_is_held(
    steps: list[tuple[str, int, int, float, str, float]],
) -> None:
    """What was owed and could not be drawn was forgotten, if that gateway was gone afterwards.

    Nor was the store asked again then: the next attempt drew nothing, and so it succeeded.
    """
    world = OneBudget()
    for kind, number, plane, part, how, seconds in steps:
        gateway = world.gateways[number]
        if kind == "report":
            if gateway.plane is None:
                world.move(gateway, plane)
            world.report(gateway, part, draws=how != "fails", arrives=how != "is lost")
        elif kind == "move":
            world.move(gateway, plane)
        elif kind == "leave":
            world.report(gateway, part)
            world.move(gateway, None)
        elif kind == "begin":
            world.begin(plane)
        elif kind == "answer":
            world.answer(plane)
        else:
            world.now += seconds
        used = sum(each.used + each.held for each in world.gateways)
        assert used <= 1000 + world.spent_beyond + 1e-3
    drawn = world.end()
    assert drawn >= used - 1e-3
    most = sum(each.used + max(0.0, each.held) + each.unconfirmed for each in world.gateways)
    assert drawn <= most + world.lost + 1e-3


@given(_STEPS)
def test_a_gateway_that_asks_gets_a_share_for_as_long_as_there_is_one(
    steps: list[tuple[str, int, int, float, str, float]],
) -> None:
    world = OneBudget()
    first, *others = world.gateways
    for kind, number, plane, part, how, seconds in steps:
        gateway = others[number % 2]
        if kind == "report":
            if gateway.plane is None:
                world.move(gateway, plane)
            world.report(gateway, part, draws=how != "fails", arrives=how != "is lost")
        elif kind in ("move", "leave"):
            world.move(gateway, plane if kind == "move" else None)
        else:
            world.now += seconds
    world.move(first, 0)
    for _ in range(3):
        world.now += 6.0
        world.report(first, 0.1)
    if world.stored <= 800:
        assert first.held == pytest.approx(20)
