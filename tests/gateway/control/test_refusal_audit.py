"""Refused keys are audited, and whoever tries many fills nothing with them."""

from __future__ import annotations

import math
from collections import Counter

import trio
import trio.testing

from bridgepool import Secret
from bridgepool.gateway.control import open_gateway_service
from bridgepool.gateway.control._hub import open_hub
from bridgepool.gateway.control._refusal_audit import RefusalAudit
from bridgepool.remote import Handshake, Refused
from tests.gateway.control.planes import open_plane
from tests.gateway.control.stores import opened


async def test_a_refused_key_of_an_admin_and_of_a_gateway_is_audited(database_url: str) -> None:
    async with open_plane(database_url) as plane:
        for _ in range(5):
            refused = await plane.refused("GET", "/api/v1/revision", key="bpa_unknown")
            assert refused == (401, "unauthorized")
        unknown = Handshake("/", {"version": "1.0"}, Secret("bpg_unknown"), "192.0.2.1:5000")
        async with open_gateway_service(plane.hub) as service:
            assert isinstance(await service.admit(unknown), Refused)
        entries = [one for one in await plane.store.audit() if one.action.endswith(".refuse")]
        assert [(one.action, one.kind, one.actor.kind, one.name) for one in entries] == [
            ("gateway_key.refuse", "gateway_key", "stranger", "192.0.2.1"),
            ("admin_key.refuse", "admin_key", "stranger", "127.0.0.1"),
        ]
        assert "unknown" not in str(entries)


async def test_each_address_has_one_entry_a_minute_and_all_have_ten(
    database_url: str, autojump_clock: trio.testing.MockClock
) -> None:
    autojump_clock.autojump_threshold = math.inf  # the database works in threads
    async with opened(database_url) as store, open_hub(store):
        audit = RefusalAudit(store, "gateway")
        for _ in range(2):
            for number in range(100):
                await audit.note(f"192.0.2.{number % 30}:{number}")
            autojump_clock.jump(60)
        written = Counter(one.name for one in await store.audit(limit=1000))
        assert written == {f"192.0.2.{number}": 2 for number in range(10)}
