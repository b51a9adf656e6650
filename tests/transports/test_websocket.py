"""What the two ends of a websocket observe, and what faults between them cause."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio_websocket

from bridgepool.testing import FaultProxy, Toward, open_fault_proxy
from bridgepool.transports import BreakReason, ChannelBrokenError
from bridgepool.transports.websocket import (
    Handshake,
    WebSocketChannel,
    WebSocketLimits,
    open_websocket_channel,
)
from tests.transports.support import (
    IMPATIENT,
    QUICK,
    STEADY,
    Channel,
    Server,
    messages_logged,
    running,
)


@attrs.frozen
class Link:
    client: Channel
    server: Channel
    proxy: FaultProxy
    serving: Server

    @property
    def ends(self) -> tuple[Channel, Channel]:
        return self.client, self.server


@asynccontextmanager
async def linked(
    limits: WebSocketLimits = QUICK, server_limits: WebSocketLimits | None = None
) -> AsyncIterator[Link]:
    with trio.fail_after(60):
        async with (
            running(limits=server_limits or limits) as serving,
            open_fault_proxy("127.0.0.1", serving.port) as proxy,
            open_websocket_channel(f"ws://127.0.0.1:{proxy.port}/", limits=limits) as client,
        ):
            yield Link(client, await serving.accepted(), proxy, serving)


async def why(end: Channel) -> ChannelBrokenError:
    """Receive until the end is broken."""
    try:
        while True:
            await end.receive()
    except ChannelBrokenError as error:
        with pytest.raises(ChannelBrokenError):
            await end.send(b"")
        return error


async def test_an_idle_connection_is_kept_by_its_heartbeats() -> None:
    async with linked(STEADY) as link:
        await trio.sleep(STEADY.heartbeat_timeout * 1.5)
        await link.client.send(b"1")
        await link.server.send(b"2")
        assert (await link.server.receive(), await link.client.receive()) == (b"1", b"2")


async def test_a_cut_is_distinguished_from_a_close() -> None:
    async with linked() as link:
        link.proxy.cut()
        for end in link.ends:
            assert (await why(end)).reason is BreakReason.CUT


async def test_a_connection_that_ends_without_a_close_frame_is_cut() -> None:
    async with linked() as link:
        link.proxy.close_half(Toward.BOTH)
        for end in link.ends:
            assert (await why(end)).reason is BreakReason.CUT


async def test_half_a_message_is_never_received() -> None:
    async with linked() as link:
        link.proxy.cut_after(70_000, Toward.TARGET)
        await link.client.send(bytes(100_000))
        assert (await why(link.server)).reason is BreakReason.CUT


@pytest.mark.parametrize("toward", [Toward.BOTH, Toward.CLIENT, Toward.TARGET])
async def test_a_black_hole_is_detected_by_both_ends(toward: Toward) -> None:
    async with linked(IMPATIENT) as link:
        link.proxy.black_hole(toward)
        for end in link.ends:
            error = await why(end)
            assert error.reason in (BreakReason.HEARTBEAT, BreakReason.CUT)
            assert error.reason is BreakReason.HEARTBEAT or toward is not Toward.BOTH


async def test_the_remaining_end_of_a_half_open_connection_detects_it() -> None:
    async with linked(IMPATIENT) as link:
        link.proxy.cut(Toward.TARGET)
        assert (await why(link.server)).reason is BreakReason.CUT
        error = await why(link.client)
        assert error.reason is BreakReason.HEARTBEAT
        assert str(error).startswith("the other side sent nothing for ")


async def test_damaged_bytes_break_the_connection() -> None:
    async with linked() as link:
        link.proxy.corrupt(2, toward=Toward.TARGET)
        await link.client.send(b"hello")
        assert (await why(link.server)).reason is BreakReason.PROTOCOL
        assert (await why(link.client)).reason in (BreakReason.PROTOCOL, BreakReason.CUT)


async def test_a_message_larger_than_the_receiver_accepts_breaks_the_connection() -> None:
    more = WebSocketLimits(max_message_bytes=QUICK.max_message_bytes + 1)
    async with running() as serving, open_websocket_channel(serving.url, limits=more) as client:
        server = await serving.accepted()
        await client.send(bytes(more.max_message_bytes))
        with trio.fail_after(60):
            for end in (server, client):
                assert (await why(end)).reason is BreakReason.OVERSIZED


async def flood(end: Channel) -> None:
    while True:
        await end.send(bytes(100_000))


async def test_an_end_that_does_not_receive_breaks_as_unread() -> None:
    # The client stalls about when the server stops reading, and either may notice first.
    async with linked(QUICK, server_limits=IMPATIENT) as link:
        with pytest.raises(trio.BrokenResourceError):
            await flood(link.client)
        assert (await why(link.server)).reason is BreakReason.UNREAD


async def test_a_slow_reader_is_waited_for_and_loses_nothing() -> None:
    async with linked() as link:

        async def send() -> None:
            for number in range(100):
                await link.client.send(b"%d." % number + bytes(50_000))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            for number in range(100):
                await trio.sleep(0.002)
                assert (await link.server.receive()).startswith(b"%d." % number)


async def test_a_text_message_is_a_protocol_error() -> None:
    async with running() as serving, trio_websocket.open_websocket_url(serving.url) as ws:
        server = await serving.accepted()
        await ws.send_message("text")
        with trio.fail_after(60):
            assert (await why(server)).reason is BreakReason.PROTOCOL


async def test_another_close_code_breaks_the_channel() -> None:
    async with running() as serving, trio_websocket.open_websocket_url(serving.url) as ws:
        server = await serving.accepted()
        await ws.aclose(4001, "bad\nday")
        with trio.fail_after(60):
            error = await why(server)
        assert error.reason is BreakReason.REFUSED
        assert str(error) == "the other side ended the connection: 4001 bad?day"


async def test_an_exception_of_a_handler_ends_its_own_connection_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(channel: Channel, handshake: Handshake) -> None:
        if handshake.path == "/raise":
            async with trio.open_nursery():
                raise ZeroDivisionError
        await channel.send(await channel.receive())
        await channel.receive()  # raises EndOfChannel, which is no error of the handler

    with trio.fail_after(60):
        async with running(handler=handler) as serving:
            async with open_websocket_channel(serving.url, limits=QUICK) as good:
                async with open_websocket_channel(serving.url + "raise", limits=QUICK) as bad:
                    error = await why(bad)
                assert error.reason is BreakReason.REFUSED
                assert str(error) == "the other side ended the connection: 1011 internal error"
                await good.send(b"echo")
                assert await good.receive() == b"echo"
            while serving.counters.open:  # noqa: ASYNC110 -- it has no event
                await trio.sleep(0.001)
            assert serving.counters.handler_errors == 1
            assert serving.counters.admitted == 2
    assert messages_logged(caplog) == ["websocket handler raised; connection closed"]


async def test_a_cancelled_server_closes_its_channels() -> None:
    async with (
        running() as serving,
        open_websocket_channel(serving.url, limits=QUICK) as client,
    ):
        server = await serving.accepted()
        await server.send(b"last words")
        serving.stop()
        with trio.fail_after(60):
            assert await client.receive() == b"last words"
            with pytest.raises(trio.EndOfChannel):
                await client.receive()


async def test_a_cancelled_client_closes_its_channel() -> None:
    async with running() as serving:
        with trio.CancelScope() as scope:
            async with open_websocket_channel(serving.url, limits=QUICK) as client:
                server = await serving.accepted()
                await client.send(b"last words")
                scope.cancel()
                await trio.sleep_forever()
        with trio.fail_after(60):
            assert await server.receive() == b"last words"
            with pytest.raises(trio.EndOfChannel):
                await server.receive()


async def test_an_exception_of_the_block_comes_out_unchanged() -> None:
    async with running() as serving:
        with pytest.raises(ValueError, match="mine"):
            async with open_websocket_channel(serving.url, limits=QUICK):
                raise ValueError("mine")


async def test_closing_into_a_black_hole_is_bounded() -> None:
    slow = WebSocketLimits(close_timeout=0.1)
    async with linked(slow) as link:
        link.proxy.black_hole()
        began = trio.current_time()
        await link.client.aclose()
        await link.server.aclose()
        assert trio.current_time() - began < 15  # of the heartbeat it is 20


async def test_only_bytes_are_sent() -> None:
    async with linked() as link:
        assert isinstance(link.client, WebSocketChannel)
        with pytest.raises(TypeError, match="not str"):
            await link.client.send("text")  # type: ignore[arg-type] # that is the point
