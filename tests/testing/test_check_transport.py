"""The contract over the transports that come with bridgepool, and over broken ones."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import attrs
import pytest
import trio
import trio.testing
import trustme

from bridgepool.testing import (
    FaultProxy,
    TransportPromiseBrokenError,
    check_transport,
    open_fault_proxy,
)
from bridgepool.transports.memory import MemoryChannel, open_memory_channel_pair
from bridgepool.transports.websocket import WebSocketLimits, open_websocket_channel
from tests.transports.support import Channel, running

LIMITS = WebSocketLimits(max_message_bytes=400_000, close_timeout=0.3)


@attrs.define(eq=False)
class MemoryRig:
    left: MemoryChannel
    right: MemoryChannel
    max_message_bytes: int | None = 400_000

    async def break_link(self) -> None:
        self.left.break_link()
        await trio.lowlevel.checkpoint()


@attrs.define(eq=False)
class SocketRig:
    left: Channel
    right: Channel
    proxy: FaultProxy
    max_message_bytes: int | None = LIMITS.max_message_bytes

    async def break_link(self) -> None:
        self.proxy.cut()
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def open_memory_rig() -> AsyncIterator[MemoryRig]:
    yield MemoryRig(*open_memory_channel_pair(max_message_bytes=400_000))


@asynccontextmanager
async def open_websocket_rig(
    server_tls: ssl.SSLContext | None, client_tls: ssl.SSLContext | None
) -> AsyncIterator[SocketRig]:
    async with (
        running(limits=LIMITS, tls=server_tls) as server,
        open_fault_proxy("127.0.0.1", server.port) as proxy,
    ):
        url = f"{server.scheme}://127.0.0.1:{proxy.port}/"
        async with open_websocket_channel(url, ssl_context=client_tls, limits=LIMITS) as left:
            yield SocketRig(left, await server.accepted(), proxy)


real_time = partial(trio.testing.MockClock, rate=1)


def test_the_memory_pair_keeps_the_contract() -> None:
    check_transport(open_memory_rig, max_examples=100)


def test_websockets_keep_the_contract() -> None:
    rig = partial(open_websocket_rig, None, None)
    check_transport(rig, max_examples=25, make_clock=real_time)


def test_websockets_over_tls_keep_the_contract() -> None:
    authority = trustme.CA()
    server, client = (
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH),
        ssl.create_default_context(),
    )
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    rig = partial(open_websocket_rig, server, client)
    check_transport(rig, max_examples=10, make_clock=real_time)


class _Unsound(MemoryChannel):
    pass


class DropsOnCancel(_Unsound):
    async def receive(self) -> bytes:
        message = await super().receive()
        await trio.sleep(0.01)
        return message


class SendsHalf(_Unsound):
    async def send(self, value: bytes) -> None:
        await super().send(value[:1000])


class EndsWhenBroken(_Unsound):
    async def receive(self) -> bytes:
        try:
            return await super().receive()
        except trio.BrokenResourceError:
            raise trio.EndOfChannel from None


class NoCheckpoint(_Unsound):
    async def aclose(self) -> None:
        self._closed = True
        self._outgoing.close()
        self._incoming.close()


class TakesAnything(_Unsound):
    async def send(self, value: bytes) -> None:
        await super().send(value[:400_000])


class NeverCloses(_Unsound):
    async def aclose(self) -> None:
        await trio.sleep_forever()


class LosesAPiece(_Unsound):
    """A long message comes in two pieces, and a cancelled receive forgets the first."""

    async def receive(self) -> bytes:
        message = await super().receive()
        if len(message) > 65536:
            await trio.lowlevel.checkpoint()
        return message


class SendsOnlyAlone(_Unsound):
    """As a stream that is written by each task that sends."""

    _is_sending = False

    async def send(self, value: bytes) -> None:
        if self._is_sending:
            raise trio.BusyResourceError("another task is sending")
        self._is_sending = True
        try:
            await super().send(value)
        finally:
            self._is_sending = False


class ClosesOnce(_Unsound):
    async def aclose(self) -> None:
        if self._closed:
            raise RuntimeError("closed already")
        await super().aclose()


@pytest.mark.parametrize(
    ("kind", "promise"),
    [
        (DropsOnCancel, "a cancelled receive"),
        (SendsHalf, "must arrive whole"),
        (EndsWhenBroken, "must raise BrokenResourceError, not EndOfChannel"),
        (NoCheckpoint, "checkpoint"),
        (TakesAnything, "too large must be refused"),
        (NeverCloses, "hangs"),
        (LosesAPiece, "a cancelled receive"),
        (SendsOnlyAlone, r"both ways and many senders: BusyResourceError\('another task is s"),
        (ClosesOnce, r"everything is a checkpoint: RuntimeError\('closed already'\)"),
    ],
)
def test_a_broken_promise_is_found_and_named(kind: type[MemoryChannel], promise: str) -> None:
    @asynccontextmanager
    async def open_rig() -> AsyncIterator[MemoryRig]:
        pair = open_memory_channel_pair(max_message_bytes=400_000)
        left, right = [kind(end._outgoing, end._incoming, 400_000, end._link) for end in pair]
        yield MemoryRig(left, right)

    with pytest.raises(TransportPromiseBrokenError, match=promise):
        check_transport(open_rig, max_examples=5)


def test_a_rig_that_cannot_be_closed_is_reported_and_does_not_hang_the_test() -> None:
    @asynccontextmanager
    async def open_rig() -> AsyncIterator[MemoryRig]:
        yield MemoryRig(*open_memory_channel_pair(max_message_bytes=400_000))
        await trio.sleep_forever()

    says = "whole and in order: the rig cannot be closed afterwards"
    with pytest.raises(TransportPromiseBrokenError, match=says):
        check_transport(open_rig, max_examples=5)


def test_a_sender_that_is_never_held_up_is_found() -> None:
    with pytest.raises(TransportPromiseBrokenError, match="a sender must wait"):
        check_transport(open_memory_rig, max_examples=5, max_buffered_bytes=100_000)
