"""The ledger of shares, question by question; `test_shares` has it under load."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgepool.gateway.limits._draws import Draw
from bridgepool.gateway.limits._share_pool import Share, ShareDemand
from bridgepool.gateway.limits._shares import ShareLedger
from tests.gateway.limits.shares_world import NEW_YEAR

DAY = 86400.0


def budget(held: float, used: float = 0.0, period: float = NEW_YEAR) -> ShareDemand:
    """What a gateway reports of a budget of 1000 tokens."""
    return ShareDemand(
        scope="client", id="ada", rule="tokens_per_day", limit=1000, held=held, used=used,
        period=period, demand=1,
    )  # fmt: skip


def test_of_a_budget_in_a_store_only_what_was_drawn_is_given_and_what_is_held_is_no_spare() -> None:
    """Each gateway holds 2 % of the budget, and as much is drawn for the next one."""
    ledger = ShareLedger(0.0, (), True)
    held, spent = dict.fromkeys("abcd", 0.0), 0.0

    def lease(name: str) -> float:
        [share] = ledger.lease(name, [budget(held[name])], 1.0, NEW_YEAR)
        held[name] = share.share
        return share.share

    def draw() -> float:
        nonlocal spent
        draws = ledger.draws(1.0, 10)
        drawn = [one.take_from(spent) for one in draws]
        spent = drawn[-1].spent if drawn else spent
        ledger.drew(draws, drawn, 1.0)
        return spent

    for name in held:
        ledger.begin(name)
    assert (lease("a"), draw()) == (0, 40)
    assert [lease(name) for name in "abc"] == [20, 20, 0]
    assert draw() == 80
    assert [lease(name) for name in "cd"] == [20, 20]
    assert draw() == 100
    assert [one.owed for one in ledger.give_back()] == [-20]


def test_what_a_gateway_held_that_is_gone_is_given_soon_and_comes_back_within_a_minute() -> None:
    """It was reserved for a minute: a client that had used that gateway alone got 429 as long."""
    ledger = ShareLedger(-100.0)

    def lease(name: str, held: float, now: float, rule: str = "tokens_per_minute") -> Share:
        asked = ShareDemand(scope="client", id="a", rule=rule, limit=100, held=held, demand=100.0)
        return ledger.lease(name, [asked], now, NEW_YEAR)[0]

    for name in ("a", "b"):
        ledger.begin(name)
    assert lease("a", 0, 0.0).share == pytest.approx(100)
    assert lease("b", 0, 1.0).share == 0
    assert lease("a", 100, 2.0).share == pytest.approx(50)
    assert lease("b", 0, 3.0).share == 0  # until the other one has confirmed that it has less
    assert lease("a", 50, 4.0).share == pytest.approx(50)
    assert lease("b", 0, 5.0).share == pytest.approx(50)
    assert lease("a", 0, 5.0, "max_concurrent").share == 100
    ledger.end("a", 6.0)
    assert lease("b", 50, 10.9).share == pytest.approx(50)  # it may come back with its share
    assert lease("b", 0, 10.9, "max_concurrent") == Share(0, 100)
    found = lease("b", 50, 12.0)
    assert [found.share, found.taken] == pytest.approx([100, 50 * 0.9])
    assert lease("b", 0, 12.0, "max_concurrent") == Share(100, 100)
    assert lease("b", 50, 51.0).taken == pytest.approx(50 * 0.25)
    assert lease("b", 50, 66.0).taken == 0


def test_what_a_gateway_spent_beyond_what_it_was_given_is_drawn_by_the_next_control_plane() -> None:
    ledger = ShareLedger(0.0, (), True)
    ledger.begin("g")
    ledger.lease("g", [budget(held=-8)], 1.0, NEW_YEAR)
    assert [one.owed for one in ledger.draws(1.0, 10)] == [8]


def test_a_clock_that_is_set_back_over_midnight_gives_no_budget_again() -> None:
    ledger, midnight = ShareLedger(-100.0), NEW_YEAR + DAY
    ledger.begin("g")
    asked = budget(0, 400, midnight)
    for wall in (midnight + 5, midnight - 5, midnight + 5):
        [share] = ledger.lease("g", [asked], 1.0, wall)
        assert share.remaining == 600


@attrs.define(eq=False)
class Gateway:
    """What a gateway holds of a budget, and has used."""

    name: str
    plane: int | None = None
    held: float = 0.0
    used: float = 0.0


@attrs.define(eq=False)
class OneBudget:
    """A budget in a store, with the ledgers of two control planes and three gateways."""

    now: float = 0.0
    stored: float = 0.0
    exact: bool = True
    """Whether each answer has arrived; what is given in one that is lost may count as spent."""
    spent_beyond: float = 0.0
    """What gateways spent beyond their shares."""
    ledgers: list[ShareLedger] = attrs.field(
        factory=lambda: [ShareLedger(0.0, (), True) for _ in range(2)]
    )
    drawing: list[list[Draw]] = attrs.field(factory=lambda: [[], []])
    gateways: list[Gateway] = attrs.field(factory=lambda: [Gateway(name) for name in "abc"])

    def move(self, gateway: Gateway, plane: int | None) -> None:
        """Connect a gateway to a control plane, or to none."""
        if gateway.plane is not None:
            self.ledgers[gateway.plane].end(gateway.name, self.now)
        gateway.plane = plane
        if plane is not None:
            self.ledgers[plane].begin(gateway.name)

    def report(self, gateway: Gateway, part: float, arrives: bool) -> None:
        """Spend a part of what a gateway holds, or more than that, and report."""
        spent = part * max(10.0, gateway.held)
        self.spent_beyond += max(0.0, spent - max(0.0, gateway.held))
        gateway.held, gateway.used = gateway.held - spent, gateway.used + spent
        if gateway.plane is None:
            return
        asked = budget(gateway.held, gateway.used)
        [share] = self.ledgers[gateway.plane].lease(gateway.name, [asked], self.now, NEW_YEAR)
        if arrives:
            gateway.held = share.share
        self.exact &= arrives

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


_GATEWAYS = st.integers(0, 2)
_PLANES = st.integers(0, 1)
_STEPS = st.one_of(
    st.tuples(
        st.just("report"),
        _GATEWAYS,
        st.sampled_from([0.0, 0.3, 1.0, 1.5]),
        st.sampled_from([True, True, True, False]),
    ),
    st.tuples(st.just("move"), _GATEWAYS, st.one_of(st.none(), _PLANES)),
    st.tuples(st.just("begin"), _PLANES),
    st.tuples(st.just("answer"), _PLANES),
    st.tuples(st.just("wait"), st.sampled_from([1.0, 6.0, 70.0])),
)


@given(st.lists(_STEPS, max_size=40))
def test_what_is_drawn_in_the_end_is_what_was_spent_or_is_held(steps: list[Any]) -> None:
    """What was owed and could not be drawn was forgotten, if that gateway was gone afterwards.

    Nor was the store asked again then: the next attempt drew nothing, and so it succeeded.
    """
    world = OneBudget()
    for kind, *values in steps:
        if kind == "report":
            number, part, arrives = values
            world.report(world.gateways[number], part, arrives)
        elif kind == "move":
            number, plane = values
            world.move(world.gateways[number], plane)
        elif kind == "begin":
            world.begin(values[0])
        elif kind == "answer":
            world.answer(values[0])
        else:
            world.now += values[0]
        used = sum(each.used + each.held for each in world.gateways)
        assert used <= 1000 + world.spent_beyond + 1e-3
    used = sum(each.used + each.held for each in world.gateways)
    drawn = world.end()
    assert drawn >= used - 1e-3
    assert drawn <= used + 1e-3 or not world.exact


def test_a_gateway_that_makes_up_limits_gets_nothing_of_them_and_takes_nothing_from_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each of a hundred thousand had all others looked at: a report held the program for minutes.

    Those that nobody uses are dropped, which is tried at most once in ten seconds.
    """
    monkeypatch.setattr("bridgepool.gateway.limits._shares._MANY_POOLS", 10)
    monkeypatch.setattr("bridgepool.gateway.limits._shares._MAX_POOLS", 20)
    ledger = ShareLedger(-100.0)

    def lease(holder: str, name: str, now: float) -> Share:
        demand = attrs.evolve(budget(0.0), id=name, limit=100)
        return ledger.lease(holder, [demand], now, NEW_YEAR)[0]

    ledger.begin("evil")
    ledger.begin("good")
    assert lease("good", "ada", 0.0).share == 2
    given = [lease("evil", f"no-{number}", 0.0).share for number in range(40)]
    assert given == [2] * 19 + [0] * 21
    assert lease("good", "bob", 0.0) == Share(0.0, 0.0)
    assert lease("good", "ada", 1.0).share == 2
