"""What the store knows of running gateways; none of it moves the revision."""

import math
from datetime import UTC, datetime, timedelta
from functools import partial

import attrs
import trio
import trio.testing

from bridgepool.gateway.control._gateway_session import GatewaySession
from bridgepool.gateway.control.store import GatewayExpiry, Store
from bridgepool.remote import RejectedRow
from tests.gateway.control.stores import NEW_YEAR, Clock, opened

THEN = datetime.fromtimestamp(NEW_YEAR, UTC)


def session(instance: str = "i1", **more: object) -> GatewaySession:
    row = GatewaySession(
        instance=instance,
        gateway="edge",
        key_id="k1",
        session="s1",
        control_plane="c1",
        connected=True,
        since=THEN,
        last_contact=THEN,
    )
    return attrs.evolve(row, **more)  # type: ignore[arg-type]  # any field


async def _expire(store: Store, **limits: float) -> int:
    return await store.expire_gateways(GatewayExpiry(**limits))


async def test_sessions_are_kept_and_told_as_they_were_recorded(database_url: str) -> None:
    rows = (
        session("i1", software="bridgepool/1", revision=3),
        session("i2", revision=2, rejected=(RejectedRow("openai", "base_url: bad"),)),
    )
    async with opened(database_url) as store:
        assert await store.list_gateways() == ()
        await store.record_gateways(reversed(rows))
        assert await store.list_gateways() == rows
        newer = attrs.evolve(rows[0], revision=4, last_contact=THEN + timedelta(seconds=5))
        await store.record_gateways([newer])
        assert await store.list_gateways() == (newer, rows[1])
        assert (await store.revisions()).revision == 0
        assert await store.audit() == ()


async def test_the_end_of_an_old_session_does_not_hide_a_new_one(database_url: str) -> None:
    old = session(session="old", control_plane="c1")
    new = session(session="new", control_plane="c2", since=THEN + timedelta(seconds=9))
    async with opened(database_url) as store:
        await store.record_gateways([old])
        await store.record_gateways([new])
        await store.record_gateways([old])
        assert await store.list_gateways() == (new,)
        await store.record_gateways([attrs.evolve(old, connected=False)])
        assert await store.list_gateways() == (new,)


async def test_a_new_session_is_kept_though_its_control_planes_clock_is_behind(
    database_url: str,
) -> None:
    old = session(session="old", control_plane="c1")
    new = session(session="new", control_plane="c2", since=THEN - timedelta(hours=9))
    async with opened(database_url) as store:
        await store.record_gateways([old])
        await store.record_gateways([attrs.evolve(old, connected=False)])
        await store.record_gateways([new])
        assert await store.list_gateways() == (new,)


async def test_what_a_dead_control_plane_left_is_noted_and_later_forgotten(
    database_url: str,
) -> None:
    clock = Clock()
    async with opened(database_url, clock=clock) as store:
        live = session("live", control_plane="c2")
        await store.record_gateways([session("dead"), live])
        clock.now += 60
        assert await store.touch_gateways("c2") == 1
        expire = partial(_expire, store, reconnect_within=0, forget_after=3600)
        assert await expire(stale_after=30) == 1
        rows = await store.list_gateways()
        assert [(row.connected, row.reconnecting) for row in rows] == [(False, True), (True, False)]
        clock.now += 3600
        assert await expire(stale_after=math.inf) == 2  # it is offline, and forgotten
        assert [row.instance for row in await store.list_gateways()] == ["live"]


