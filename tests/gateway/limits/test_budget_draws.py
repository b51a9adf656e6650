"""What a control plane draws of a budget in a store, gives, and gives back."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgepool.gateway.limits._draws import Draw, Drawn
from bridgepool.gateway.limits._share_pool import Share, ShareDemand
from bridgepool.gateway.limits._shares import ShareLedger
from tests.gateway.limits.shares_world import NEW_YEAR

DAY = 86400.0


def budget(
    held: float,
    used: float = 0.0,
    period: float = NEW_YEAR,
    demand: float = 1.0,
    limit: float = 1000.0,
    client: str = "ada",
) -> ShareDemand:
    """What a gateway reports of a budget of tokens."""
    return ShareDemand(
        scope="client", id=client, rule="tokens_per_day", limit=limit, held=held, used=used,
        period=period, demand=demand,
    )  # fmt: skip


@attrs.define(eq=False)
class Plane:
    """A control plane whose store has so much left of each budget."""

    ledger: ShareLedger = attrs.field(factory=lambda: ShareLedger(-100.0, (), True))
    now: float = 0.0
    wall: float = NEW_YEAR
    stored: float = 0.0

    def report(self, name: str, asked: ShareDemand) -> Share:
        if name not in self.ledger._sessions:
            self.ledger.begin(name)
        return self.ledger.lease(name, [asked], self.now, self.wall)[0]

    def draws(self, most: int = 10) -> list[Draw]:
        return self.ledger.draws(self.now, most)

    def draw(self) -> list[tuple[float, float]]:
        """Draw what is short; return what was owed and wanted."""
        draws = self.draws()
        drawn = []
        for draw in draws:
            drawn.append(draw.take_from(self.stored))
            self.stored = drawn[-1].spent
        self.ledger.drew(draws, drawn, self.now)
        return [(draw.owed, draw.wanted) for draw in draws]


def test_a_draw_names_its_budget_and_what_the_store_had() -> None:
    plane = Plane()
    plane.report("a", budget(0))
    plane.draw()
    plane.report("a", budget(0))
    plane.report("b", budget(0))
    assert plane.draws() == [
        Draw(
            scope="client", id="ada", rule="tokens_per_day", period=NEW_YEAR, until=NEW_YEAR + DAY,
            limit=1000, owed=0, wanted=20, seen=40,
        )
    ]  # fmt: skip


def test_a_gateway_that_asks_for_nothing_has_only_what_is_left_asked_of_the_store() -> None:
    plane = Plane(stored=900.0)
    plane.report("a", budget(0, demand=0))
    assert plane.draw() == [(0, 0)]
    assert plane.report("a", budget(0, demand=0)) == Share(0, 100)
    assert plane.draw() == []


def test_what_was_spent_beyond_a_share_is_drawn_beside_the_next_share() -> None:
    plane = Plane()
    plane.report("a", budget(-8))
    assert plane.draw() == [(8, 40)]
    plane.report("a", budget(-2, 2, demand=0))  # beyond the share of 0 that it got
    plane.report("a", budget(0, 30, demand=0))
    assert plane.draw() == []  # it is less than what was drawn for the next one
    plane.report("a", budget(0, 50, demand=0))
    assert plane.draw() == [(10, 0)]


def test_nothing_is_drawn_for_a_gateway_that_is_gone() -> None:
    plane = Plane()
    plane.report("a", budget(0))
    plane.ledger.end("a", 0.0)
    plane.report("b", budget(0))
    assert plane.draw() == [(0, 40)]


def test_small_amounts_are_neither_drawn_nor_given_back() -> None:
    plane = Plane()
    plane.report("a", budget(0))
    plane.draw()
    assert plane.report("a", budget(0)).share == 20
    plane.report("a", budget(15, 5))
    assert plane.draw() == []
    plane.report("a", budget(5, 15))
    assert plane.draw() == [(0, 15)]
    plane.report("a", budget(20, 0))  # its requests used less than was estimated
    assert plane.draw() == []
    plane.report("a", budget(-80, 100))
    plane.draw()
    plane.report("a", budget(20, 15))
    assert plane.draw() == [(-85, 0)]


def test_a_limit_that_was_lowered_is_what_is_given_of() -> None:
    plane = Plane()
    plane.report("a", budget(0))
    plane.draw()
    assert plane.report("a", budget(0)).share == 20
    assert plane.report("a", budget(10, 10, limit=10)) == Share(0, 0)
    plane.report("b", budget(0, limit=100))
    plane.ledger.draws(0.0, 10)
    assert plane.report("c", budget(0, limit=100)).share == 2


def test_a_store_with_too_little_left_is_asked_again_after_a_moment() -> None:
    plane = Plane(stored=990.0)
    plane.report("a", budget(0))
    assert plane.draw() == [(0, 40)]
    assert plane.report("a", budget(0)).share == pytest.approx(10)
    plane.now = 4.9
    plane.report("a", budget(10))
    assert plane.draw() == []
    plane.now = 5.0
    plane.report("a", budget(10))
    assert plane.draw() == [(0, 30)]
    plane.report("a", budget(10, limit=2000))  # that there is more now is noticed at once
    assert plane.draw() == [(0, 70)]
    plane.stored = 2000.0
    plane.report("b", budget(0, limit=2000))
    assert len(plane.draw()) == 1
    plane.report("b", budget(0, limit=2000))
    assert plane.draw() == []
    plane.wall = NEW_YEAR + DAY  # nor does the next day wait
    plane.stored = 0.0
    plane.report("b", budget(0, limit=2000, period=plane.wall))
    assert plane.draw() == [(10, 110)]  # of what "a" may spend until it notices, too


def test_a_new_day_has_nothing_of_the_last_one() -> None:
    plane = Plane()
    plane.report("a", budget(0))
    plane.draw()
    plane.report("a", budget(0))
    plane.report("a", budget(0, 20))
    begun = plane.draws()
    plane.wall = midnight = NEW_YEAR + DAY
    assert plane.report("a", budget(0, 0, midnight)) == Share(0, 1000)
    plane.ledger.drew(begun, [Drawn(20, 60)], 0.0)  # of the day before
    assert plane.report("a", budget(0, 0, midnight)) == Share(0, 1000)
    plane.stored = 0.0
    [draw] = plane.draws()
    assert (draw.period, draw.owed, draw.wanted, draw.seen) == (midnight, 0, 40, 0)
    # One that comes from another control plane has not noticed the new day: its share counts.
    plane.draw()
    plane.report("b", budget(20, 0, NEW_YEAR, demand=0))
    assert plane.draw() == [(0, 20)]


def test_what_other_control_planes_drew_is_not_left() -> None:
    plane = Plane()
    plane.report("a", budget(0))
    plane.draw()
    plane.stored += 500
    plane.report("b", budget(0))
    plane.report("c", budget(0))
    plane.draw()
    assert plane.report("c", budget(0)).remaining == 500


def test_what_another_control_plane_gave_back_is_there_again() -> None:
    """The next draw of one that had seen more took the store for one that was restored.

    So what requests had not used of their estimates was lost to the client.
    """
    one, two = Plane(), Plane()
    for number, plane in enumerate((one, two)):
        plane.ledger.part = (number, 2)

    def draw(plane: Plane) -> None:
        plane.draw()
        one.stored = two.stored = plane.stored

    one.report("a", budget(-600, 600))  # a large estimate
    draw(one)
    two.report("b", budget(0))
    draw(two)
    assert two.stored == 680
    one.report("a", budget(20, 10))
    draw(one)
    two.report("c", budget(0))
    draw(two)
    assert two.stored == 10 + 2 * 40 + 20


def test_a_control_plane_that_is_alone_knows_of_a_store_that_was_restored() -> None:
    plane = Plane(stored=500.0)
    plane.report("a", budget(0))
    plane.draw()
    plane.stored = 100.0
    plane.report("b", budget(0))
    plane.draw()
    assert plane.stored == 560


def test_what_is_reported_while_a_draw_runs_is_drawn_next() -> None:
    plane = Plane()
    plane.report("a", budget(0))
    draws = plane.draws()
    noted = plane.ledger.note("a", [budget(0, demand=0, client="bob")], 0.0, NEW_YEAR)
    assert plane.ledger.lacks_draws(noted)
    assert [draw.id for draw in plane.draws(1)] == ["ada"]
    assert plane.ledger.lacks_draws(noted)  # no more than one was begun
    plane.ledger.begin("b")
    noted = plane.ledger.note("b", [budget(-5)], 0.0, NEW_YEAR)
    assert plane.ledger.lacks_draws(noted)
    plane.ledger.drew(draws, [Drawn(40, 40)], 0.0)
    assert plane.ledger.lacks_draws(noted)
    assert [(draw.id, draw.wanted) for draw in plane.draws()] == [("ada", 25), ("bob", 0)]
    assert not plane.ledger.lacks_draws(noted)


def test_budgets_in_memory_are_not_drawn() -> None:
    plane = Plane(ShareLedger(-100.0))
    assert plane.report("a", budget(0)) == Share(20, 1000)
    assert (plane.draws(), plane.ledger.give_back()) == ([], [])


def test_budgets_that_are_spent_or_short_are_not_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridgepool.gateway.limits._shares._MANY_POOLS", 2)
    plane = Plane(ShareLedger(-100.0))
    plane.report("a", budget(0))
    plane.report("a", budget(-400, 400))
    plane.ledger.end("a", 0.0)
    plane.now = 70.0
    for client in "xyz":
        plane.report("b", budget(0, client=client))
    plane.ledger.end("b", 70.0)
    assert plane.report("a", budget(0)).remaining == 580  # without what it held
    plane = Plane()
    plane.report("a", budget(0))
    plane.ledger.end("a", 0.0)
    plane.now = 70.0
    for client in "xyz":
        plane.report("b", budget(0, client=client))
    assert [draw.id for draw in plane.draws()] == ["ada", "x", "y", "z"]


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
