"""A websocket between a client and a provider: frames pass as they came.

Theory of operation. Two tasks pass data frames on, one for each direction; each sends what it has
received before it receives more, so that a slow receiver holds its sender back. Control frames are
between the gateway and one peer: pings are answered here, and each peer that is silent is pinged. A
frame of ours goes out only where a frame of the other side's has ended; until then it waits.

A third task looks at the time: the silence of both peers, and the age of the websocket. Whatever
ends the relay first says how both sides are closed. A close that is not forced waits until no
message to the client is under way. When the request is cancelled, at the drain deadline or by the
end of a shutdown, the message under way still has a second to end. Before that, `SocketClosing`
ends the relay between two responses.

The guard says which messages of the client go on; the client gets an error in place of another one.
A client that may not go on is closed between two messages.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import attrs
import msgspec
import trio

from bridgepool.gateway.providers import ErrorDetails, ErrorForm
from bridgepool.gateway.proxy._access_log import AccessRecord, Outcome
from bridgepool.gateway.proxy._refusals import (
    DRAIN_DEADLINE,
    SHUTTING_DOWN,
    UPSTREAM_CUT,
    Refusal,
)
from bridgepool.gateway.proxy.websockets._closing import SocketClosing
from bridgepool.gateway.proxy.websockets._guard import CHECK_INTERVAL, SocketGuard
from bridgepool.gateway.proxy.websockets._lifetime import MAX_AGE
from bridgepool.gateway.proxy.websockets._peer import Peer
from bridgepool.gateway.proxy.websockets._responses import SocketResponses
from bridgepool.http import (
    ControlFrame,
    DataPiece,
    Exchange,
    FrameScanner,
    Headers,
    Opcode,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamResponse,
    encode_close,
)

_CLOSE_TIMEOUT: Final = 1.0  # seconds for the last frames
_MESSAGE_TIMEOUT: Final = 1.0  # seconds for a message that is under way
_LINGER_TIMEOUT: Final = 2.0  # seconds for the client to answer a close
_LEAVE_TIMEOUT: Final = 10.0  # seconds for a message to the client that is under way
_GOING_AWAY, _POLICY, _INTERNAL, _RESTART = 1001, 1008, 1011, 1012
_NO_CODE, _NO_CLOSE = 1005, 1006  # never sent


@attrs.frozen
class _End:
    """How a relay ends: what both sides are told, and what is recorded."""

    to_client: bytes
    to_upstream: bytes
    outcome: Outcome = Outcome.COMPLETE
    code: str = ""

    @property
    def close_code(self) -> int:
        """The code that the client sent or got."""
        if len(self.to_client) >= 2:
            return int.from_bytes(self.to_client[:2], "big")
        return _NO_CODE if self.outcome is Outcome.COMPLETE else _NO_CLOSE


def _end(code: int, refusal: Refusal, outcome: Outcome) -> _End:
    payload = encode_close(code, refusal.code)
    return _End(payload, encode_close(_GOING_AWAY, ""), outcome, refusal.code)


def _restart(reason: str) -> _End:
    return _End(encode_close(_RESTART, reason), encode_close(_GOING_AWAY, ""))


# By the reason of `SocketClosing`.
_ENDS: Final = {
    MAX_AGE: _End(encode_close(_GOING_AWAY, MAX_AGE), encode_close(1000, "")),
    DRAIN_DEADLINE.code: _restart(DRAIN_DEADLINE.code),
    SHUTTING_DOWN.code: _restart(SHUTTING_DOWN.code),
}


@attrs.define(eq=False)
class _Relay:
    _guard: SocketGuard
    _errors: ErrorForm
    _record: AccessRecord
    _client: Peer
    _upstream: Peer
    _closing: SocketClosing
    _started: float = attrs.field(factory=trio.current_time)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _end: _End | None = None
    _leaving: _End | None = None  # when no message to the client is under way
    _leave_by: float = 0.0
    _checked: float = attrs.field(factory=trio.current_time)  # whether the client may go on
    _taken: list[DataPiece] = attrs.field(factory=list)  # the last from the provider

    async def run(self) -> _End:
        """Relay until one side ends it."""
        try:
            async with trio.open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                nursery.start_soon(self._pass_on, self._client, self._upstream)
                nursery.start_soon(self._pass_on, self._upstream, self._client)
                nursery.start_soon(self._keep_time)
        except BaseExceptionGroup as group:
            if group.split(trio.Cancelled)[1] is None:
                await trio.lowlevel.checkpoint_if_cancelled()  # noqa: ASYNC120 -- in its place
            raise
        if self._end is None:
            raise AssertionError("nothing has ended the relay")
        return self._end

    def _finish(self, end: _End) -> None:
        if self._end is None:
            self._end = end
            self._scope.cancel()

    async def _pass_on(self, source: Peer, target: Peer) -> None:
        """Pass on what one side sends, until it ends."""
        try:
            while (items := await source.receive()) is not None:
                await self._take(source, target, items)
        except UpstreamError:
            self._finish(self._cut())
            return
        self._finish(self._cut() if source is self._upstream else self._gone())

    def _cut(self) -> _End:
        return _end(_INTERNAL, UPSTREAM_CUT, Outcome.UPSTREAM_CUT)

    def _gone(self) -> _End:
        return _End(b"", encode_close(_GOING_AWAY, ""), Outcome.CLIENT_GONE)

    async def _take(
        self, source: Peer, target: Peer, items: list[DataPiece | ControlFrame]
    ) -> None:
        """Take what was received from one side."""
        pieces: list[DataPiece] = []
        ping: ControlFrame | None = None
        close: ControlFrame | None = None
        from_client = source is self._client
        for item in items:
            if isinstance(item, DataPiece):
                if from_client and not self._guard.passes(item):
                    found = await self._guard.take(item)
                    if isinstance(found, Refusal):
                        await self._send_error(found)
                    else:
                        pieces += found
                else:
                    pieces.append(item)
            elif item.opcode is Opcode.PING:
                ping = item  # of several, the last is answered (RFC 6455 section 5.5.3)
            elif item.opcode is Opcode.CLOSE:
                close, source.has_closed = item, True
                break
        if pieces and not from_client:
            self._taken, target.unsent = pieces, True
        if ping is not None:
            await source.send_own(Opcode.PONG, ping.payload)
        if pieces:
            raw = pieces[0].raw if len(pieces) == 1 else b"".join([each.raw for each in pieces])
            if from_client and self._closing.note_client(pieces):
                self._leave(_ENDS[self._closing.reason])
            else:
                if from_client:  # before the answer can come
                    self._guard.note_client(pieces)
                await target.send(raw, pieces[-1])
                await self._note(pieces, len(raw), from_client=from_client)
        if close is not None:
            self._finish(_End(close.payload, close.payload))
        elif source.scanner.error is not None:
            error = source.scanner.error
            payload = encode_close(error.code, error.reason)
            outcome = Outcome.CLIENT_GONE if from_client else Outcome.UPSTREAM_CUT
            self._finish(_End(payload, payload, outcome, "bad_websocket_frame"))

    async def _note(self, pieces: list[DataPiece], size: int, *, from_client: bool) -> None:
        if from_client:
            self._record.bytes_received += size
            self._guard.read_client()
            return
        self._record.bytes_sent += size
        if self._closing.note_provider(pieces):
            self._leave_later(_ENDS[self._closing.reason])
        refusal = await self._guard.note_provider(pieces)
        if refusal is not None:
            self._leave(_end(_POLICY, refusal, Outcome.REFUSED))
        if self._leaving is not None and not self._client.in_message:
            self._finish(self._leaving)

    async def _send_error(self, refusal: Refusal) -> None:
        """Send the client an error as a message, when one may begin."""
        details = ErrorDetails(
            refusal.status, refusal.code, refusal.message, self._record.request_id
        )
        document = (self._errors.event_document or self._errors.document)(details)
        body = {"type": "error", "status": refusal.status, **document}
        await self._client.send_own(Opcode.TEXT, msgspec.json.encode(body))

    def _leave(self, end: _End) -> None:
        """Finish between two messages to the client, at the latest after `_LEAVE_TIMEOUT`."""
        leaving = self._leave_later(end)
        if not self._client.in_message or trio.current_time() >= self._leave_by:
            self._finish(leaving)

    def _leave_later(self, end: _End) -> _End:
        """Finish when the current message to the client has ended; return the end that counts."""
        if self._leaving is None:
            self._leaving, self._leave_by = end, trio.current_time() + _LEAVE_TIMEOUT
        return self._leaving

    async def _check(self, now: float) -> None:
        """End the websocket if the client may not go on."""
        if now - self._checked >= CHECK_INTERVAL:
            self._checked = now
            refusal = await self._guard.check()
            if refusal is not None:
                self._leave(_end(_POLICY, refusal, Outcome.REFUSED))

    async def _keep_time(self) -> None:
        """Ping peers that are silent, and end what may not go on (runs as a task)."""
        limits = self._guard.call.limits
        step = min(limits.ping_interval / 2, limits.ping_timeout / 2, CHECK_INTERVAL)
        while True:
            await self._check(now := trio.current_time())
            busy = self._client.busy or self._upstream.busy
            may_close = self._closing.look(now, busy=busy)
            if now - self._started >= limits.max_age:
                self._leave(_ENDS[MAX_AGE])
            elif may_close:
                self._leave(_ENDS[self._closing.reason])
            elif self._leaving is not None:
                self._leave(self._leaving)
            for peer in (self._client, self._upstream):
                silent = now - peer.heard
                if silent >= limits.ping_interval + limits.ping_timeout:
                    self._finish(self._gone() if peer is self._client else self._cut())
                elif silent >= limits.ping_interval and not peer.asked:
                    peer.asked = True
                    with suppress(UpstreamError):  # the reader finds it
                        await peer.send_own(Opcode.PING, b"")
            until_old = max(self._started + limits.max_age - now, 0.01)
            until_old = until_old if self._leaving is None else 1.0
            pause = min(step, until_old, self._closing.pause(now))
            if self._closing.begun.is_set():
                await trio.sleep(pause)
            else:
                with trio.move_on_after(pause):
                    await self._closing.begun.wait()

    async def end_message(self) -> None:
        """Pass on the rest of the message to the client that is under way."""
        # A client is also broken if a send to it was cancelled in the middle of a message.
        with suppress(UpstreamError, trio.BrokenResourceError):
            if self._client.unsent:
                raw = b"".join([each.raw for each in self._taken])
                await self._client.send(raw, self._taken[-1])
                await self._note(self._taken, len(raw), from_client=False)
            while self._client.in_message and not self._client.closed:
                items = await self._upstream.receive()
                if items is None:
                    return
                await self._take(self._upstream, self._client, items)

    async def wait_closed(self) -> None:
        """Wait until the client has answered the close, and so has read what came before it."""
        client = self._client
        while client.closed and not client.has_closed:
            items = await client.receive() or []
            closes = (
                isinstance(item, ControlFrame) and item.opcode is Opcode.CLOSE for item in items
            )
            client.has_closed |= any(closes) or client.scanner.error is not None

    async def close(self, end: _End) -> None:
        """Close both sides; neither waits for the other to take its close."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._upstream.close, end.to_upstream)
            if end.to_client or end.outcome is Outcome.COMPLETE:
                await self._client.close(end.to_client)


