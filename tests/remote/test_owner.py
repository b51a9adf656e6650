"""The owner's end, spoken to frame by frame."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing

from bridgepool import MemoryReloader, ProviderSnapshot
from bridgepool.remote import (
    Admitted,
    ConnectionLostError,
    Handshake,
    RemoteError,
    SessionEnd,
    SessionInfo,
    open_remote_service,
)
from bridgepool.remote._codec import encode_request
from bridgepool.remote._messages import (
    Acknowledge,
    GetRows,
    Hello,
    Row,
    RowSet,
    Watch,
    Welcome,
)
from bridgepool.remote._rpc import NoticeHandler, RpcPeer, open_rpc
from bridgepool.transports.memory import MemoryChannel, open_memory_channel_pair

from .rig import ROWS, Depot, Owner, Plane, open_plane, open_service, row

HELLO = Hello(name="front", instance="i", software="test/1")


async def link(plane: Plane) -> MemoryChannel:
    """Connect, and say nothing yet."""
    admitted = await plane.service.admit(Handshake("/", {"version": "1.0"}, plane.key, ""))
    assert isinstance(admitted, Admitted)
    ours, theirs = open_memory_channel_pair()
    plane.nursery.start_soon(plane.service.serve, theirs, admitted)
    return ours


@asynccontextmanager
async def talk(plane: Plane, heard: list[RowSet]) -> AsyncIterator[RpcPeer]:
    notices = {"changed": NoticeHandler(RowSet, heard.append)}
    async with open_rpc(await link(plane), notices=notices) as rpc:
        yield rpc


def depots(*rows: Depot) -> tuple[Row, ...]:
    return tuple(map(ROWS.write, rows))


@pytest.mark.parametrize("method", ["get_rows", "watch"])
async def test_nothing_is_answered_and_no_receipt_counts_before_hello(method: str) -> None:
    async with open_plane() as plane, talk(plane, []) as rpc:
        await rpc.notify("acknowledge", Acknowledge(1))
        with pytest.raises(RemoteError) as caught:
            await rpc.call(method, GetRows(), Welcome)
        assert caught.value.code == "hello_first"
        assert plane.service.receipts == {}
        assert plane.service.sessions == {}


async def test_hello_is_called_once_and_makes_the_session_known() -> None:
    async with open_plane() as plane, talk(plane, []) as rpc:
        welcome = await rpc.call("hello", HELLO, Welcome)
        (session,) = plane.service.sessions.values()
        assert session.id == welcome.session
        assert (session.name, session.instance, session.software) == ("front", "i", "test/1")
        assert session.identity.name == "front-1"
        with pytest.raises(RemoteError) as caught:
            await rpc.call("hello", HELLO, Welcome)
        assert caught.value.code == "hello_twice"


async def test_a_follower_without_a_hello_gets_the_reason_and_is_disconnected(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_plane() as plane, talk(plane, []) as rpc:
        with trio.fail_after(11):
            why = await rpc.wait_lost()
        assert (why.code, why.by_peer) == ("hello_timeout", True)


async def test_known_rows_are_not_sent_again(autojump_clock: trio.testing.MockClock) -> None:
    async with open_plane() as plane, talk(plane, []) as rpc:
        plane.owner.set_rows([row(1)])
        await trio.sleep(0.1)
        await rpc.call("hello", HELLO, Welcome)
        full = await rpc.call("get_rows", GetRows(), RowSet)
        assert full.rows == depots(row(1))
        assert (await rpc.call("get_rows", GetRows(full.set), RowSet)).rows is None
        assert (await rpc.call("get_rows", GetRows(full.set + 1), RowSet)).rows == full.rows


async def test_notices_bring_rows_only_to_those_who_want_them_and_when_they_are_others(
    autojump_clock: trio.testing.MockClock,
) -> None:
    heard: list[RowSet] = []
    async with open_plane() as plane, talk(plane, heard) as rpc:
        await rpc.call("hello", HELLO, Welcome)
        plane.owner.set_rows([row(1)])
        await trio.sleep(0.1)
        assert heard == [], "nobody asked"
        watching = await rpc.call("watch", Watch(), RowSet)
        assert watching == RowSet(plane.owner.revision, watching.set)
        plane.owner.set_rows([row(2)])
        await trio.sleep(0.1)
        assert heard == [RowSet(plane.owner.revision, watching.set + 1)]
        await rpc.call("watch", Watch(send=True), RowSet)
        plane.owner.set_rows([row(3)])
        await trio.sleep(0.1)
        rows = depots(row(3))
        assert heard[1:] == [RowSet(plane.owner.revision, watching.set + 2, rows)]
        plane.owner.move()
        await trio.sleep(0.1)
        assert heard[2:] == [RowSet(plane.owner.revision, watching.set + 2)]


async def test_a_source_without_revisions_is_followed_and_its_sets_are_told_apart(
    autojump_clock: trio.testing.MockClock,
) -> None:
    heard: list[RowSet] = []
    owner = Owner()
    owner.source = MemoryReloader(ProviderSnapshot([row(1)]))
    async with open_plane(owner) as plane, talk(plane, heard) as rpc:
        await rpc.call("hello", HELLO, Welcome)
        watching = await rpc.call("watch", Watch(send=True), RowSet)
        owner.source.replace(ProviderSnapshot([row(1)]))
        await trio.sleep(0.1)
        assert heard == []
        owner.source.replace(ProviderSnapshot([row(2)]))
        await trio.sleep(0.1)
        assert heard == [RowSet(None, watching.set + 1, depots(row(2)))]


async def test_rows_that_are_too_large_are_not_sent_and_the_reason_is_told(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[RowSet] = []
    async with open_plane() as plane, talk(plane, heard) as rpc:
        plane.service._rows._max_message_bytes = 1000
        await rpc.call("hello", HELLO, Welcome)
        await rpc.call("watch", Watch(send=True), RowSet)
        plane.owner.set_rows([row(1, city="x" * 1000)])
        await trio.sleep(0.1)
        assert [each.rows for each in heard] == [None]
        with pytest.raises(RemoteError, match="too large to be sent"):
            await rpc.call("get_rows", GetRows(), RowSet)
        plane.owner.set_rows([row(1)])
        await trio.sleep(0.1)
        assert heard[-1].rows == depots(row(1))


async def test_of_a_change_made_with_a_revocation_the_revoked_hears_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Trio wakes the tasks of a tick in any order, so it is tried until both orders have come."""
    for _ in range(20):
        assert await _heard_by_the_revoked() == ("key_revoked", ["key_revoked"], [])


