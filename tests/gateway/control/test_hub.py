"""The hub: gateways are served by the last reading, whatever the store does meanwhile."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from bridgepool.gateway.control._errors import NotFoundError, StoreUnavailableError
from bridgepool.gateway.control._hub import Hub, open_hub
from bridgepool.gateway.control.store import Store
from bridgepool.gateway.providers._access_keys import GATEWAY_KEYS
from bridgepool.remote import Acknowledge, Identity
from tests.gateway.control.planes import receipt, session, wait_for, wait_revision
from tests.gateway.control.stores import ADA, draft, opened


@attrs.define(eq=False)
class Faulty:
    """A real store that a test can take away."""

    store: Store
    away: bool = False
    snapshots: int = 0

    def __getattr__(self, name: str) -> object:
        found = getattr(self.store, name)
        if name in ("subscribe", "programs"):
            return found

        async def call(*args: object, **more: object) -> object:
            self.snapshots += name == "snapshot"
            await trio.lowlevel.checkpoint()
            if self.away:
                raise StoreUnavailableError("the database is away for this test")
            return await found(*args, **more)

        return call


async def wait_until(hub: Hub, *, problem: bool) -> None:
    async def is_so() -> bool:
        await trio.lowlevel.checkpoint()
        return (hub.status().read_problem is not None) == problem

    await wait_for(is_so)


async def _has_gateways(hub: Hub) -> bool:
    return bool(await hub.gateways())


async def test_a_change_is_served_at_once_and_read_once(database_url: str) -> None:
    async with opened(database_url) as store:
        faulty = Faulty(store)
        async with open_hub(faulty) as hub:  # type: ignore[arg-type]  # by __getattr__
            with hub.subscribe() as changes, trio.fail_after(60):
                change = await store.add_provider(ADA, draft("openai", "sk-one"))
                await changes.receive()
            snapshot = await hub.reload()
            assert snapshot.revision == change.revision
            assert [row.name for row in snapshot.providers] == ["openai"]
            for _ in range(10):
                await hub.reload()
            assert faulty.snapshots == 2


async def test_a_change_by_another_process_is_served(database_url: str) -> None:
    async with opened(database_url) as one, opened(database_url) as other, open_hub(one) as hub:
        change = await other.add_provider(ADA, draft("openai", "sk-one"))
        await wait_revision(hub, change.revision)


async def test_gateway_keys_are_admitted_until_they_are_revoked(database_url: str) -> None:
    async with opened(database_url) as store, open_hub(store) as hub:
        change = await store.create_gateway_key(ADA, "front")
        key_id = change.access_key.id
        identity = await hub.admit(change.key)  # at once, notice or not
        assert identity is not None
        assert (identity.key_id, identity.name) == (key_id, "front")
        assert hub.is_live(key_id)
        assert await hub.admit(GATEWAY_KEYS.new()) is None
        client = (await store.add_client(ADA, "alice")).key
        assert client is not None
        assert await hub.admit(client) is None
        revoked = await store.revoke_key(ADA, "gateway", key_id)
        await wait_revision(hub, revoked.revision)
        assert not hub.is_live(key_id)
        assert await hub.admit(change.key) is None


async def test_clients_are_authorized_from_the_reading(tmp_path: Path) -> None:
    async with opened(str(tmp_path / "store.db")) as store:
        faulty = Faulty(store)
        async with open_hub(faulty) as hub:  # type: ignore[arg-type]  # by __getattr__
            change = await store.add_client(ADA, "alice")
            key = change.key
            assert key is not None
            await wait_revision(hub, change.revision)
            faulty.away = True
            caller = await hub.authorize(key)
            assert caller is not None
            assert caller.client_id == "alice"


async def test_without_the_store_the_last_reading_serves_until_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(str(tmp_path / "store.db")) as store:
        added = await store.add_provider(ADA, draft("openai", "sk-one"))
        key = (await store.create_gateway_key(ADA, "front")).key
        faulty = Faulty(store)
        async with open_hub(faulty, poll_interval=0.02) as hub:  # type: ignore[arg-type]
            caplog.set_level(logging.WARNING, "bridgepool.control")
            faulty.away = True
            await wait_until(hub, problem=True)
            assert hub.status().read_problem == "the database is away for this test"
            rows = (await hub.reload()).providers
            assert [row.name for row in rows] == ["openai"]
            assert await hub.admit(key) is not None
            with pytest.raises(StoreUnavailableError):
                await hub.admit(GATEWAY_KEYS.new())
            with pytest.raises(StoreUnavailableError):
                await hub.gateways()
            hub.session_opened(session("front"))
            changed = await store.remove_provider(ADA, "openai", allow_empty=True)
            assert hub.revisions.revision < changed.revision
            faulty.away = False
            await wait_revision(hub, changed.revision)
            await wait_until(hub, problem=False)
            assert (await hub.reload()).providers == ()
            said = [record.getMessage() for record in caplog.records]
            assert len([text for text in said if "store unavailable" in text]) == 1
            assert said[-1] == "store available again"
        assert added.changed
        assert [row.connected for row in await store.list_gateways()] == [True]


async def test_a_hub_that_is_behind_reads_what_a_gateway_has_seen_elsewhere(tmp_path: Path) -> None:
    async with opened(str(tmp_path / "store.db")) as store:
        faulty = Faulty(store)
        async with open_hub(faulty) as hub:  # type: ignore[arg-type]  # by __getattr__
            faulty.away = True
            await wait_until(hub, problem=True)
            await store.renew_epoch(ADA)
            present = await store.revisions()
            with pytest.raises(StoreUnavailableError):
                await hub.catch_up(present)
            faulty.away = False
            assert await hub.catch_up(present) == present


async def test_receipts_tell_who_serves_what(database_url: str) -> None:
    async with opened(database_url) as store, open_hub(store, gather=0.01) as hub:
        change = await store.add_provider(ADA, draft("openai", "sk-one"))
        for name in ("a", "b", "c"):
            hub.session_opened(session(name))
        hub.acknowledged("session-c-1", receipt(change.revision - 1))
        hub.session_closed("session-c-1", "left")
        pending = await hub.wait_applied(change.revision, 0)
        assert [one.state for one in pending.gateways] == ["pending", "pending", "stopped"]
        assert not pending.complete

        async def answer() -> None:
            hub.acknowledged("session-a-1", receipt(change.revision))
            await trio.sleep(0.01)
            hub.acknowledged("session-b-1", receipt(change.revision, openai="base_url: no"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            with trio.fail_after(60):
                report = await hub.wait_applied(change.revision)
        assert [one.state for one in report.gateways] == ["applied", "rejected", "stopped"]
        assert report.gateways[1].rejected[0].reason == "base_url: no"
        assert report.gateways[2].revision == change.revision - 1
        assert report.complete
        assert not report.applied


async def test_a_gateway_that_lost_its_control_plane_is_waited_for_by_the_next(
    database_url: str,
) -> None:
    """It was offline while it was in its back-off, and the change was said to be applied."""
    async with opened(database_url) as store:
        for stop in ("stopped", "killed"):
            async with open_hub(store, gather=0.01) as hub:
                hub.session_opened(session("front"))
                await wait_for(partial(_has_gateways, hub))
                if stop == "stopped":
                    hub.end_waits()
                    hub.session_closed("session-front-1", "lost")
            async with open_hub(store, gather=0.01) as hub:
                change = await store.create_gateway_key(ADA, "back")
                await wait_revision(hub, change.revision)
                report = await hub.wait_applied(change.revision, 0)
                assert [one.state for one in report.gateways] == [
                    "reconnecting" if stop == "stopped" else "pending"
                ]
                assert (report.complete, report.applied) == (False, False)
                hub.session_opened(session("front", 2))
                epoch = hub.revisions.epoch
                hub.acknowledged("session-front-2", Acknowledge(change.revision, epoch=epoch))
                assert (await hub.wait_applied(change.revision, 5)).applied
                hub.session_closed("session-front-2", "left")
                assert not (await hub.wait_applied(change.revision, 0.01)).applied


async def test_a_key_that_two_running_gateways_have_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing told the operator, though reports then have one name for two processes."""
    line = "gateway key in use by two processes"
    async with opened(str(tmp_path / "store.db")) as store, open_hub(store) as hub:
        hub.session_opened(session("a", 1))
        hub.session_opened(attrs.evolve(session("b"), identity=Identity("b", "key000000002")))
        hub.session_opened(session("a", 2))  # the same process, before its first session ended
        hub.session_closed("session-a-1", "lost")
        assert line not in caplog.messages
        for number in (1, 2, 3):
            other = attrs.evolve(session("a"), id=f"other-{number}", instance=f"other-{number}")
            hub.session_opened(other)
        [record] = [one for one in caplog.records if one.message == line]
        named = {name: record.__dict__[name] for name in ("gateway", "session", "other_session")}
        assert named == {"gateway": "a", "session": "other-1", "other_session": "session-a-2"}


