"""The clock of a control plane is set back an hour: order, receipts and the audit stay right."""

from __future__ import annotations

from bridgepool.gateway.control._hub import open_hub
from tests.gateway.control.planes import receipt, session, wait_for, wait_revision
from tests.gateway.control.stores import ADA, Clock, draft, opened


async def test_a_clock_that_is_set_back_changes_no_order(database_url: str) -> None:
    clock = Clock()
    async with (
        opened(database_url, clock=clock) as store,
        open_hub(store, gather=0.01, clock=clock) as hub,
    ):
        first = await store.add_provider(ADA, draft("first"))
        hub.session_opened(session("front", 1))
        hub.acknowledged("session-front-1", receipt(first.revision))
        clock.now -= 3600
        second = await store.add_provider(ADA, draft("second"))
        assert second.revision > first.revision
        await wait_revision(hub, second.revision)
        # The same session tells of it, and then another one of the same gateway.
        hub.acknowledged("session-front-1", receipt(second.revision))
        assert (await hub.wait_applied(second.revision, 5)).applied
        hub.session_closed("session-front-1", "lost")
        hub.session_opened(session("front", 2))
        third = await store.remove_provider(ADA, "first", allow_empty=True)
        await wait_revision(hub, third.revision)
        assert not (await hub.wait_applied(third.revision, 0.1)).complete
        hub.acknowledged("session-front-2", receipt(third.revision, second="base_url: bad"))
        [row] = (await hub.wait_applied(third.revision, 5)).gateways
        assert (row.state, row.revision) == ("rejected", third.revision)

        async def is_kept() -> bool:
            [kept] = await store.list_gateways()
            return (kept.session, kept.revision) == ("session-front-2", third.revision)

        await wait_for(is_kept)  # for the other control planes
        entries = await store.audit()
        assert [(entry.name, entry.revision) for entry in entries] == [
            ("first", third.revision),
            ("second", second.revision),
            ("first", first.revision),
        ]
        assert entries[1].at < entries[2].at  # as the clock had it
        assert await store.audit(before=entries[0].id) == entries[1:]
        assert [row.name for row in await store.list_providers()] == ["second"]


async def test_a_session_with_an_earlier_beginning_takes_the_place_of_a_dead_control_planes(
    database_url: str,
) -> None:
    clock = Clock()
    async with opened(database_url, clock=clock) as store:
        async with open_hub(store, gather=0.01, clock=clock) as dead:
            dead.session_opened(session("front", 1))

            async def is_there() -> bool:
                return bool(await store.list_gateways())

            await wait_for(is_there)
        clock.now -= 3600
        async with open_hub(store, gather=0.01, clock=clock) as hub:
            change = await store.add_provider(ADA, draft("ai"))
            await wait_revision(hub, change.revision)
            hub.session_opened(session("front", 2))
            hub.acknowledged("session-front-2", receipt(change.revision))
            # What is connected here is truer than the row that says "connected since later".
            [row] = (await hub.wait_applied(change.revision, 5)).gateways
            assert (row.state, row.revision) == ("applied", change.revision)
            [known] = await hub.gateways()
            assert known.session == "session-front-2"