async def relay_websocket(
    guard: SocketGuard,
    response: UpstreamResponse,
    headers: Headers,
    errors: ErrorForm,
    why_cancelled: Callable[[], Refusal],
    exchange: Exchange,
    record: AccessRecord,
) -> None:
    """Relay a websocket until it ends; returns when both sides were told.

    Args:
        guard: Has its handshake, and judges the client.
        response: The provider's 101.
        headers: Its headers, as they may go to the client.
        errors: How errors look to the client.
        why_cancelled: Returns why the gateway cancels it.
        exchange: The client's.
        record: Gets the bytes and the outcome.

    Raises:
        UpstreamProtocolError: The provider's handshake is not sound; nothing was sent.

    Cancellation: Both sides are closed, between two messages if the current one ends in a second.
    """
    if (accepted := guard.call.response_headers(headers)) is None:
        raise UpstreamProtocolError("the upstream's handshake of a websocket is not sound")
    record.status, record.websocket, record.close_code = 101, True, _NO_CLOSE
    streams = await exchange.upgrade(accepted), response.stream
    record.first_byte = time.perf_counter()
    now, size = trio.current_time(), guard.call.limits.max_message_bytes
    messages, lifetime = guard.messages, guard.call.lifetime
    trails = messages is not None and messages.trails
    relay = _Relay(
        guard,
        errors,
        record,
        Peer(streams[0], FrameScanner(True, size), False, now),
        Peer(streams[1], FrameScanner(False, size), True, now),
        SocketClosing(lifetime, SocketResponses(messages), trails, record.generation),
    )
    try:
        end = await relay.run()
    except trio.Cancelled:
        if not exchange.disconnected:
            refusal = why_cancelled()
            code = _RESTART if refusal is DRAIN_DEADLINE else _GOING_AWAY
            with trio.move_on_after(_MESSAGE_TIMEOUT, shield=True):
                await relay.end_message()
            end = _end(code, refusal, Outcome.COMPLETE)
            record.close_code = code
            with trio.move_on_after(_CLOSE_TIMEOUT, shield=True):
                await relay.close(end)
                await relay.wait_closed()
        raise
    if record.outcome is Outcome.COMPLETE:
        record.outcome, record.code, record.close_code = end.outcome, end.code, end.close_code
    with trio.move_on_after(_CLOSE_TIMEOUT):
        await relay.close(end)
    with trio.move_on_after(_LINGER_TIMEOUT):
        await relay.wait_closed()
