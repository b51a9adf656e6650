"""Websockets whose time is nearly over: no response on them is cut."""

from __future__ import annotations

import json

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked
from wsproto.events import Request

from bridgepool.gateway import GatewaySettings, Outcome, WebSocketLimits
from tests.gateway.proxy.rig import open_rig, openai
from tests.gateway.proxy.websockets import Socket, connect_socket, start_upstream

OPEN = GatewaySettings(allow_anonymous=True, min_reload_interval=0.001)


@pytest.mark.parametrize("reason", ["drain_deadline", "max_age"])
@pytest.mark.parametrize("reads_usage", [True, False])
async def test_a_socket_whose_time_is_nearly_over_is_closed_between_two_responses(
    nursery: trio.Nursery, mock_clock: MockClock, reason: str, reads_usage: bool
) -> None:
    """Else its time ends within a response, most likely, and the client has to pay for it twice."""
    go_on = trio.Event()

    async def slow(socket: Socket, _request: Request) -> None:
        await socket.receive()
        await socket.send_text('{"type": "response.created", "response": {"id": "r"}}')
        await go_on.wait()
        await socket.send_text('{"type": "response.output_text.delta", "delta": "word"}')
        response = {"status": "completed", "usage": {"input_tokens": 3, "output_tokens": 4}}
        await socket.send_text(json.dumps({"type": "response.completed", "response": response}))
        await socket.next_event()

    north = await start_upstream(nursery, slow)
    age = 1000.0 if reason == "max_age" else 10_000.0
    limits = WebSocketLimits(max_age=age, ping_interval=10_000.0)
    settings = attrs.evolve(OPEN, drain_timeout=1000, websockets=limits, reads_usage=reads_usage)
    mock_clock.rate = 1
    async with (
        open_rig(openai(north.url), nursery=nursery, settings=settings) as rig,
        connect_socket(rig.address) as (socket, _),
    ):
        await socket.send_text("x")
        assert "created" in str(await socket.receive())
        if reason == "drain_deadline":
            await rig.replace(openai(north.url, keys=["sk-new"]))
        for seconds in (10, 890):  # it looks at the time every few seconds
            await wait_all_tasks_blocked()
            mock_clock.jump(seconds)
        await wait_all_tasks_blocked()
        go_on.set()
        assert "delta" in str(await socket.receive())
        assert "completed" in str(await socket.receive())
        code = 1012 if reason == "drain_deadline" else 1001
        assert await socket.receive_close() == (code, reason)
        [record] = await rig.wait_records(1)
    assert trio.current_time() < 1000
    assert (record.outcome, record.code) == (Outcome.COMPLETE, "")
