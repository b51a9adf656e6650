"""Connections through TCP proxies that name their client with the PROXY protocol."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from bridgepool.gateway.serving._proxy_protocol import HEAD_TIMEOUT, ProxyHead, read_proxy_heads
from bridgepool.http import ConnectionLimiter, Exchange, RemoteProtocolError, serve_http
from tests.e2e.files import client_row_and_key, provider, write
from tests.e2e.process import run_gateway
from tests.waiting import wait_until

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def binary(
    source: str = "192.0.2.7", *, command: int = 0x21, more: bytes = b"", family: int | None = None
) -> bytes:
    """Return a head of version 2, from port 5000."""
    address = ipaddress.ip_address(source).packed
    family = family if family is not None else 0x11 if len(address) == 4 else 0x21
    rest = address * 2 + (5000).to_bytes(2, "big") + (443).to_bytes(2, "big") + more
    return SIGNATURE + bytes((command, family)) + len(rest).to_bytes(2, "big") + rest


LOCAL = SIGNATURE + b"\x20\x00\x00\x00"
HEADS = {
    b"PROXY TCP4 192.0.2.7 10.0.0.1 5000 443\r\n": ("192.0.2.7", 5000),
    b"PROXY TCP6 2001:db8::7 2001:db8::1 5000 443\r\n": ("2001:db8::7", 5000),
    b"PROXY UNKNOWN\r\n": None,
    b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n": None,
    binary(): ("192.0.2.7", 5000),
    binary("2001:db8::7"): ("2001:db8::7", 5000),
    binary(more=b"\xea\x00\x10\x01vpce-0123456789"): ("192.0.2.7", 5000),  # of a load balancer
    binary(more=b"\x04\x0b\xb8" + b"x" * 3000): ("192.0.2.7", 5000),
    LOCAL: None,
    SIGNATURE + b"\x21\x00\x00\x00": None,
}
GARBAGE = (
    b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"\x16\x03\x01\x02\x00",
    b"\r\n\r\nGET / HTTP/1.1\r\n",
    b"proxy TCP4 192.0.2.7 10.0.0.1 5000 443\r\n",
    b"PROXY \r\n",
    b"PROXY \n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 5000 443\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 5000\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 5000 443 1\r\n",
    b"PROXY TCP4  192.0.2.7 10.0.0.1 5000 443\r\n",
    b"PROXY TCP6 192.0.2.7 10.0.0.1 5000 443\r\n",
    b"PROXY TCP4 2001:db8::7 2001:db8::1 5000 443\r\n",
    b"PROXY UDP4 192.0.2.7 10.0.0.1 5000 443\r\n",
    b"PROXY TCP4 host 10.0.0.1 5000 443\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 65536 443\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 -1 443\r\n",
    b"PROXY TCP4 192.0.2.\xb2 10.0.0.1 1 443\r\n",
    b"PROXY UNKNOWN " + b"x" * 100,
    binary(command=0x22),
    binary(command=0x11),
    binary(family=0x12),
    binary(family=0x31),
    SIGNATURE + b"\x21\x11\x00\x04\x7f\x00\x00\x01",
    binary(more=b"x" * 4096),
)


@pytest.mark.parametrize("raw", HEADS, ids=lambda raw: repr(raw[:40]))
def test_a_head_is_understood_however_it_is_split_and_no_byte_behind_it_is_taken(
    raw: bytes,
) -> None:
    following = b"\x16\x03\x01PROXY \r\n"
    for place in range(1, min(len(raw), 200) + 1):
        head = ProxyHead()
        first = head.take(raw[:place])
        assert first == place
        assert head.complete == (place == len(raw))
        if not head.complete:
            assert head.take(raw[place:] + following) == len(raw) - place
        assert (head.complete, head.address) == (True, HEADS[raw])
    head = ProxyHead()
    assert [head.take(raw[place : place + 1]) for place in range(len(raw))] == [1] * len(raw)
    assert (head.complete, head.address) == (True, HEADS[raw])


def take_bytes(raw: bytes) -> None:
    head = ProxyHead()
    for place in range(len(raw)):
        assert head.take(raw[place : place + 1]) == 1


@pytest.mark.parametrize("raw", GARBAGE, ids=lambda raw: repr(raw[:40]))
def test_anything_else_is_refused(raw: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        ProxyHead().take(raw)
    with pytest.raises(RemoteProtocolError):
        take_bytes(raw)


EDITED = st.builds(
    lambda raw, place, new: raw[: place % len(raw)] + new + raw[place % len(raw) + len(new) :],
    st.sampled_from(sorted(HEADS)),
    st.integers(0, 200),
    st.binary(max_size=4),
)


@given(st.one_of(st.binary(max_size=300), EDITED), st.integers(1, 50))
def test_hostile_heads_give_an_address_or_a_clean_error(raw: bytes, size: int) -> None:
    head = ProxyHead()
    rest = raw
    try:
        while rest and not head.complete:
            taken = head.take(rest[:size])
            assert 1 <= taken <= size
            rest = rest[taken:]
    except RemoteProtocolError:
        return
    if head.address is not None:
        ipaddress.ip_address(head.address[0])


@asynccontextmanager
async def serving(
    proxies: list[str],
    *,
    tls: ssl.SSLContext | None = None,
    limiter: ConnectionLimiter | None = None,
) -> AsyncIterator[int]:
    """Serve the address of the client, behind proxies; yield the port."""

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(200, (), exchange.client.encode())

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    served = listeners if tls is None else [trio.SSLListener(one, tls) for one in listeners]
    async with trio.open_nursery() as nursery:
        serve = partial(
            serve_http, answer, served, find_address=read_proxy_heads(proxies), limiter=limiter
        )
        await nursery.start(serve)
        yield port
        nursery.cancel_scope.cancel()


async def read_all(stream: trio.abc.Stream) -> bytes:
    data = b""
    with trio.fail_after(60):
        try:
            while piece := await stream.receive_some():
                data += piece
        except trio.BrokenResourceError:
            pass  # closed with bytes unread
    return data


REQUEST = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


async def exchanged(port: int, *pieces: bytes) -> bytes:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            await stream.send_all(piece)
            await trio.testing.wait_all_tasks_blocked()
        return await read_all(stream)


async def test_the_client_behind_a_trusted_proxy_is_the_peer() -> None:
    async with serving(["127.0.0.0/8"]) as port:
        for raw, address in HEADS.items():
            whole = await exchanged(port, raw + REQUEST)
            pieces = await exchanged(port, raw[:3], raw[3:17], raw[17:] + REQUEST[:5], REQUEST[5:])
            for data in (whole, pieces):
                assert data.startswith(b"HTTP/1.1 200"), raw
                if address is None:
                    assert b"\r\n\r\n127.0.0.1:" in data  # the proxy asks for itself
                else:
                    host = f"[{address[0]}]" if ":" in address[0] else address[0]
                    assert data.endswith(f"\r\n\r\n{host}:5000".encode())


async def test_a_trusted_proxy_must_send_a_head_and_nobody_else_may() -> None:
    async with serving(["127.0.0.1"]) as port:
        assert await exchanged(port, REQUEST) == b""
        assert await exchanged(port, b"PROXY TCP9 x\r\n" + REQUEST) == b""
    async with serving(["10.0.0.0/8"]) as port:
        assert (await exchanged(port, REQUEST)).startswith(b"HTTP/1.1 200")
        for raw in HEADS:
            refused = await exchanged(port, raw + REQUEST)
            assert refused.startswith(b"HTTP/1.1 400")
            assert b"192.0.2.7" not in refused


async def test_a_health_check_that_resets_its_connection_is_not_read_as_a_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """HAProxy does so every other second: each was a 400 in the access log, without a peer."""
    find = read_proxy_heads(["127.0.0.0/8"])
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        client = socket.create_connection(listener.socket.getsockname())
        client.sendall(LOCAL)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        async with await listener.accept() as stream:
            with pytest.raises(RemoteProtocolError, match="was reset"):
                await find(stream)
    ours, _theirs = trio.testing.memory_stream_pair()
    assert await find(ours) is None
    assert caplog.messages == []


async def test_tls_begins_behind_the_head() -> None:
    authority = trustme.CA()
    server, client = (
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
    )
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    async with serving(["127.0.0.1"], tls=server) as port:
        for raw in (binary(), b"PROXY TCP4 192.0.2.7 10.0.0.1 5000 443\r\n"):
            tcp = await trio.open_tcp_stream("127.0.0.1", port)
            await tcp.send_all(raw)
            tls = trio.SSLStream(tcp, client, server_hostname="localhost", https_compatible=True)
            async with tls:
                await tls.send_all(REQUEST)
                assert (await read_all(tls)).endswith(b"\r\n\r\n192.0.2.7:5000")


async def test_connections_are_limited_by_client_and_not_by_proxy() -> None:
    limiter = ConnectionLimiter(max_per_peer=1, reserve=0)
    async with (
        serving(["127.0.0.1"], limiter=limiter) as port,
        await trio.open_tcp_stream("127.0.0.1", port) as held,
    ):
        await held.send_all(binary() + REQUEST[:10])
        await wait_until(lambda: limiter.open)
        assert await exchanged(port, binary() + REQUEST) == b""
        other = await exchanged(port, binary("192.0.2.8") + REQUEST)
        assert other.startswith(b"HTTP/1.1 200")


async def test_a_head_that_does_not_come_ends_the_connection(autojump_clock: MockClock) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with (
        await trio.open_tcp_stream("127.0.0.1", listeners[0].socket.getsockname()[1]) as client,
        await listeners[0].accept() as stream,
    ):
        find = read_proxy_heads(["127.0.0.1"])
        await client.send_all(b"PROXY ")
        began = trio.current_time()
        with pytest.raises(RemoteProtocolError, match="in time"):
            await find(stream)
        assert trio.current_time() - began == HEAD_TIMEOUT
    for listener in listeners:
        await listener.aclose()


async def test_the_gateway_names_the_client_in_its_access_log(tmp_path: Path) -> None:
    file = tmp_path / "providers.toml"
    row, key = client_row_and_key("ada")
    write(file, provider("ai", "openai", "http://127.0.0.1:1/v1"), row)
    options = ("--proxy-protocol", "--trusted-proxy", "127.0.0.1")
    async with run_gateway(file, *options) as gateway:
        port = int(gateway.address.rpartition(":")[2])
        request = REQUEST.replace(b"GET /", b"GET /ai/nothing").replace(
            b"Host: h", b"Host: 127.0.0.1\r\nX-Api-Key: " + key.encode()
        )
        assert await exchanged(port, request) == b""
        assert (await exchanged(port, binary() + request)).startswith(b"HTTP/1.1 404")
        line = await gateway.wait_request(status=404)
        assert line["peer"] == "192.0.2.7:5000"
        await gateway.wait_event("connections of a proxy without a PROXY protocol head refused")
