"""A follower follows its owner, whatever the connection does."""

import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from bridgepool import MemoryReloader, ProviderSnapshot, ReloadError
from bridgepool.remote import RejectedRow, RemoteLimits, open_remote_providers

from .rig import ROWS, Depot, Owner, follow, open_plane, row


async def settled(seconds: float = 0.01) -> None:
    await trio.sleep(seconds)


async def test_a_reload_gives_the_providers_with_the_revision_of_the_owner(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_plane() as plane:
        revision = plane.owner.set_rows([row(1), row(2)])
        async with follow(plane) as remote:
            snapshot = await remote.reload()
            assert [provider.name for provider in snapshot.providers] == ["depot-1", "depot-2"]
            assert snapshot.revision == revision
            assert remote.status.connected


async def test_no_providers_are_a_valid_answer(autojump_clock: trio.testing.MockClock) -> None:
    async with open_plane() as plane, follow(plane) as remote:
        assert (await remote.reload()).providers == ()


async def test_a_change_gives_a_notice_that_brings_the_providers_along(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_plane() as plane, follow(plane) as remote:
        await remote.reload()
        revision = plane.owner.set_rows([row(1)])
        await remote.changes.receive()
        plane.links[0].break_link()  # so nothing can be asked
        snapshot = await remote.reload()
        assert [provider.name for provider in snapshot.providers] == ["depot-1"]
        assert snapshot.revision == revision


async def test_when_only_the_revision_moved_the_providers_stay(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_plane() as plane:
        plane.owner.set_rows([row(1)])
        async with follow(plane) as remote:
            before = await remote.reload()
            revision = plane.owner.move()
            await remote.changes.receive()
            plane.links[0].break_link()  # so nothing can be asked
            after = await remote.reload()
            assert after.revision == revision
            assert after.providers == before.providers
            assert after.providers[0] is before.providers[0]


async def test_rows_that_come_again_are_not_read_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_plane() as plane:
        plane.owner.set_rows([row(1), row(2)])
        async with follow(plane) as remote:
            before = await remote.reload()
            plane.owner.set_rows([row(3), row(2), row(1, city="other")])
            await remote.changes.receive()
            after = await remote.reload()
            assert after.providers == (row(3), row(2), row(1, city="other"))
            assert after.providers[1] is before.providers[1]


async def test_a_reload_without_a_notice_asks_and_finds_what_a_lost_one_would_have_told(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_plane() as plane, follow(plane) as remote:
        await remote.reload()
        for session in plane.service._open:
            session.watch = None  # notices are lost from here on
        plane.owner.set_rows([row(1)])
        await settled()
        assert len((await remote.reload()).providers) == 1


async def test_without_a_session_a_reload_fails_at_once_and_says_why(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_plane() as plane:
        plane.down = True
        async with follow(plane) as remote:
            await settled()
            began = trio.current_time()
            with pytest.raises(ReloadError, match="nobody is there"):
                await remote.reload()
            assert trio.current_time() == began
            assert not remote.status.connected


async def test_each_new_session_gives_a_notice_and_its_first_reload_gets_everything(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_plane() as plane:
        plane.owner.set_rows([row(1)])
        async with follow(plane) as remote:
            await remote.reload()
            plane.cut()
            await remote.changes.receive()
            assert len((await remote.reload()).providers) == 1
            assert remote.status.sessions == 2
            assert remote.status.last_error


async def test_a_reload_before_the_owner_has_rows_waits_and_can_be_cancelled(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Late(MemoryReloader[Depot]):
        async def reload(self) -> ProviderSnapshot[Depot]:
            await gate.wait()
            return await super().reload()

    gate, owner = trio.Event(), Owner()
    owner.source = Late(ProviderSnapshot((row(1),), 1))
    async with (
        open_plane(owner) as plane,
        open_remote_providers(plane.connect, ROWS, name="front") as remote,
    ):
        await remote.changes.receive()
        with trio.move_on_after(1) as waiting:
            await remote.reload()
        assert waiting.cancelled_caught
        gate.set()
        assert (await remote.reload()).providers == (row(1),)


async def test_tries_come_after_random_waits_that_grow_to_the_longest(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = RemoteLimits(first_delay=1, max_delay=8)
    async with open_plane() as plane:
        plane.down = True
        async with follow(plane, limits):
            await trio.sleep(1000)
    waits = [after - before for before, after in zip(plane.tries, plane.tries[1:], strict=False)]
    assert len(waits) > 100
    assert waits[0] <= 1
    assert waits[1] <= 2
    assert max(waits) <= 8
    assert len({round(wait, 6) for wait in waits[4:]}) > 90, "spread out at the cap, too"
    assert math.isclose(sum(waits[4:]) / len(waits[4:]), 4, abs_tol=1)


async def test_connections_that_are_made_and_cut_at_once_do_not_become_a_storm(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_plane() as plane:
        plane.cut_at_once = True
        async with open_remote_providers(plane.connect, ROWS, name="front") as remote:
            await trio.sleep(600)
            assert 60 < len(plane.tries) < 300
            assert not remote.status.ever_connected
            plane.cut_at_once = False
            with trio.fail_after(11):
                await remote.changes.receive()


async def test_sessions_that_end_as_soon_as_they_begin_do_not_become_a_storm(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        open_plane() as plane,
        open_remote_providers(plane.connect, ROWS, name="front") as remote,
    ):
        with trio.move_on_after(600):
            while True:
                await remote.changes.receive()
                plane.cut()
        assert 60 < remote.status.sessions < 300


async def test_a_session_that_lasted_makes_the_waits_short_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_plane() as plane:
        plane.down = True
        async with follow(plane) as remote:
            await trio.sleep(100)
            plane.down = False
            await remote.changes.receive()
            await trio.sleep(5)
            plane.cut()
            with trio.fail_after(0.3):
                await remote.changes.receive()


async def test_a_program_that_ends_does_not_wait_for_the_next_try_to_connect(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = RemoteLimits(first_delay=1e9, max_delay=1e9, refused_delay=1e9)
    async with open_plane() as plane:
        plane.down = True
        async with follow(plane, limits) as remote:
            await trio.sleep(1)
            remote.reconnect()
            await trio.sleep(1)
            assert len(plane.tries) == 2
            plane.down = False
            await trio.sleep(1)
            assert not remote.status.connected
            remote.reconnect()
            with trio.fail_after(1):
                await remote.changes.receive()
            remote.reconnect()  # nothing waits
            await trio.sleep(1)
            assert remote.status.sessions == 1


async def test_a_silent_owner_is_given_up_after_the_connect_timeout(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_plane() as plane:
        plane.silent = True
        async with open_remote_providers(plane.connect, ROWS, name="front") as remote:
            await trio.sleep(16)
            assert remote.status.last_error == "no session within 15 s"
            await trio.sleep(20)
            assert remote.status.attempts >= 2


async def test_a_row_that_cannot_be_used_is_told_and_the_others_are_used(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_plane() as plane:
        plane.owner.set_rows([row(1), row(2)])
        async with follow(plane) as remote:
            before = await remote.reload()
            plane.owner.set_rows([row(1, name="new"), row(2, city="?")])
            await remote.changes.receive()
            after = await remote.reload()
            assert [provider.name for provider in after.providers] == ["new", "depot-2"]
            assert after.providers[1] == before.providers[1]
            assert [rejection.name for rejection in remote.rejected] == ["depot-2"]
            await remote.reload()
    said = "rows rejected: 1; that of 'depot-2': city: is not known here"
    assert caplog.messages.count(said) == 1


async def test_the_latest_receipt_is_sent_and_sent_again_in_each_session(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_plane() as plane, follow(plane) as remote:
        remote.acknowledge(1)
        remote.acknowledge(2, [RejectedRow("a", "why")])
        await trio.sleep(0.1)  # longer than `receipt_delay`
        (receipt,) = plane.service.receipts.values()
        assert (receipt.revision, receipt.rejected) == (2, (RejectedRow("a", "why"),))
        plane.cut()
        remote.acknowledge(3)
        await remote.changes.receive()
        await trio.sleep(0.1)  # longer than `receipt_delay`
        (receipt,) = plane.service.receipts.values()
        assert receipt.revision == 3
        plane.cut()
        await remote.changes.receive()
        await trio.sleep(0.1)  # longer than `receipt_delay`
        (receipt,) = plane.service.receipts.values()
        assert receipt.revision == 3


async def test_what_the_block_raises_comes_out_as_it_is(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_plane() as plane:
        with pytest.raises(ZeroDivisionError):
            async with follow(plane):
                raise ZeroDivisionError
        await settled()
        assert plane.links == []
        assert plane.service.sessions == {}


async def test_a_connector_with_a_nursery_loses_and_is_refused_sessions_like_any_other(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_plane() as plane:

        @asynccontextmanager
        async def connect() -> AsyncIterator[trio.abc.Channel[bytes]]:
            async with trio.open_nursery(), plane.connect() as channel:
                yield channel

        async with open_remote_providers(connect, ROWS, name="front") as remote:
            await remote.reload()
            plane.owner.keys.clear()
            plane.cut()
            await trio.sleep(1)
            assert remote.status.refused is not None
        assert "connection to the owner failed: the connection was lost" in caplog.text
        assert "unexpected" not in caplog.text


async def test_a_connector_that_raises_something_unexpected_is_logged_and_tried_again(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    def connect() -> trio.abc.AsyncResource:
        raise ZeroDivisionError

    async with open_remote_providers(connect, ROWS, name="front") as remote:  # type: ignore[arg-type]
        await trio.sleep(30)
        assert remote.status.attempts > 2
        assert "ZeroDivisionError" in str(remote.status.last_error)


async def test_an_outage_is_logged_once_however_often_it_is_tried(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    def logged() -> list[str]:
        return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]

    async with open_plane() as plane, follow(plane) as remote:
        for outage in (1, 2):
            plane.down = True
            plane.cut()
            await trio.sleep(3600)
            assert len(logged()) == 2 * outage, "that it was cut, and that nobody is there"
            plane.down = False
            await remote.changes.receive()
            assert remote.status.connected


async def test_a_receipt_that_is_too_large_costs_no_session(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_plane() as plane, follow(plane) as remote:
        remote.acknowledge(1, [RejectedRow("large", "x" * (17 << 20))])
        await trio.sleep(60)
        remote.acknowledge(2)
        await trio.sleep(60)
        (receipt,) = plane.service.receipts.values()
        assert receipt.revision == 2
        assert remote.status.sessions == 1
