"""Whose key a client sent, when the store of the control plane went back to an earlier state."""

import pytest
import trio
import trio.testing

from bridgepool import open_singleflight
from bridgepool.gateway.providers import AuthorizationUnavailableError, Caller
from bridgepool.gateway.sources._authorization import (
    AuthorizationLimits,
    KnownClient,
    RemoteClients,
)

from .test_authorization import ANN, go_away, open_plane


async def test_with_a_new_epoch_everything_is_forgotten_and_lower_revisions_count(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_plane() as plane:
        plane.go_back(110, "old")
        assert await plane.cache.authorize(b"ann-key") == ANN
        assert await plane.cache.authorize(b"bob-key") is None
        before = plane.cache.changes
        del plane.good["ann-key"]
        plane.good["bob-key"] = Caller("bob", "k2")
        plane.go_back(100, "new")
        assert plane.cache.known_clients() == ()
        assert plane.cache.changes == before + 1  # so that the snapshot file forgets it, too
        assert await plane.cache.authorize(b"ann-key") is None
        assert await plane.cache.authorize(b"bob-key") == Caller("bob", "k2")
        go_away(plane)
        with pytest.raises(AuthorizationUnavailableError):
            await plane.cache.authorize(b"eve-key")


async def test_an_answer_of_a_lost_epoch_that_comes_late_is_not_used_and_asked_for_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_plane() as plane, trio.open_nursery() as nursery:
        plane.go_back(110, "old")
        plane.gate = trio.Event()
        answers: list[Caller | None] = []

        async def ask() -> None:
            answers.append(await plane.cache.authorize(b"ann-key"))

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        del plane.good["ann-key"]
        plane.go_back(100, "new")
        plane.gate.set()
        await trio.sleep(0.1)
        assert answers == [None]
        assert plane.asked == ["ann-key", "ann-key"]


async def test_clients_kept_in_a_file_are_forgotten_when_the_epoch_is_another_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    for epoch, kept in (("old", 1), ("new", 0), (None, 0)):
        async with open_singleflight(build_timeout=10) as flights:
            cache = RemoteClients(flights, AuthorizationLimits())
            cache.remember_clients([KnownClient(b"d" * 32, "ann", "k1", 5.0)], epoch="old")
            cache._note_clients(3, epoch)
            assert len(cache.known_clients()) == kept


async def test_what_was_answered_on_an_earlier_session_is_asked_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Meanwhile the store may have come to the same clients revision by other changes."""
    async with open_plane() as plane:
        assert await plane.cache.authorize(b"ann-key") == ANN
        go_away(plane)
        assert await plane.cache.authorize(b"ann-key") == ANN
        del plane.good["ann-key"]
        plane.cache._note_session(plane.ask)
        plane.cache._note_clients(plane.clients)
        assert await plane.cache.authorize(b"ann-key") is None
