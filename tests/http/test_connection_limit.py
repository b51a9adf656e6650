"""Connections beyond the limits of a `ConnectionLimiter`."""

from __future__ import annotations

import ipaddress
import ssl
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
import trustme

from bridgepool._connection_limiter import ConnectionPlace
from bridgepool.http import ConnectionLimiter, Exchange, HttpLimits, serve_http
from bridgepool.transports._handshake import Handshake, Refused
from bridgepool.transports.websocket import serve_websockets
from tests.http.support import GET, RawClient, Waiting, echo, serving
from tests.waiting import wait_until


def limiter_of(connections: int) -> ConnectionLimiter:
    return ConnectionLimiter(max_connections=connections)


async def test_a_connection_over_the_limit_gets_503_and_the_others_are_served() -> None:
    handler = Waiting()
    async with serving(handler, limiter=limiter_of(2)) as server:
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
    async with serving(echo, limiter=limiter_of(2)) as server:
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
    async with serving(echo, limiter=limiter_of(0)) as server:
        silent, gone = server.connect(), server.connect()
        await gone.stream.aclose()
        with trio.fail_after(5):
            assert await silent.stream.receive_some() == b""
        assert server.counters.connections_refused == 2


async def test_a_flood_of_connections_over_the_limit_is_closed_without_a_response(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(echo, limiter=limiter_of(0)) as server:
        flood = [server.connect() for _ in range(150)]
        await trio.testing.wait_all_tasks_blocked()
        assert server.counters.connections_refused == 150
        with pytest.raises(trio.BrokenResourceError):
            await flood[-1].send(GET)
        assert (await flood[0].ask()).status == 503


async def test_health_is_answered_over_the_limit_and_the_connection_ends() -> None:
    async def health(exchange: Exchange) -> None:
        await exchange.answer(200, body=b"well")

    handler = Waiting()
    async with serving(handler, limiter=limiter_of(1), over_limit=health) as server:
        held = server.connect()
        await held.send(GET)
        await handler.started.wait()
        probe = server.connect()
        await probe.send(GET + GET)
        assert (await probe.answer()).body == b"well"
        assert await probe.read_to_end() == b""
        handler.release.set()
        assert (await held.answer()).body == b"/"


def test_one_address_gets_its_share_of_the_places_and_leaves_the_others_to_others() -> None:
    limiter = ConnectionLimiter(max_connections=10, max_per_peer=4, reserve=5, reserve_per_peer=2)
    greedy = [limiter.enter("192.0.2.1", 0.0) for _ in range(9)]
    assert (
        greedy
        == [ConnectionPlace(False, "192.0.2.1")] * 4
        + [ConnectionPlace(True, "192.0.2.1")] * 2
        + [None] * 3
    )
    assert limiter.enter("192.0.2.2", 0.0) == ConnectionPlace(False, "192.0.2.2")
    assert (limiter.open, limiter.reserved, limiter.refused) == (5, 2, 5)
    for place in greedy:
        if place is not None:
            limiter.leave(place)
    assert limiter.enter("192.0.2.1", 0.0) == ConnectionPlace(False, "192.0.2.1")
    assert (limiter.open, limiter.reserved) == (2, 0)


async def refuse(_: Handshake) -> Refused:
    await trio.lowlevel.checkpoint()
    return Refused(403, "no", "no")


async def no_handler(_: trio.abc.Channel[bytes], __: object) -> None:
    raise AssertionError("nobody is admitted")


@pytest.mark.parametrize(
    "serve",
    [partial(serve_http, echo), partial(serve_websockets, no_handler, admit=refuse)],
    ids=["http", "websockets"],
)
async def test_connections_whose_tls_handshake_fails_are_counted(serve: Any) -> None:
    """Nothing showed clients that do not trust a new certificate."""
    authority, limiter = trustme.CA(), ConnectionLimiter()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    trusting, stranger = ssl.create_default_context(), ssl.create_default_context()
    authority.configure_trust(trusting)
    async with trio.open_nursery() as nursery:
        [plain] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        host, port = plain.socket.getsockname()
        listener = trio.SSLListener(plain, context)
        await nursery.start(partial(serve, [listener], limiter=limiter))

        async def talk(client: ssl.SSLContext | None) -> None:
            stream: trio.abc.Stream = await trio.open_tcp_stream(host, port)
            if client is not None:
                stream = trio.SSLStream(stream, client, server_hostname="localhost")
            async with stream:
                with suppress(trio.BrokenResourceError):
                    await stream.send_all(b"GET / HTTP/1.0\r\n\r\n")
                    while await stream.receive_some():
                        pass

        for client, failed in ((trusting, 0), (None, 1), (stranger, 2), (trusting, 2)):
            await talk(client)
            while limiter.open:
                await trio.lowlevel.checkpoint()
            assert limiter.handshakes_failed == failed
        nursery.cancel_scope.cancel()


def test_a_full_server_keeps_a_reserve_for_health_checks() -> None:
    limiter = ConnectionLimiter(max_connections=2, reserve=3, reserve_per_peer=2)
    assert limiter.enter("192.0.2.1", 0.0) == limiter.enter("192.0.2.1", 0.0)
    assert [limiter.enter("192.0.2.1", 0.0) for _ in range(3)] == [
        ConnectionPlace(True, "192.0.2.1"),
        ConnectionPlace(True, "192.0.2.1"),
        None,
    ]
    assert limiter.enter("10.0.0.7", 0.0) == ConnectionPlace(True, "10.0.0.7")
    assert limiter.enter("10.0.0.8", 0.0) is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", None])
def test_loopback_has_no_limit_of_its_own(host: str | None) -> None:
    limiter = ConnectionLimiter(max_connections=5, max_per_peer=1)
    assert [limiter.enter(host, 0.0) for _ in range(5)] == [ConnectionPlace(False, None)] * 5
    assert limiter.enter(host, 0.0) == ConnectionPlace(True, None)


def test_a_trusted_proxy_has_no_limit_of_its_own() -> None:
    limiter = ConnectionLimiter(
        max_per_peer=1, unlimited_peers=(ipaddress.ip_network("10.1.0.0/16"),)
    )
    assert [limiter.enter("10.1.2.3", 0.0) for _ in range(3)] == [ConnectionPlace(False, None)] * 3
    assert limiter.enter("10.2.0.1", 0.0) == ConnectionPlace(False, "10.2.0.1")
    assert limiter.enter("::ffff:10.2.0.1", 0.0) == ConnectionPlace(True, "10.2.0.1")


def test_the_addresses_of_one_ipv6_network_count_as_one() -> None:
    limiter = ConnectionLimiter(max_per_peer=2)
    hosts = ["2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:2::3", "2001:db8:1:3::1"]
    found = [limiter.enter(host, 0.0) for host in hosts]
    assert [place.reserved for place in found if place] == [False, False, True, False]
    assert limiter.enter("fe80::1%eth0", 0.0) == ConnectionPlace(False, "fe80::/64")


def test_refused_connections_are_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    limiter = ConnectionLimiter(max_connections=1)
    for now in (0.0, 0.0, 30.0, 59.0, 61.0):
        limiter.enter("192.0.2.9", now)
    lines = [record for record in caplog.records if record.name == "bridgepool.network"]
    assert [line.getMessage() for line in lines] == ["connections over the limit refused"] * 2
    assert [(line.__dict__["refused"], line.__dict__["peer"]) for line in lines] == [
        (1, "192.0.2.9"),
        (3, "192.0.2.9"),
    ]


async def test_a_client_at_its_address_limit_does_not_lock_other_addresses_out() -> None:
    limiter = ConnectionLimiter(max_connections=20, max_per_peer=5, unlimited_peers=())
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]

    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:

        async def connect(source: str) -> RawClient:
            stream = await trio.open_tcp_stream("127.0.0.1", port, local_address=source)
            return RawClient(await stack.enter_async_context(stream))

        await nursery.start(partial(serve_http, echo, [listener], limiter=limiter))
        greedy = [await connect("127.0.0.1") for _ in range(5)]
        for client in greedy:
            assert (await client.ask()).status == 200
        assert (await (await connect("127.0.0.1")).ask()).status == 503
        assert (await (await connect("127.0.0.2")).ask()).status == 200
        held = limiter.open
        await greedy[0].stream.aclose()
        await wait_until(lambda: limiter.open != held)
        assert (await (await connect("127.0.0.1")).ask()).status == 200
        nursery.cancel_scope.cancel()


