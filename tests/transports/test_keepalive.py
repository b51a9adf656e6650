"""The kernel checks the network of both ends of a connection."""

import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf

import pytest
import trio
from trio.testing import memory_stream_pair

from bridgepool.transports._channel import WebSocketChannel
from bridgepool.transports._watched_stream import enable_tcp_keepalive, is_tcp_timeout
from bridgepool.transports.websocket import open_websocket_channel
from tests.transports.support import QUICK, running


@asynccontextmanager
async def connected() -> AsyncIterator[trio.SocketStream]:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port = listener.socket.getsockname()[1]
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            yield stream


def options(stream: trio.SocketStream) -> dict[str, int]:
    names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
    found = {"SO_KEEPALIVE": int(stream.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))}
    for name in names:
        if hasattr(socket, name):
            found[name] = int(stream.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)))
    return found


async def test_a_machine_that_is_gone_is_detected_in_about_the_timeout() -> None:
    for timeout, limit in ((20.0, 21), (0.5, 6), (5.0, 6), (600.0, 601)):
        async with connected() as stream:
            enable_tcp_keepalive(stream, timeout)
            found = options(stream)
            assert found["SO_KEEPALIVE"] == 1
            if sys.platform == "linux":
                probes = found["TCP_KEEPINTVL"] * found["TCP_KEEPCNT"]
                assert found["TCP_KEEPIDLE"] + probes <= limit
                assert timeout * 1000 < found["TCP_USER_TIMEOUT"] <= limit * 1000


async def test_both_ends_of_a_connection_are_watched() -> None:
    async with running() as server, open_websocket_channel(server.url, limits=QUICK) as client:
        for end in (client, await server.accepted()):
            assert isinstance(end, WebSocketChannel)
            stream = end._stream.stream
            assert isinstance(stream, trio.SocketStream)
            assert options(stream)["SO_KEEPALIVE"] == 1
            if sys.platform == "linux":
                assert options(stream)["TCP_USER_TIMEOUT"] >= QUICK.heartbeat_timeout * 1000


async def test_streams_other_than_tcp_and_infinite_timeouts_are_left_alone() -> None:
    async with connected() as stream:
        enable_tcp_keepalive(stream, inf)
        assert options(stream)["SO_KEEPALIVE"] == 0
    left, right = memory_stream_pair()
    enable_tcp_keepalive(left, 20)
    enable_tcp_keepalive(
        trio.SSLStream(right, ssl.create_default_context(), server_hostname="h"), 20
    )


@pytest.mark.parametrize(("error", "gave_up"), [
    (TimeoutError(110, "Connection timed out"), True),
    (ConnectionResetError(104, "reset"), False),
])  # fmt: skip
async def test_a_tcp_timeout_is_distinguished_from_a_reset(error: OSError, gave_up: bool) -> None:
    wrapped = trio.BrokenResourceError("broken")
    wrapped.__cause__ = error
    assert is_tcp_timeout(wrapped) is gave_up
    assert not is_tcp_timeout(None)
