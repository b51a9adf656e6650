"""Budgets in the store: one for all control planes on it, and for the next one."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from bridgepool.gateway.control._limit_shares import (
    LimitShares,
    lease_shares,
    open_limit_shares,
)
from bridgepool.gateway.control.store import budgets_of
from bridgepool.gateway.limits._draws import Draw
from bridgepool.gateway.limits._share_pool import ShareDemand
from tests.gateway.control.stores import ADA, NEW_YEAR, Clock, opened
from tests.waiting import wait_until

DAY = 86400.0
DRAW = Draw(
    scope="client", id="ada", rule="money_per_day", period=NEW_YEAR, until=NEW_YEAR + DAY, limit=10
)


async def test_the_store_gives_what_is_left_of_a_budget_and_takes_it_back(
    database_url: str,
) -> None:
    clock = Clock()
    async with opened(database_url, clock=clock) as store:
        other = attrs.evolve(DRAW, id="bob", wanted=3.0)
        first, second = await budgets_of(store).draw([attrs.evolve(DRAW, wanted=6.5), other])
        assert (first.amount, first.spent) == (6.5, 6.5)
        assert (second.amount, second.spent) == (3, 3)
        [rest] = await budgets_of(store).draw([attrs.evolve(DRAW, wanted=6)])
        assert (rest.amount, rest.spent) == (3.5, 10)
        [owed] = await budgets_of(store).draw([attrs.evolve(DRAW, owed=0.5, wanted=6)])
        assert (owed.amount, owed.spent) == (0.5, 10.5)  # what was spent counts, whatever is left
        [back] = await budgets_of(store).draw([attrs.evolve(DRAW, owed=-2.5)])
        assert back.spent == 8
        # One who has seen more knows that the store was restored.
        [seen] = await budgets_of(store).draw([attrs.evolve(DRAW, seen=9.0, wanted=5)])
        assert (seen.amount, seen.spent) == (1, 10)
        # What is drawn in small parts is counted as it was given.
        small = attrs.evolve(DRAW, id="cid", owed=1.5e-7, wanted=2e-7)
        drawn = [one for _ in range(5) for one in await budgets_of(store).draw([small] * 5)]
        assert sum(one.amount for one in drawn) == pytest.approx(drawn[-1].spent) == 25e-6
        clock.now += 5 * DAY
        assert await budgets_of(store).forget_old() == 0
        clock.now += 5 * DAY
        assert await budgets_of(store).forget_old() == 3


@attrs.define(eq=False)
class Gateway:
    """A gateway that spends all that it is given."""

    name: str
    shares: LimitShares
    held: float = 0.0
    used: float = 0.0

    async def spend(self, seconds: int = 1, most: float = 1e9) -> None:
        for _ in range(seconds):
            [share] = await lease_shares(self.shares, self.name, [self.report()])
            self.held = share.share
            spent = min(self.held, most - self.used)
            self.held, self.used = self.held - spent, self.used + spent

    def report(self) -> ShareDemand:
        return ShareDemand(
            scope="client",
            id="ada",
            rule="tokens_per_day",
            limit=1000,
            held=self.held,
            used=self.used,
            period=NEW_YEAR,
            demand=1,
        )

    def connect(self, shares: LimitShares) -> None:
        self.shares = shares
        shares.begin(self.name)


def begin(name: str, shares: LimitShares) -> Gateway:
    gateway = Gateway(name, shares)
    gateway.connect(shares)
    return gateway


async def test_what_was_spent_of_a_budget_outlives_the_control_plane(database_url: str) -> None:
    """A control plane that started anew gave a new day's budget to gateways that did so too."""
    async with (
        opened(database_url) as store,
        # It is "killed": what it held back is never given back.
        open_limit_shares(store, "killed", wall=Clock(), pause=0) as killed,
    ):
        one = begin("one", killed)
        await one.spend(100, most=590)
        async with open_limit_shares(store, "next", wall=Clock(), pause=0) as following:
            one.connect(following)  # it holds a little
            two = begin("two", following)
            for _ in range(30):
                await one.spend()
                await two.spend()
            assert 940 <= one.used + two.used <= 1000
            [share] = await lease_shares(following, "two", [two.report()])
            assert (share.share, share.remaining) == (0, 0)