async def test_an_unauthenticated_connection_lives_shortly_whatever_it_asks(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A client without a key could hold its connection for as long as it liked."""
    limits = HttpLimits(unauthenticated_timeout=20.0)

    async def handler(exchange: Exchange) -> None:
        if exchange.request.target == b"/key":
            exchange.authenticated()
        await exchange.answer(200)

    async with serving(handler, limits=limits) as server:
        stranger, known = server.connect(), server.connect()
        assert (await known.ask(b"GET /key HTTP/1.1\r\nHost: h\r\n\r\n")).status == 200
        for _ in range(3):
            assert (await stranger.ask()).status == 200
            await trio.sleep(6)
        with trio.fail_after(5):
            assert await stranger.read_to_end() == b""
        await trio.sleep(10)
        assert (await known.ask()).status == 200


async def test_connections_that_time_out_together_are_closed_a_few_at_a_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Two thousand connections that timed out in one turn stalled all others for a second."""
    async with serving(echo, limits=HttpLimits(idle_timeout=10.0, header_timeout=10.0)) as server:
        clients = [server.connect() for _ in range(200)]
        ends: list[float] = []

        async def wait_end(stream: trio.abc.ReceiveStream) -> None:
            assert await stream.receive_some() == b""
            ends.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(wait_end, client.stream)
        together = max(ends.count(end) for end in ends)
        assert together <= 16
        assert ends[-1] - ends[0] < 1.0


@pytest.mark.parametrize("name", ["max_connections", "max_per_peer", "reserve", "reserve_per_peer"])
def test_a_limit_that_makes_no_sense_is_refused(name: str) -> None:
    options: dict[str, Any] = {name: -1}
    with pytest.raises(ValueError, match=f"{name} must be"):
        ConnectionLimiter(**options)