async def _heard_by_the_revoked() -> tuple[str, list[str], list[RowSet]]:
    """Return why its session ended, how its call did, and the notices that it was sent."""

    class Late(MemoryReloader[Depot]):
        async def reload(self) -> ProviderSnapshot[Depot]:
            await gate.wait()
            return await super().reload()

    heard: list[RowSet] = []
    gate, owner = trio.Event(), Owner()
    owner.source = Late(ProviderSnapshot((), 1))
    async with open_plane(owner) as plane, talk(plane, heard) as rpc:
        await rpc.call("hello", HELLO, Welcome)
        await rpc.call("watch", Watch(send=True), RowSet)
        (session,) = plane.service.sessions.values()
        asked: list[str] = []

        async def ask() -> None:
            try:
                await rpc.call("get_rows", GetRows(), RowSet)
                asked.append("")
            except (RemoteError, ConnectionLostError) as error:
                asked.append(error.code)

        plane.nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        owner.set_rows([row(1)])
        owner.revoke(session.identity.key_id)
        gate.set()
        why = await rpc.wait_lost()
        await trio.testing.wait_all_tasks_blocked()
        return why.code, asked, heard


async def test_a_thousand_changes_in_a_row_are_a_few_notices(
    autojump_clock: trio.testing.MockClock,
) -> None:
    heard: list[RowSet] = []
    async with open_plane() as plane, talk(plane, heard) as rpc:
        await rpc.call("hello", HELLO, Welcome)
        await rpc.call("watch", Watch(send=True), RowSet)
        for number in range(1000):
            plane.owner.set_rows([row(number)])
        await trio.sleep(0.1)
        assert len(heard) <= 2
        assert heard[-1].revision == plane.owner.revision


async def test_a_follower_that_does_not_read_holds_up_nobody_and_is_ended_when_revoked(
    autojump_clock: trio.testing.MockClock,
) -> None:
    heard: list[RowSet] = []
    async with open_plane() as plane:
        stuck = await link(plane)
        await stuck.send(encode_request(0, "hello", HELLO))
        await stuck.send(encode_request(1, "watch", Watch(send=True)))
        plane.key = plane.owner.add_key("front-2")
        async with talk(plane, heard) as rpc:
            await rpc.call("hello", HELLO, Welcome)
            await rpc.call("watch", Watch(send=True), RowSet)
            for number in range(100):
                plane.owner.set_rows([row(number)])
                await trio.sleep(0.001)
            await trio.sleep(0.1)
            assert heard[-1].revision == plane.owner.revision
            by_name = {each.identity.name: each for each in plane.service.sessions.values()}
            began = trio.current_time()
            plane.owner.revoke(by_name["front-1"].identity.key_id)
            while len(plane.service.sessions) > 1:  # noqa: ASYNC110 -- it is a plain dict
                await trio.sleep(0.1)
            assert trio.current_time() - began < 1
            assert (heard[-1].revision or 0) >= plane.owner.revision - 1


