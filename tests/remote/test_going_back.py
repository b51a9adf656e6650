"""An owner that is behind: a replica, or a source that was restored from a backup."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing

from bridgepool import MemoryReloader, ProviderSnapshot, ReplaceOutcome, open_bridge_pool
from bridgepool.remote import (
    CatchUp,
    RemoteError,
    RemoteProviders,
    Seen,
    open_remote_providers,
    open_remote_service,
)

from .rig import ROWS, Depot, Owner, Plane, open_plane, row
from .test_convergence import open_nothing


@attrs.define(eq=False)
class Two:
    """Two owners; which one is found is up to the test."""

    ahead: Plane
    behind: Plane
    remote: RemoteProviders[Depot] = attrs.field(init=False)
    use_ahead: bool = True

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[trio.abc.Channel[bytes]]:
        plane = self.ahead if self.use_ahead else self.behind
        async with plane.connect() as channel:
            yield channel

    async def switch(self) -> None:
        """Go to the one that is behind."""
        self.use_ahead = False
        self.ahead.cut()
        await self.remote.changes.receive()


@asynccontextmanager
async def open_two() -> AsyncIterator[Two]:
    async with (
        open_plane(Owner(first_revision=100)) as ahead,
        open_plane(Owner(first_revision=5)) as behind,
    ):
        two = Two(ahead, behind)
        async with open_remote_providers(two.connect, ROWS, name="front") as two.remote:
            await two.remote.changes.receive()
            yield two


async def test_the_pool_keeps_what_it_has_and_what_was_rejected_belongs_to_that(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_two() as two:
        two.ahead.owner.set_rows([row(1), row(2, city="?")])
        two.behind.owner.set_rows([row(3)])
        await two.remote.changes.receive()
        async with open_bridge_pool(open_nothing, await two.remote.reload()) as pool:
            await two.switch()
            old = await two.remote.reload()
            assert old.revision == two.behind.owner.revision
            assert pool.replace_providers(old).outcome is ReplaceOutcome.OUT_OF_DATE
            assert [rejection.name for rejection in two.remote.rejected] == ["depot-2"]
            last = 0
            for number in range(200):
                last = two.behind.owner.set_rows([row(number)])
            await two.remote.changes.receive()
            caught_up = await two.remote.reload()
            assert caught_up.revision == last
            assert pool.replace_providers(caught_up).outcome is ReplaceOutcome.APPLIED
            assert two.remote.rejected == ()


async def test_the_log_of_the_owner_names_a_follower_that_is_ahead_of_it(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_two() as two:
        two.remote.acknowledge(100)
        await two.switch()
        await trio.sleep(0.1)
    (record,) = [each for each in caplog.records if "follower is ahead" in each.message]
    assert record.__dict__["reported_by"] == "front-1"
    assert record.__dict__["reported_revision"] == 100
    assert record.__dict__["own_revision"] == 5


async def test_a_follower_that_is_ahead_is_named_also_if_it_sends_no_receipts(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """As one whose owner counts anew after a restart: it keeps what it has until then."""
    async with open_two() as two:
        last = two.ahead.owner.set_rows([row(1)])
        await two.remote.changes.receive()
        await two.remote.reload()
        await two.switch()
        (record,) = [each for each in caplog.records if "follower is ahead" in each.message]
        two.remote.acknowledge(last)
        await trio.sleep(0.1)
    assert [each for each in caplog.records if "follower is ahead" in each.message] == [record]
    assert record.__dict__["reported_revision"] == last
    assert record.__dict__["own_revision"] == 5


async def test_the_same_revision_by_other_changes_is_not_taken_for_the_one_before(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_two() as two:
        last = two.ahead.owner.set_rows([row(1)])
        await two.remote.changes.receive()
        assert (await two.remote.reload()).revision == last
        number = 1
        while two.behind.owner.set_rows([row(number)]) < last:
            number += 1
        await two.switch()
        snapshot = await two.remote.reload()
        assert snapshot.revision == last
        assert [provider.name for provider in snapshot.providers] == [f"depot-{number}"]


@asynccontextmanager
async def open_epochs(
    catch_up: CatchUp | None = None,
) -> AsyncIterator[tuple[Plane, MemoryReloader[Depot]]]:
    """Open an owner of one source, which a test puts back to earlier revisions."""
    owner = Owner()
    owner.source.replace(ProviderSnapshot([row(1)], 110, "old"))
    with owner.source.subscribe() as changes:
        async with (
            open_remote_service(
                ROWS, owner.source, changes, admit=owner.admit, is_live=owner.is_live,
                catch_up=catch_up,
            ) as service,
            trio.open_nursery() as nursery,
        ):  # fmt: skip
            await trio.testing.wait_all_tasks_blocked()
            yield Plane(nursery, owner, service, owner.add_key("front-1")), owner.source
            nursery.cancel_scope.cancel()


async def test_a_lower_revision_of_a_new_epoch_is_put_in_force_on_the_same_session(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        open_epochs() as (plane, source),
        open_remote_providers(plane.connect, ROWS, name="front") as remote,
    ):
        await remote.changes.receive()
        async with open_bridge_pool(open_nothing, await remote.reload()) as pool:
            source.replace(ProviderSnapshot([row(2)], 100, "new"))
            await remote.changes.receive()
            fresh = await remote.reload()
            assert (fresh.revision, fresh.epoch) == (100, "new")
            assert pool.replace_providers(fresh).outcome is ReplaceOutcome.APPLIED
            remote.acknowledge(100, epoch="new")
            await trio.sleep(1)
            [receipt] = plane.service.receipts.values()
            assert (receipt.revision, receipt.epoch) == (100, "new")
        assert remote.status.sessions == 1


async def test_with_a_new_epoch_equal_rows_are_sent_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        open_epochs() as (plane, source),
        open_remote_providers(plane.connect, ROWS, name="front") as remote,
    ):
        await remote.changes.receive()
        await remote.reload()
        source.replace(ProviderSnapshot([row(1)], 100, "new"))
        await remote.changes.receive()
        source.replace(ProviderSnapshot([row(1)], 101, "new"))
        await remote.changes.receive()
        assert remote._session is not None
        assert remote._session.known == 1
        fresh = await remote.reload()
        assert (fresh.revision, fresh.epoch, fresh.providers) == (101, "new", (row(1),))
        assert remote._session.known == 2


async def test_an_owner_is_told_what_a_follower_has_seen_before_it_welcomes_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    told: list[Seen] = []

    async def catch_up(seen: Seen) -> Seen:
        told.append(seen)
        source.replace(ProviderSnapshot([row(2)], 100, "new"))
        await trio.lowlevel.checkpoint()
        return Seen(100, "new")

    async with (
        open_epochs(catch_up) as (plane, source),
        open_remote_providers(
            plane.connect, ROWS, name="front", seen=ProviderSnapshot([row(3)], 120, "old")
        ) as remote,
    ):
        await remote.changes.receive()
        assert told == [Seen(120, "old")]
        assert remote.status.revision == 100  # from the first moment on
        fresh = await remote.reload()
        assert (fresh.revision, fresh.epoch) == (100, "new")
        plane.cut()
        await remote.changes.receive()
        assert len(told) == 1, "it has seen what is sent"


async def test_a_follower_that_is_ahead_waits_outside_while_the_owner_cannot_find_out(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def catch_up(seen: Seen) -> Seen:
        await trio.lowlevel.checkpoint()
        if away:
            raise RemoteError("unavailable", "the store cannot be read")
        source.replace(ProviderSnapshot([row(2)], 130, "old"))
        return Seen(130, "old")

    away = True
    async with (
        open_epochs(catch_up) as (plane, source),
        open_remote_providers(
            plane.connect, ROWS, name="front", seen=ProviderSnapshot([row(3)], 120, "old")
        ) as remote,
    ):
        await trio.sleep(60)
        assert remote.status.sessions == 0
        assert "the store cannot be read" in (remote.status.last_error or "")
        away = False
        await remote.changes.receive()
        assert (await remote.reload()).revision == 130
