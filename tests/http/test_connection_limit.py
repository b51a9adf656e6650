"""Connections beyond `max_connections`."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from bridgepool.http import HttpLimits
from tests.http.support import GET, Waiting, echo, serving

LIMITS = HttpLimits(max_connections=2)


async def test_a_connection_over_the_limit_gets_503_and_the_others_are_served() -> None:
    handler = Waiting()
    async with serving(handler, limits=LIMITS) as server:
        first, second, third = (server.connect() for _ in range(3))
        for client in (first, second):
            await client.send(GET)
        await trio.testing.wait_all_tasks_blocked()
        answer = await third.ask()
        assert answer.status == 503
        assert answer.headers[b"retry-after"] == b"1"
        assert answer.headers[b"connection"] == b"close"
        assert await third.stream.receive_some() == b""
        handler.release.set()
        for client in (first, second):
            assert (await client.answer()).status == 200
        assert (server.counters.connections, server.counters.connections_refused) == (3, 1)


async def test_a_connection_that_ends_makes_room() -> None:
    async with serving(echo, limits=LIMITS) as server:
        clients = [server.connect(), server.connect()]
        for client in clients:
            assert (await client.ask()).status == 200
        await clients[0].stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert (await server.connect().ask()).status == 200
        assert server.counters.connections_refused == 0


async def test_a_silent_connection_over_the_limit_is_closed_too(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(echo, limits=HttpLimits(max_connections=0)) as server:
        silent, gone = server.connect(), server.connect()
        await gone.stream.aclose()
        with trio.fail_after(5):
            assert await silent.stream.receive_some() == b""
        assert server.counters.connections_refused == 2


async def test_a_flood_of_connections_over_the_limit_is_closed_without_a_response(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(echo, limits=HttpLimits(max_connections=0)) as server:
        flood = [server.connect() for _ in range(150)]
        await trio.testing.wait_all_tasks_blocked()
        assert server.counters.connections_refused == 150
        with pytest.raises(trio.BrokenResourceError):
            await flood[-1].send(GET)
        assert (await flood[0].ask()).status == 503
