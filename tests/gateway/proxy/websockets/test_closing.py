"""Every websocket that the gateway ends has a close frame, also at unlucky moments."""

from __future__ import annotations

from contextlib import AsyncExitStack, suppress

import attrs
import pytest
import trio
import trio.testing
from wsproto.events import CloseConnection, Event, Ping, Request, TextMessage

from bridgepool.gateway import Outcome
from bridgepool.http import UpstreamLimits
from tests.gateway.proxy.at_once import AtOnce, host
from tests.gateway.proxy.rig import open_rig, openai
from tests.gateway.proxy.websockets.peers import Socket, connect_socket, start_upstream
from tests.gateway.proxy.websockets.test_websockets import OPEN

_RELAY = "bridgepool.gateway.proxy.websockets._relay"


async def next_close(socket: Socket) -> tuple[int, str | None]:
    """Return code and reason of the close that comes next, while something is being sent."""
    event = await socket.next_event()
    assert isinstance(event, CloseConnection), event
    return event.code, event.reason


async def flood(socket: Socket) -> None:
    """Send messages one by one until none is taken any more: the gateway stands between two."""
    frame = b"\x82\xfe" + (16_000).to_bytes(2) + bytes(4 + 16_000)  # its mask is zero
    with suppress(trio.BrokenResourceError):
        while True:
            await socket.stream.send_all(frame)
            await trio.testing.wait_all_tasks_blocked()


async def deaf(socket: Socket, _request: Request) -> None:
    """Read nothing."""
    await trio.sleep_forever()


async def test_a_client_whose_upstream_takes_no_data_any_more_gets_a_close(
    nursery: trio.Nursery,
) -> None:
    """Closing the upstream raised that it had timed out, and the client got none."""
    north = await start_upstream(nursery, deaf)
    settings = attrs.evolve(OPEN, upstream_limits=UpstreamLimits(write_timeout=0.2))
    async with (
        open_rig(openai(north.url), nursery=nursery, settings=settings) as rig,
        connect_socket(rig.address) as (socket, _),
        trio.open_nursery() as sending,
    ):
        sending.start_soon(flood, socket)
        assert await next_close(socket) == (1011, "upstream_cut")
        [record] = await rig.wait_records(1)
        sending.cancel_scope.cancel()
    assert (record.outcome, record.code) == (Outcome.UPSTREAM_CUT, "upstream_cut")


async def test_a_client_gets_its_close_while_its_upstream_takes_no_data(
    nursery: trio.Nursery,
) -> None:
    """The upstream was closed first, for which there is a second; then it was too late."""
    north = await start_upstream(nursery, deaf)
    async with AsyncExitStack() as stack, trio.open_nursery() as sending:
        async with open_rig(openai(north.url), nursery=nursery, settings=OPEN) as rig:
            socket, _ = await stack.enter_async_context(connect_socket(rig.address))
            sending.start_soon(flood, socket)
            await trio.testing.wait_all_tasks_blocked(0.05)
        assert await next_close(socket) == (1001, "shutting_down")
        sending.cancel_scope.cancel()


@pytest.mark.parametrize("before", [(), (Ping(),)], ids=["message", "ping_and_message"])
async def test_a_message_that_came_as_the_gateway_ended_is_passed_on_and_a_close_follows(
    before: tuple[Event, ...], nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was lost, also out of the middle of a message, and there was no close.

    It was still lost where a ping had come with it.
    """
    monkeypatch.setattr(f"{_RELAY}._MESSAGE_TIMEOUT", 60)
    go_on = trio.Event()

    async def speak(socket: Socket, _request: Request) -> None:
        await socket.send(TextMessage("0", message_finished=False))
        await go_on.wait()
        await socket.send(*before, TextMessage("1", message_finished=False))
        await trio.testing.wait_all_tasks_blocked(0.05)
        await socket.send(TextMessage("2", message_finished=True))
        event = await socket.next_event()
        assert isinstance(event, CloseConnection)

    north = await start_upstream(nursery, speak)
    serving: trio.Nursery = await nursery.start(host)
    async with (
        open_rig(openai(north.url), nursery=serving, settings=OPEN) as rig,
        connect_socket(rig.address) as (socket, _),
    ):
        assert isinstance(await socket.next_event(), TextMessage)
        await trio.testing.wait_all_tasks_blocked(0.05)
        at_once = AtOnce("_Relay._pass_on", serving.cancel_scope)
        trio.lowlevel.add_instrument(at_once)
        go_on.set()
        assert await socket.receive() == "12"
        assert await socket.receive_close() == (1001, "shutting_down")
        trio.lowlevel.remove_instrument(at_once)
    assert at_once.has_cancelled