async def test_a_revision_that_is_not_there_yet_is_not_found(tmp_path: Path) -> None:
    async with opened(str(tmp_path / "store.db")) as store, open_hub(store) as hub:
        with pytest.raises(NotFoundError):
            await hub.wait_applied(1)


async def test_waiting_ends_when_the_process_is_to_end(tmp_path: Path) -> None:
    async with opened(str(tmp_path / "store.db")) as store, open_hub(store) as hub:
        hub.session_opened(session("a"))
        hub.end_waits()
        with trio.fail_after(60):
            assert not (await hub.wait_applied(0)).complete


async def test_two_control_planes_see_each_others_gateways(database_url: str) -> None:
    async with (
        opened(database_url) as one,
        opened(database_url) as two,
        open_hub(one, gather=0.01) as here,
        open_hub(two, gather=0.01) as there,
    ):
        change = await one.add_provider(ADA, draft("openai", "sk-one"))
        there.session_opened(session("far"))
        await wait_for(partial(_has_gateways, here))
        assert not (await here.wait_applied(change.revision, 0)).complete
        there.acknowledged("session-far-1", receipt(change.revision))
        with trio.fail_after(60):
            report = await here.wait_applied(change.revision, poll=0.02)
        assert report.applied
        assert [one.gateway for one in report.gateways] == ["far"]


