"""Keys and versions that will not do: who is told what, and when all is well again."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing

from bridgepool import ReloadError
from bridgepool.remote import Identity, RemoteLimits, open_remote_providers
from bridgepool.transports._errors import HandshakeRefusedError

from .rig import ROWS, Owner, follow, open_plane, open_service, row

QUICK = RemoteLimits(refused_delay=30)


async def test_a_wrong_key_before_the_first_session_is_returned_to_those_who_wait_for_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_plane() as plane:
        plane.key = Owner().add_key("stranger")
        async with open_remote_providers(plane.connect, ROWS, name="front") as remote:
            with trio.fail_after(1):
                refusal = await remote.wait_refused()
            assert (refusal.status, refusal.code) == (401, "unknown_key")
            assert remote.status.refused == refusal
            with pytest.raises(ReloadError, match="this key is not known"):
                await remote.reload()


async def test_a_wrong_version_is_told_with_who_has_to_be_upgraded(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_plane() as plane:
        plane.version = "2.0"
        async with open_remote_providers(plane.connect, ROWS, name="front") as remote:
            refusal = await remote.wait_refused()
            assert refusal.code == "version_refused"
            assert "upgrade the owner" in refusal.reason
            with trio.testing.assert_checkpoints():  # also when it need not wait
                assert await remote.wait_refused() == refusal


async def test_a_refused_follower_tries_again_seldom_and_recovers_when_it_is_let_in(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_plane() as plane:
        good, plane.key = plane.key, Owner().add_key("stranger")
        async with open_remote_providers(plane.connect, ROWS, name="front", limits=QUICK) as remote:
            await trio.sleep(300)
            assert 10 <= len(plane.tries) <= 21
            plane.key = good
            with trio.fail_after(31):
                await remote.changes.receive()
            assert remote.status.refused is None
            assert remote.status.connected


async def test_a_revoked_key_ends_the_session_at_once_and_both_ends_know_why(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.random", lambda: 1.0)  # the next attempt comes after the look
    async with open_plane() as plane:
        plane.owner.set_rows([row(1)])
        async with follow(plane, QUICK) as remote:
            before = await remote.reload()
            (session,) = plane.service.sessions.values()
            began = trio.current_time()
            plane.owner.revoke(session.identity.key_id)
            while remote.status.connected:  # noqa: ASYNC110 -- the status has no event
                await trio.sleep(0.01)
            assert trio.current_time() - began < 1
            assert plane.service.sessions == {}
            assert "revoked" in str(remote.status.last_error)
            await trio.sleep(1)
            assert remote.status.refused is not None
            assert remote.status.refused.code == "unknown_key"
            # An outage for the connection, not for who is served.
            with pytest.raises(ReloadError):
                await remote.reload()
            plane.key = plane.owner.add_key("front-1")
            with trio.fail_after(31):
                await remote.changes.receive()
            assert (await remote.reload()).providers == before.providers


async def test_a_refusal_after_there_was_a_session_is_not_returned_to_those_who_wait_for_the_first(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_plane() as plane, follow(plane, QUICK) as remote:
        plane.key = Owner().add_key("stranger")
        plane.cut()
        with trio.move_on_after(100) as waiting:
            await remote.wait_refused()
        assert waiting.cancelled_caught
        assert str(remote.status).startswith("refused (unknown_key)")


async def test_an_owner_that_cannot_look_keys_up_is_an_outage_and_no_refusal(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_plane() as plane:
        plane.version = ""  # malformed, which is a refusal
        async with open_remote_providers(plane.connect, ROWS, name="front") as remote:
            await trio.sleep(0.1)
            assert remote.status.refused is not None

    async with (
        open_plane(Owner(broken=True)) as plane,
        open_remote_providers(plane.connect, ROWS, name="front") as remote,
    ):
        await trio.sleep(20)
        assert remote.status.refused is None
        assert remote.status.attempts > 4
        assert "503" in str(remote.status.last_error)


async def test_what_answers_without_a_reason_is_no_owner_and_so_an_outage(
    autojump_clock: trio.testing.MockClock,
) -> None:
    @asynccontextmanager
    async def connect() -> AsyncIterator[trio.abc.Channel[bytes]]:
        await trio.lowlevel.checkpoint()
        raise HandshakeRefusedError(404, "unexpected_status", "the server there gave no reason")
        yield

    async with open_remote_providers(connect, ROWS, name="front") as remote:
        await trio.sleep(60)
        assert remote.status.attempts > 8
        assert remote.status.refused is None
        assert "404" in str(remote.status.last_error)
        with trio.move_on_after(1) as waiting:
            await remote.wait_refused()
        assert waiting.cancelled_caught


async def test_a_follower_in_this_process_whose_key_is_not_live_learns_why(
    autojump_clock: trio.testing.MockClock,
) -> None:
    owner = Owner()
    async with (
        open_service(owner) as service,
        open_remote_providers(
            partial(service.connect, Identity("local", key_id="revoked")), ROWS, name="local"
        ) as remote,
    ):
        with trio.fail_after(1), pytest.raises(ReloadError, match="revoked"):
            await remote.reload()
