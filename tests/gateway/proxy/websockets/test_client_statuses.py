"""The statuses in error events, for clients that misread some."""

from __future__ import annotations

import json

import pytest
import trio

from tests.gateway.proxy.websockets.rig import SERVED, connected, create, events, opened


@pytest.mark.parametrize(
    ("agent", "rules", "refused"),
    [
        (b"codex_exec/0.171.0", {"tokens_per_day": 1}, (400, "budget_exceeded")),
        (b"codex_exec/0.171.0", {"requests_per_minute": 1}, (429, "rate_limited")),
        (b"other/1", {"tokens_per_day": 1}, (429, "budget_exceeded")),
    ],
)
async def test_a_client_that_ignores_x_should_retry_is_stopped_on_a_websocket_as_on_http(
    nursery: trio.Nursery, agent: bytes, rules: dict[str, int], refused: tuple[int, str]
) -> None:
    """Codex showed "exceeded retry limit, last status: 429" in place of the message."""
    async with opened(nursery) as both:
        both.rules(**rules)
        async with connected(both, headers=((b"user-agent", agent),)) as socket:
            await socket.send_text(create())
            assert await events(socket, 2) == SERVED
            await socket.send_text(create())
            error = json.loads(await socket.receive())
            assert (error["status"], error["code"]) == refused
