"""What a control plane draws of a budget in a store, gives, and gives back."""

from __future__ import annotations

import attrs
import pytest

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


def test_what_is_given_back_of_a_limit_that_was_lowered_is_what_nobody_holds() -> None:
    plane = Plane()
    plane.report("a", budget(0))
    plane.draw()
    assert plane.report("a", budget(0)).share == 20
    plane.report("b", budget(0, limit=100))
    assert plane.draw() == [(-16, 0)]


def test_what_was_drawn_is_not_given_beyond_a_limit_that_was_exceeded_elsewhere() -> None:
    plane = Plane()
    plane.report("a", budget(0))
    plane.draw()
    plane.report("a", budget(0))
    plane.stored = 1020.0
    plane.report("b", budget(0))
    plane.draw()
    assert plane.report("b", budget(0)) == Share(0, 20)  # that is what "a" holds


def test_a_gateway_that_brings_its_share_adds_nothing_to_what_is_left() -> None:
    plane = Plane()
    plane.report("a", budget(0))
    plane.draw()
    assert plane.report("b", budget(20)).remaining == 1000
    assert plane.draw() == []  # nor is it drawn again


def test_what_a_gateway_spent_beyond_its_share_is_not_given_to_others() -> None:
    plane = Plane()
    plane.report("a", budget(0))
    plane.draw()
    plane.report("a", budget(0))
    plane.ledger.note("a", [budget(-8, 28)], 0.0, NEW_YEAR)
    assert plane.report("b", budget(0)).share == 12


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


def test_what_could_not_be_drawn_is_asked_for_again_even_if_nobody_needs_it() -> None:
    """Else the next attempt draws nothing, and so it succeeds while the store is away."""
    plane = Plane()
    plane.report("a", budget(0))
    plane.draw()
    plane.report("a", budget(0))
    plane.ledger.begin("b")
    plane.ledger.note("b", [budget(0)], 0.0, NEW_YEAR)
    assert [draw.wanted for draw in plane.draws()] == [20]
    plane.ledger.end("b", 0.0)
    assert plane.draw() == [(0, 0)]
    assert plane.draws() == []


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
    plane = Plane(ShareLedger(-100.0))
    for client in ("ada", "bob"):
        plane.report("a", budget(0, demand=0, client=client))
    plane.ledger.end("a", 0.0)
    plane.now = 70.0
    plane.report("b", budget(0, client="x"))
    assert [name for _scope, name, _rule in plane.ledger._pools] == ["x"]
