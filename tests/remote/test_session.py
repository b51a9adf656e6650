"""What a follower's session makes of notices and answers that cross."""

import trio.testing

from bridgepool.remote._follower_session import open_follower_session
from bridgepool.remote._messages import Hello, RowSet

from .rig import ROWS, open_plane, row
from .test_owner import link

HELLO = Hello(name="front", instance="i", software="test/1")


async def test_a_notice_of_other_rows_that_brings_none_means_that_they_are_asked_for() -> None:
    async with (
        open_plane() as plane,
        open_follower_session(await link(plane), HELLO, (), lambda _: None, "owner") as session,
    ):
        session.known = 3
        session.note_changed(RowSet(7, 3))
        same = session.take_sent()
        assert same is not None
        assert same.rows is None
        assert session.take_sent() is None
        session.note_changed(RowSet(8, 4))
        assert session.take_sent() is None


async def test_rows_that_were_not_taken_yet_keep_when_only_the_revision_moves() -> None:
    rows = (ROWS.write(row(1)),)
    async with (
        open_plane() as plane,
        open_follower_session(await link(plane), HELLO, (), lambda _: None, "owner") as session,
    ):
        session.note_changed(RowSet(7, 3, rows))
        session.note_changed(RowSet(8, 3))
        assert session.take_sent() == RowSet(8, 3, rows)


async def test_what_came_before_the_answer_is_not_taken_after_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_plane() as plane:
        revision = plane.owner.set_rows([row(1)])
        await trio.sleep(0.1)
        async with open_follower_session(
            await link(plane), HELLO, (), lambda _: None, "owner"
        ) as session:
            session.note_changed(RowSet(revision - 1, 1, ()))
            answer = await session.get_rows()
            assert answer.rows == (ROWS.write(row(1)),)
            assert session.take_sent() is None
            session.note_changed(RowSet(revision + 1, answer.set + 1, ()))
            await session.get_rows()
            assert session.take_sent() is not None