async def test_a_gateway_that_comes_back_elsewhere_is_one_gateway(database_url: str) -> None:
    async with (
        opened(database_url) as one,
        opened(database_url) as two,
        open_hub(one, gather=0.01) as here,
        open_hub(two, gather=0.01) as there,
    ):
        there.session_opened(session("far", 1))
        await wait_for(partial(_has_gateways, here))
        here.session_opened(session("far", 2))
        await trio.sleep(0.1)
        there.session_closed("session-far-1", "lost")

        async def is_second() -> bool:
            return [row.session for row in await there.gateways()] == ["session-far-2"]

        await wait_for(is_second)
        [row] = await here.gateways()
        assert row.connected


async def test_what_a_gateway_says_of_itself_cannot_break_the_store(database_url: str) -> None:
    async with opened(database_url) as store, open_hub(store, gather=0.01) as hub:
        odd = attrs.evolve(session("front"), instance="\0" * 300, software="a\nb\0")
        hub.session_opened(odd)
        hub.acknowledged(odd.id, receipt(1 << 80, **{"na\0me": "x" * 100_000}))

        async def is_kept() -> bool:
            return any(row.revision for row in await store.list_gateways())

        await wait_for(is_kept)
        rows = await store.list_gateways()
        assert rows[0].instance == "?" * 200
        assert rows[0].software == "a?b?"
        assert rows[0].rejected[0].name == "na?me"
        assert len(rows[0].rejected[0].reason) == 1000


async def test_leaving_notes_that_gateways_are_gone(database_url: str) -> None:
    async with opened(database_url) as store:
        async with open_hub(store) as hub:
            hub.session_opened(session("front"))
            hub.session_closed("session-front-1", "left")
        [row] = await store.list_gateways()
        assert not row.connected