async def test_a_set_is_encoded_once_for_all_sessions(
    autojump_clock: trio.testing.MockClock,
) -> None:
    written: list[str] = []

    def write(depot: Depot) -> Depot:
        written.append(depot.id)
        return depot

    counting = attrs.evolve(ROWS, to_row=write)
    owner = Owner()
    owner.set_rows([row(1), row(2)])
    with owner.source.subscribe() as changes:
        async with (
            open_remote_service(counting, owner.source, changes, admit=owner.admit) as service,
            trio.open_nursery() as nursery,
        ):
            plane = Plane(nursery, owner, service, owner.add_key("front"))
            for _ in range(5):
                heard: list[RowSet] = []
                async with talk(plane, heard) as rpc:
                    await rpc.call("hello", HELLO, Welcome)
                    rows = (await rpc.call("get_rows", GetRows(), RowSet)).rows
                    assert rows is not None
                    assert len(rows) == 2
            nursery.cancel_scope.cancel()
    assert written == ["1", "2"]


async def test_a_source_that_fails_leaves_the_last_rows_in_force(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(MemoryReloader[Depot]):
        broken = False

        async def reload(self) -> ProviderSnapshot[Depot]:
            if self.broken:
                raise OSError("secret place")
            return await super().reload()

    owner = Owner()
    source = owner.source = Failing(ProviderSnapshot([row(1)], 1))
    async with open_plane(owner) as plane, talk(plane, []) as rpc:
        await rpc.call("hello", HELLO, Welcome)
        source.broken = True
        owner.set_rows([row(2)])
        await trio.sleep(1)
        assert (await rpc.call("get_rows", GetRows(), RowSet)).rows == depots(row(1))
        source.broken = False
        await trio.sleep(60)
        assert (await rpc.call("get_rows", GetRows(), RowSet)).rows == depots(row(2))


async def test_sessions_and_receipts_are_shown_to_an_observer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    seen: list[object] = []

    class Observer:
        def session_opened(self, session: SessionInfo) -> None:
            seen.append(session.identity.name)

        def acknowledged(self, session_id: str, receipt: Acknowledge) -> None:
            seen.append(receipt)

        def session_closed(self, session_id: str, end: SessionEnd) -> None:
            seen.append(end)

    owner = Owner()
    with owner.source.subscribe() as changes:
        async with (
            open_remote_service(
                ROWS,
                owner.source,
                changes,
                admit=owner.admit,
                is_live=owner.is_live,
                observer=Observer(),
            ) as service,
            trio.open_nursery() as nursery,
        ):
            plane = Plane(nursery, owner, service, owner.add_key("front-1"))
            async with talk(plane, []) as rpc:
                await rpc.call("hello", HELLO, Welcome)
                await rpc.notify("acknowledge", Acknowledge(1))
                await rpc.call("get_rows", GetRows(), RowSet)
                assert list(service.receipts.values()) == [Acknowledge(1)]
                await rpc.send_goodbye("follower_ended", "it has ended")
            await trio.sleep(1)
            assert seen == ["front-1", Acknowledge(1), "left"]
            assert not service.receipts
            assert not service.sessions
            for end in ("closed", "lost", "revoked"):
                async with open_rpc(channel := await link(plane)) as rpc:
                    await rpc.call("hello", HELLO, Welcome)
                    if end == "closed":  # by a proxy in between, perhaps
                        await channel.aclose()
                    elif end == "lost":
                        channel.break_link()
                    else:
                        owner.revoke(next(iter(owner.keys.values())).key_id)
                    await trio.sleep(1)
                assert seen[-1] == ("revoked" if end == "revoked" else "lost")
            nursery.cancel_scope.cancel()


async def test_leaving_the_service_says_goodbye_to_the_followers(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    lost: list[ConnectionLostError] = []
    owner = Owner()
    key = owner.add_key("front-1")

    async def wait(plane: Plane, task_status: trio.TaskStatus[None]) -> None:
        async with talk(plane, []) as rpc:
            await rpc.call("hello", HELLO, Welcome)
            task_status.started()
            lost.append(await rpc.wait_lost())

    async with open_service(owner) as service:
        await nursery.start(wait, Plane(nursery, owner, service, key))
    await trio.sleep(1)
    assert (lost[0].code, lost[0].by_peer) == ("shutting_down", True)
    assert service.sessions == {}
