"""Websockets whose time is nearly over: no response on them is cut, and not all end at once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from math import inf
from types import SimpleNamespace

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked
from wsproto.events import CloseConnection, Request, TextMessage

from bridgepool.gateway import GatewaySettings, Outcome, WebSocketLimits
from bridgepool.gateway.proxy.websockets import _lifetime as lifetimes
from tests.gateway.proxy.rig import Rig, open_rig, openai
from tests.gateway.proxy.websockets.peers import Socket, connect_socket, start_upstream
from tests.gateway.proxy.websockets.rig import SERVED, Upstream, create, events

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


async def replace(rig: Rig, clock: MockClock) -> None:
    """Let the end of the drain timeout come near."""
    [provider] = rig.gateway.pool.snapshot.providers
    await rig.replace(attrs.evolve(provider, keys=["sk-new"]))
    for seconds in (10, 890):
        await wait_all_tasks_blocked()
        clock.jump(seconds)
    await wait_all_tasks_blocked()


async def shut_down(rig: Rig, _clock: MockClock) -> None:
    rig.gateway.close_websockets()
    await wait_all_tasks_blocked()


LONG = attrs.evolve(OPEN, drain_timeout=1000, websockets=WebSocketLimits(ping_interval=10_000.0))


@pytest.mark.parametrize(
    ("begin", "reason"), [(replace, "drain_deadline"), (shut_down, "shutting_down")]
)
@pytest.mark.parametrize("asks_again", [False, True])
async def test_messages_after_the_last_one_of_a_realtime_response_come_before_the_close(
    nursery: trio.Nursery,
    mock_clock: MockClock,
    begin: Callable[[Rig, MockClock], Awaitable[None]],
    reason: str,
    asks_again: bool,
) -> None:
    """The socket was closed with the end of the response, and they were lost."""
    go_on, trail, got = trio.Event(), trio.Event(), list[str | bytes]()

    async def realtime(socket: Socket, _request: Request) -> None:
        got.append(await socket.receive())
        await socket.send_text('{"type": "response.created", "response": {"id": "r"}}')
        await go_on.wait()
        await socket.send_text('{"type": "response.done", "response": {"status": "completed"}}')
        await trail.wait()
        await socket.send_text('{"type": "rate_limits.updated", "rate_limits": []}')
        with suppress(AssertionError):  # it is closed
            while True:
                got.append(await socket.receive())
                await socket.send_text("an answer")

    north = await start_upstream(nursery, realtime)
    mock_clock.rate = 1
    async with (
        open_rig(openai(north.url), nursery=nursery, settings=LONG) as rig,
        connect_socket(rig.address, "/ai/v1/realtime?model=m") as (socket, _),
    ):
        await socket.send_text(create())
        assert "created" in str(await socket.receive())
        await begin(rig, mock_clock)
        mock_clock.rate = 0
        go_on.set()
        assert "done" in str(await socket.receive())
        trail.set()
        assert "rate_limits" in str(await socket.receive())
        if asks_again:  # what it asks does not reach the provider, which would charge it
            await socket.send_text(create())
        else:
            for seconds in (0.5, 6):
                await wait_all_tasks_blocked()
                mock_clock.jump(seconds)
        assert await socket.receive_close() == (1012, reason)
        await rig.wait_records(1)
    assert got == [create()]


async def test_messages_without_end_after_a_realtime_response_do_not_keep_a_socket(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    async def realtime(socket: Socket, _request: Request) -> None:
        await socket.receive()
        await socket.send_text('{"type": "response.created", "response": {"id": "r"}}')
        await socket.receive()
        await socket.send_text('{"type": "response.done", "response": {"status": "completed"}}')
        with suppress(AssertionError):  # it is closed
            while True:
                await socket.receive()
                await socket.send_text('{"type": "rate_limits.updated", "rate_limits": []}')

    north = await start_upstream(nursery, realtime)
    async with (
        open_rig(openai(north.url), nursery=nursery, settings=LONG) as rig,
        connect_socket(rig.address, "/ai/v1/realtime?model=m") as (socket, _),
    ):
        await socket.send_text(create())
        assert await events(socket, 1) == ["response.created"]
        await shut_down(rig, mock_clock)
        await socket.send_text('{"type": "session.update"}')
        assert await events(socket, 1) == ["response.done"]
        ended = trio.current_time()
        while True:
            await socket.send_text('{"type": "session.update"}')
            event = await socket.next_event()
            if isinstance(event, CloseConnection):
                break
            await wait_all_tasks_blocked()
            mock_clock.jump(0.6)
            await wait_all_tasks_blocked()
            assert trio.current_time() < ended + 6
    assert trio.current_time() >= ended + 5


async def test_a_response_that_is_begun_unasked_at_the_end_of_another_is_not_cut(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    begun = '{"type": "response.created", "response": {"id": "r"}}'
    done = '{"type": "response.done", "response": {"status": "completed"}}'

    async def realtime(socket: Socket, _request: Request) -> None:
        await socket.receive()
        await socket.send_text(begun)
        await socket.receive()
        for text in (done, begun):  # somebody speaks
            await socket.send_text(text)
        await socket.receive()
        for text in (done, begun, done):
            await socket.send_text(text)
        await socket.next_event()

    north = await start_upstream(nursery, realtime)
    async with (
        open_rig(openai(north.url), nursery=nursery, settings=LONG) as rig,
        connect_socket(rig.address, "/ai/v1/realtime?model=m") as (socket, _),
    ):
        await socket.send_text(create())
        assert await events(socket, 1) == ["response.created"]
        await shut_down(rig, mock_clock)
        await socket.send_text('{"type": "session.update"}')
        assert await events(socket, 2) == ["response.done", "response.created"]
        await socket.send_text(create())
        last = ["response.done", "response.created", "response.done"]
        assert await events(socket, 3) == last
        await wait_all_tasks_blocked()
        mock_clock.jump(1.1)
        assert await socket.receive_close() == (1012, "shutting_down")


async def test_a_socket_whose_time_is_over_is_closed_at_the_end_of_the_message_under_way(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    """The next look at the time would come after the beginning of the next message."""
    go_on = trio.Event()

    async def speak(socket: Socket, _request: Request) -> None:
        await socket.send(TextMessage("one ", message_finished=False))
        await go_on.wait()
        for text, finished in (("mess", False), ("age", True)):
            await socket.send(TextMessage(text, message_finished=finished))
            await wait_all_tasks_blocked()
        with suppress(trio.BrokenResourceError):
            await socket.send_text("another")
        await socket.next_event()

    north = await start_upstream(nursery, speak)
    limits = WebSocketLimits(max_age=100, ping_interval=10_000.0)
    settings = attrs.evolve(OPEN, websockets=limits)
    async with (
        open_rig(openai(north.url), nursery=nursery, settings=settings) as rig,
        connect_socket(rig.address) as (socket, _),
    ):
        assert isinstance(await socket.next_event(), TextMessage)
        await wait_all_tasks_blocked()
        mock_clock.jump(100)
        await wait_all_tasks_blocked()
        go_on.set()
        assert await socket.receive() == "message"
        assert await socket.receive_close() == (1001, "max_age")


async def test_idle_sockets_of_a_shutdown_are_closed_at_turns_and_served_until_then(
    nursery: trio.Nursery, mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them were closed in the same second, and all clients came back in the next one."""
    monkeypatch.setattr(lifetimes, "_RATE", 0.5)  # 8 s for four
    places = SimpleNamespace(random=iter([0.0, 0.5, 0.5, 0.9]).__next__)
    monkeypatch.setattr(lifetimes, "_random", places)
    upstream = Upstream()
    north = await start_upstream(nursery, upstream.serve)
    async with (
        open_rig(openai(north.url), nursery=nursery, settings=LONG) as rig,
        AsyncExitStack() as stack,
    ):
        first, *others, last = [
            (await stack.enter_async_context(connect_socket(rig.address)))[0] for _ in range(4)
        ]
        await wait_all_tasks_blocked()
        mock_clock.jump(1.1)  # they are idle
        rig.gateway.close_websockets()
        assert await first.receive_close() == (1012, "shutting_down")
        for socket in others:
            await socket.send_text(create())
            assert await events(socket, 2) == SERVED
            assert await socket.receive_close() == (1012, "shutting_down")
            await wait_all_tasks_blocked()
            mock_clock.jump(3)
        await wait_all_tasks_blocked()
        mock_clock.jump(1.3)
        assert await last.receive_close() == (1012, "shutting_down")
        await rig.wait_records(4)


