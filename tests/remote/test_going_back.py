"""An owner that is behind: a replica, or a source that was restored from a backup."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing

from bridgepool import ReplaceOutcome, open_bridge_pool
from bridgepool.remote import RemoteProviders, open_remote_providers

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
    (record,) = [each for each in caplog.records if "ahead of its owner" in each.message]
    assert record.__dict__["follower"] == "front-1"
    assert record.__dict__["follower_revision"] == 100
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
