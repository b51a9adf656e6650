"""Whoever tries keys cannot load the database, and delays nobody whose key was good before."""

from __future__ import annotations

import logging

import attrs
import trio
import trio.testing

from bridgepool._secret import Secret
from bridgepool.gateway.serving._key_lookups import KeyLookups
from bridgepool.gateway.serving._refused_keys import RefusedKeys

PEER, OTHER = "192.0.2.1:5000", "192.0.2.2:5000"
GOOD = Secret("the-good-key")


@attrs.define(eq=False)
class Database:
    """Knows one key; looks each up as long as its gate is shut."""

    gate: trio.Event = attrs.field(factory=trio.Event)
    asked: list[str] = attrs.field(factory=list)
    audited: list[str] = attrs.field(factory=list)

    async def look_up(self, key: Secret) -> str | None:
        self.asked.append(key.reveal())
        await self.gate.wait()
        return "ada" if key.reveal() == GOOD.reveal() else None

    async def note(self, peer: str) -> None:
        await trio.lowlevel.checkpoint()
        self.audited.append(peer)


def lookups(burst: float) -> KeyLookups:
    return KeyLookups(RefusedKeys(logging.getLogger("tests"), "keys refused", burst))


async def test_the_database_is_asked_for_a_few_unknown_keys_at_a_time(
    nursery: trio.Nursery,
) -> None:
    database, keys = Database(), lookups(burst=1000)
    database.gate.set()
    assert await keys.find(GOOD, PEER, database.look_up, database.note) == "ada"
    database.gate, database.asked = trio.Event(), []

    async def guess(number: int) -> None:
        key = Secret(f"guess-{number}")
        peer = f"192.0.2.{number}:5000"
        assert await keys.find(key, peer, database.look_up, database.note) is None

    for number in range(100):
        nursery.start_soon(guess, number)
    await trio.testing.wait_all_tasks_blocked()
    assert len(database.asked) == 2
    nursery.start_soon(keys.find, GOOD, PEER, database.look_up, database.note)
    await trio.testing.wait_all_tasks_blocked()
    assert database.asked[2:] == ["the-good-key"], "it was good before, and waits for none of them"
    database.gate.set()
    await trio.testing.wait_all_tasks_blocked()
    assert (len(database.asked), len(database.audited)) == (101, 100)


async def test_an_unknown_key_waits_before_the_database_is_asked_if_many_were_refused(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    database, keys = Database(), lookups(burst=3)
    database.gate.set()

    async def ask(key: str, peer: str = PEER) -> None:
        await keys.find(Secret(key), peer, database.look_up, database.note)

    await ask("the-good-key")
    for number in range(5):
        nursery.start_soon(ask, f"first-{number}")
    await trio.testing.wait_all_tasks_blocked()
    assert len(database.asked) == 6
    for key, peer in (("a", PEER), ("b", PEER), ("c", OTHER), ("the-good-key", PEER)):
        nursery.start_soon(ask, key, peer)
    await trio.testing.wait_all_tasks_blocked()
    assert sorted(database.asked[6:]) == ["c", "the-good-key"]
    await trio.sleep(0.5)
    assert sorted(database.asked[8:]) == ["a", "b"]


async def test_a_key_that_was_good_and_is_refused_now_is_an_unknown_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    keys = lookups(burst=0)
    found: list[str | None] = ["ada", None, None]

    async def look_up(key: Secret) -> str | None:
        await trio.lowlevel.checkpoint()
        return found.pop(0)

    async def note(peer: str) -> None:
        await trio.lowlevel.checkpoint()

    for expected in ("ada", None, None):
        assert await keys.find(GOOD, PEER, look_up, note) == expected
    assert keys.refused.count == 2
    assert 0.39 < trio.current_time() < 0.41