async def test_a_store_that_can_be_used_again_is_noticed_without_a_report(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It was noticed by the next report only, which got nothing.

    While the disk was full, both lines were logged every second: a draw that failed was forgotten
    until the next report, so the next attempt drew nothing and succeeded.
    """
    path = tmp_path / "store.db"

    def rename(before: str, after: str) -> None:
        with closing(sqlite3.connect(path)) as file:
            file.execute(f"ALTER TABLE {before} RENAME TO {after}")

    def lines() -> list[str]:
        return [one.message for one in caplog.records if "drawn" in one.message]

    rate = ShareDemand(
        scope="client", id="bob", rule="tokens_per_minute", limit=1, held=0, demand=1
    )
    async with (
        opened(f"sqlite:{path}") as store,
        open_limit_shares(store, "here", wall=Clock(), pause=0) as shares,
    ):
        gateway, other = begin("one", shares), begin("two", shares)
        rename("budgets", "elsewhere")
        for _ in range(2):
            await gateway.spend()
            await trio.sleep(0.25)  # no report
            with trio.move_on_after(0.1) as waiting:  # for no draw of another limit
                await lease_shares(shares, "two", [rate])
            assert not waiting.cancelled_caught
        assert lines() == ["budgets cannot be drawn from the store"]
        shares.end("one")  # nobody asks any more
        rename("elsewhere", "budgets")
        await wait_until(lambda: len(lines()) >= 2)
        assert lines()[1:] == ["budgets can be drawn again"]
        await other.spend()
        assert other.used > 0


async def test_what_is_spent_and_left_of_each_budget_of_a_client_is_shown(
    database_url: str,
) -> None:
    """An operator could not see it anywhere."""
    clock = Clock()
    async with opened(database_url, clock=clock) as store:
        rules = {"money_per_day": 10.0, "tokens_per_month": 5000}
        made = await store.add_client(ADA, "ada", rules=rules, key_rules={"money_per_day": 1e-3})
        [key] = made.client.keys
        budgets = budgets_of(store)

        async def shown() -> list[tuple[object, ...]]:
            found = await budgets.list_of(await store.get_client("ada"))
            return [
                (one.id, one.rule, one.limit, one.spent, one.remaining, f"{one.ends:%m-%d}")
                for one in found
            ]

        months = ("ada", "tokens_per_month", 5000, 0, 5000, "02-01")
        assert await shown() == [
            months,
            ("ada", "money_per_day", 10, 0, 10, "01-02"),
            (key.id, "money_per_day", 1e-3, 0, 1e-3, "01-02"),
        ]
        small = attrs.evolve(DRAW, scope="key", id=key.id, limit=1e-3, owed=2e-5)
        await budgets.draw([attrs.evolve(DRAW, owed=10.5), small])
        assert await shown() == [
            months,
            ("ada", "money_per_day", 10, 10.5, 0, "01-02"),
            (key.id, "money_per_day", 1e-3, 2e-5, 0.00098, "01-02"),
        ]
        clock.now += DAY
        assert (await shown())[1] == ("ada", "money_per_day", 10, 0, 10, "01-03")


async def test_control_planes_on_one_store_give_a_budget_once(database_url: str) -> None:
    async with (
        opened(database_url) as store,
        open_limit_shares(store, "a", wall=Clock(), pause=0) as a,
        open_limit_shares(store, "b", wall=Clock(), pause=0) as b,
    ):
        one, two = begin("one", a), begin("two", b)
        for _ in range(40):
            await one.spend()
            await two.spend()
        assert 940 <= one.used + two.used <= 1000


async def test_a_control_plane_that_stops_gives_back_what_nobody_holds(database_url: str) -> None:
    async with opened(database_url) as store:
        for name in ("first", "second", "third"):
            async with open_limit_shares(store, name, wall=Clock(), pause=0) as shares:
                gateway = begin(name, shares)
                await gateway.spend(most=10)
        [drawn] = await budgets_of(store).draw(
            [attrs.evolve(DRAW, rule="tokens_per_day", limit=1000, wanted=1000)]
        )
        assert drawn.amount == 1000 - 3 * 20  # what was spent or is held


async def wait_part(shares: LimitShares, part: tuple[int, int]) -> None:
    await wait_until(lambda: shares._ledger.part == part)


async def test_each_running_control_plane_gives_its_part_of_a_rate(tmp_path: Path) -> None:
    asked = partial(ShareDemand, scope="client", id="ada", demand=1)
    rate = asked(rule="tokens_per_minute", limit=100, held=100)
    running = asked(rule="max_concurrent", limit=3, held=3)
    async with (
        opened(f"sqlite:{tmp_path / 'store.db'}") as store,
        open_limit_shares(store, "a", look_interval=0.2) as a,
    ):
        a.begin("one")
        [share] = await lease_shares(a, "one", [rate])
        assert share.share == pytest.approx(100)
        await store.programs.register("control plane", "b")
        await store.programs.register("gateway", "c")
        await wait_part(a, (0, 2))
        shares = await lease_shares(a, "one", [rate, running])
        assert [one.share for one in shares] == [pytest.approx(50), 2]
        await wait_part(a, (0, 1))  # it was killed: it does not register again
        [share] = await lease_shares(a, "one", [rate])
        assert share.share == pytest.approx(100)
