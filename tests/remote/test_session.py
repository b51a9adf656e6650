"""What a session makes of notices and answers that cross."""

from bridgepool.remote import Revisions
from bridgepool.remote._messages import Changed, Hello
from bridgepool.remote._session import open_client_session

from .rig import open_plane, row
from .test_service import link

HELLO = Hello(gateway="front", instance="i", software="test/1")


async def test_a_notice_of_other_providers_that_brings_none_means_that_they_are_asked_for() -> None:
    async with (
        open_plane() as plane,
        open_client_session(await link(plane), HELLO, lambda _: None) as session,
    ):
        session.known = 3
        session.note_changed(Changed(Revisions(7, 3, 7)))
        same = session.take_sent()
        assert same is not None
        assert same.rows is None
        assert session.take_sent() is None
        session.note_changed(Changed(Revisions(8, 8, 7)))
        assert session.take_sent() is None


async def test_what_came_before_the_answer_is_not_taken_after_it() -> None:
    async with open_plane() as plane:
        revision = plane.backend.set_rows([row(1)])
        async with open_client_session(await link(plane), HELLO, lambda _: None) as session:
            session.note_changed(Changed(Revisions(revision - 1, revision - 1, 1), ()))
            answer = await session.get_providers()
            assert answer.rows == (row(1),)
            assert session.take_sent() is None
            session.note_changed(Changed(Revisions(revision + 1, revision + 1, 1), ()))
            await session.get_providers()
            assert session.take_sent() is not None