async def test_clocks_that_are_set_expire_nobody_who_is_heard_of_and_save_nobody_who_is_not(
    database_url: str, autojump_clock: trio.testing.MockClock
) -> None:
    # The database's works run in threads, for which this clock does not wait.
    autojump_clock.autojump_threshold = math.inf
    clock = Clock()
    async with opened(database_url, clock=clock) as store:
        # Written by control planes whose clocks are an hour ahead of this one's.
        ahead = THEN + timedelta(hours=1)
        rows = [
            session(name, control_plane=plane, session=name, since=ahead, last_contact=ahead)
            for name, plane in (("heard", "c2"), ("silent", "c3"))
        ]
        await store.record_gateways(rows)
        for turn in range(1, 5):
            autojump_clock.jump(10)
            clock.now += -86_400 if turn % 2 else 172_800
            heard = attrs.evolve(rows[0], last_contact=ahead + timedelta(seconds=turn))
            await store.record_gateways([heard])
            expired = await _expire(
                store, stale_after=30, reconnect_within=math.inf, forget_after=math.inf
            )
            assert expired == int(turn == 4)  # first seen in turn 1, 30 s ago
        assert [row.connected for row in await store.list_gateways()] == [True, False]


async def test_a_session_after_a_dead_one_is_kept_once_that_is_stale(
    database_url: str, autojump_clock: trio.testing.MockClock
) -> None:
    autojump_clock.autojump_threshold = math.inf
    clock = Clock()
    async with opened(database_url, clock=clock) as store:
        await store.record_gateways([session(session="of-the-dead")])
        expire = partial(_expire, store, stale_after=30, reconnect_within=math.inf)
        assert await expire(forget_after=60) == 0
        clock.now -= 3600  # the next control plane is started with its clock set back
        earlier = THEN - timedelta(hours=1)
        new = session(session="new", control_plane="c2", since=earlier, last_contact=earlier)
        await store.record_gateways([new])
        assert (await store.list_gateways())[0].session == "of-the-dead"
        autojump_clock.jump(30)
        assert await expire(forget_after=7200) == 1
        await store.record_gateways([new])
        assert await store.list_gateways() == (new,)


async def test_one_that_is_reconnecting_has_its_time_from_the_first_look_on(
    database_url: str, autojump_clock: trio.testing.MockClock
) -> None:
    autojump_clock.autojump_threshold = math.inf
    clock = Clock()
    async with opened(database_url, clock=clock) as store:
        await store.record_gateways([session(connected=False, reconnecting=True)])
        clock.now += 86_400  # the control plane was down for a day
        expire = partial(_expire, store, stale_after=30, reconnect_within=20, forget_after=3600)
        for _ in range(2):
            assert await expire() == 0
            autojump_clock.jump(10)
        [row] = await store.list_gateways()
        assert (row.connected, row.reconnecting) == (False, True)
        assert await expire() == 2  # it is offline, and forgotten
        assert await store.list_gateways() == ()


async def test_one_whose_name_another_process_has_taken_is_forgotten_soon(
    database_url: str,
) -> None:
    """A gateway that was killed each minute left ten thousand rows within a week."""
    clock = Clock()
    async with opened(database_url, clock=clock) as store:
        later = THEN + timedelta(seconds=5)
        other = session("other", gateway="back", connected=False)
        await store.record_gateways(
            [
                session("killed", connected=False),
                session("stopped", connected=False, stopped=True),
                session("flaps", connected=False, last_contact=later + timedelta(seconds=1)),
                other,
                session("new", since=later, last_contact=later),
            ]
        )
        clock.now += 600
        assert await _expire(store, stale_after=math.inf) == 0
        clock.now += 1
        assert await _expire(store, stale_after=math.inf) == 2
        left = [row.instance for row in await store.list_gateways()]
        assert left == ["other", "flaps", "new"]


async def test_one_that_was_stopped_is_forgotten_after_a_day_and_one_that_was_lost_after_a_week(
    database_url: str,
) -> None:
    clock = Clock()
    async with opened(database_url, clock=clock) as store:
        lost = session("lost", connected=False)
        await store.record_gateways([session("stopped", connected=False, stopped=True), lost])
        clock.now += 86_400
        assert await _expire(store) == 0
        clock.now += 1
        assert await _expire(store) == 1
        assert await store.list_gateways() == (lost,)
        clock.now += 6 * 86_400
        assert await _expire(store) == 1