def test_turns_to_be_closed_are_spread_and_hold_no_exit_up() -> None:
    async def main() -> None:
        for count, drain_timeout, longest in ((1, 600, 0.01), (1000, 600, 10), (1000, 4, 2)):
            shutdown = lifetimes.Shutdown()
            made = [
                lifetimes.Lifetime(3600, drain_timeout, lambda: 1, shutdown) for _ in range(count)
            ]
            now = trio.current_time()
            assert {one.why_close(now, 1) for one in made} == {""}
            shutdown.begin(count, drain_timeout)
            shutdown.begin(2 * count, drain_timeout)  # as when its gateway closes
            assert {one.why_close(now, 1) for one in made} == {"shutting_down"}
            turns = [one.turn - now for one in made]
            assert 0 <= min(turns) <= max(turns) <= longest
            tenths = Counter(int(10 * turn / longest) for turn in turns)
            assert max(tenths.values()) <= 200
        for reason, generation in (("max_age", 1), ("drain_deadline", 2)):
            age = 1000.0 if reason == "max_age" else inf
            made = [
                lifetimes.Lifetime(age, 1000, iter([generation] * 2).__next__, lifetimes.Shutdown())
                for _ in range(1000)
            ]
            now = trio.current_time()
            assert {one.why_close(now, 1) for one in made} == {""}
            assert {one.why_close(now + 801, 1) for one in made} == {reason}
            turns = [one.turn - now for one in made]
            assert 800 <= min(turns) < 810 < 890 < max(turns) <= 900

    trio.run(main, clock=MockClock())


@pytest.mark.parametrize("replaced", [0.01, 1.23, 77.7])
def test_the_last_fifth_of_a_drain_timeout_is_not_shortened_by_late_looks(replaced: float) -> None:
    """Half of it was gone when it was noticed, and on a busy machine responses were cut."""

    async def main() -> None:
        begun = trio.current_time()
        lifetime = lifetimes.Lifetime(
            3600, 10, lambda: 1 + (trio.current_time() - begun >= replaced), lifetimes.Shutdown()
        )
        while not lifetime.why_close(now := trio.current_time(), 1):  # noqa: ASYNC110 -- as a relay
            await trio.sleep(lifetime.pause(now))
        assert 7.4 < trio.current_time() - begun - replaced < 8.02

    trio.run(main, clock=MockClock(autojump_threshold=0))
