"""A gateway whose usage cannot be recorded, as health checks and operators see it."""

from __future__ import annotations

import pytest
import trio

from bridgepool.gateway.usage._spool import open_usage_spool
from tests.gateway.proxy.rig import open_rig, openai, start_upstream


@pytest.mark.parametrize("refuses", [True, False])
async def test_a_gateway_that_cannot_record_usage_says_so_where_health_is_asked(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture, refuses: bool
) -> None:
    """Not ready while it refuses every request for it; else ready, with what it has dropped."""
    upstream = await start_upstream(nursery)
    async with (
        open_usage_spool(max_bytes=1, refuses=refuses) as spool,
        open_rig(
            openai(upstream),
            nursery=nursery,
            on_usage=spool.add,
            usage_full=lambda: spool.full,
            usage_report=spool.report,
        ) as rig,
    ):
        assert (await rig.ask("/readyz")).json["usage"]["pending"] == 0
        for count in (1, 2):
            await rig.ask("/ai/v1/chat/completions", {})
            await rig.wait_records(count)
        ready = await rig.ask("/readyz")
        assert rig.gateway.status()["ready"] == ready.json
        if refuses:
            assert (ready.status, ready.json["reason"]) == (503, "usage cannot be recorded")
            # the refused one has no record, or those that ask again would fill the memory
            assert ready.json["usage"] == {"pending": 1, "dropped": 0, "failing": False}
            assert caplog.text.count("usage spool full; refusing requests") == 1
        else:
            assert (ready.status, ready.json["ready"]) == (200, True)
            assert ready.json["usage"] == {"pending": 1, "dropped": 1, "failing": False}

        async def store(_records: object) -> None:
            pass

        async with trio.open_nursery() as sending:
            sending.start_soon(spool.send, store)
            await spool.wait_empty()
            sending.cancel_scope.cancel()
        assert (await rig.ask("/readyz")).status == 200
