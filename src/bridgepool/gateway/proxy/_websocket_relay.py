"""A websocket between a client and a provider: frames pass as they came.

Theory of operation. Two tasks pass data frames on, one for each direction; each sends what it has
received before it receives more, so that a slow receiver holds its sender back. Control frames are
between the gateway and one peer: pings are answered here, and each peer that is silent is pinged. A
frame of ours goes out only where a frame of the other side's has ended; until then it waits.

A third task looks at the time: the silence of both peers, and the age of the websocket. Whatever
ends the relay first says how both sides are closed. A close that is not forced waits until no
message to the client is under way. When the request is cancelled, at the drain deadline or by the
end of a shutdown, the message under way still has a second to end.

A provider that was disabled meanwhile gets no new message: what is under way goes on, and the
client gets an error in place of a new response.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import attrs
import msgspec
import trio

from bridgepool.gateway.providers import ErrorDetails, ErrorForm
from bridgepool.gateway.proxy._access_log import AccessRecord, Outcome
from bridgepool.gateway.proxy._refusals import DRAIN_DEADLINE, UPSTREAM_CUT, Refusal
from bridgepool.gateway.proxy._websocket import WebSocketCall
from bridgepool.gateway.usage._socket_reader import SocketReader
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
    encode_frame,
)

_CLOSE_TIMEOUT: Final = 1.0  # seconds for the last frames, and for a message that is under way
_LINGER_TIMEOUT: Final = 2.0  # seconds for the client to answer a close
_GOING_AWAY, _INTERNAL, _RESTART = 1001, 1011, 1012
_asks_response = re.compile(rb'"type"\s*:\s*"response\.create"')


@attrs.define(eq=False)
class _Peer:
    """One end of the relay."""

    stream: trio.abc.Stream
    scanner: FrameScanner
    masks: bool  # our frames to it
    heard: float  # when it last sent anything
    asked: bool = False  # a ping was sent since then
    in_message: bool = False  # a message to it is under way
    closed: bool = False  # a close was sent to it
    has_closed: bool = False  # it has sent a close, or the end of its stream
    _in_frame: bool = False
    _waiting: list[bytes] = attrs.field(factory=list)  # our frames, until a frame has ended
    _lock: trio.Lock = attrs.field(factory=trio.Lock)

    async def send(self, data: bytes, last: DataPiece) -> None:
        """Send pieces of messages, of which `last` is the last."""
        try:
            self._lock.acquire_nowait()
        except trio.WouldBlock:
            await self._lock.acquire()
        try:
            self._in_frame, self.in_message = not last.ends_frame, not last.ends
            if self._waiting and last.ends_frame:
                data, self._waiting = data + b"".join(self._waiting), []
            await self.stream.send_all(data)
        finally:
            self._lock.release()

    async def send_own(self, opcode: Opcode, payload: bytes) -> None:
        """Send a frame of ours, or keep it until one may be sent."""
        frame = self._frame(opcode, payload)
        if self._in_frame or self._lock.locked():
            if len(self._waiting) < 4:  # a peer that asks more often gets fewer answers
                self._waiting.append(frame)
            return
        async with self._lock:
            await self.stream.send_all(frame)

    async def close(self, payload: bytes) -> None:
        """Send a close, once; nothing follows it. Errors mean that it is closed already."""
        if self.closed or self._in_frame or self._lock.locked():
            return
        self.closed = True
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self.stream.send_all(self._frame(Opcode.CLOSE, payload))

    def _frame(self, opcode: Opcode, payload: bytes) -> bytes:
        return encode_frame(opcode, payload, mask=os.urandom(4) if self.masks else b"")


@attrs.frozen
class _End:
    """How a relay ends: what both sides are told, and what is recorded."""

    to_client: bytes
    to_upstream: bytes
    outcome: Outcome = Outcome.COMPLETE
    code: str = ""


def _end(code: int, refusal: Refusal, outcome: Outcome) -> _End:
    payload = encode_close(code, refusal.code)
    return _End(payload, encode_close(_GOING_AWAY, ""), outcome, refusal.code)


@attrs.define(eq=False)
class _Relay:
    _call: WebSocketCall
    _errors: ErrorForm
    _record: AccessRecord
    _client: _Peer
    _upstream: _Peer
    _reader: SocketReader | None
    _started: float = attrs.field(factory=trio.current_time)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _end: _End | None = None
    _dropping: bool = False  # the current message of the client goes nowhere
    _refused: Refusal | None = None  # the client was told so

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

    async def _pass_on(self, source: _Peer, target: _Peer) -> None:
        """Pass on what one side sends, until it ends."""
        try:
            while self._end is None:
                data = await source.stream.receive_some()
                source.heard, source.asked = trio.current_time(), False
                if not data:
                    source.has_closed = True
                    break
                await self._take(source, target, bytes(data))
        except UpstreamError:
            self._finish(self._cut())
            return
        self._finish(self._cut() if source is self._upstream else self._gone())

    def _cut(self) -> _End:
        return _end(_INTERNAL, UPSTREAM_CUT, Outcome.UPSTREAM_CUT)

    def _gone(self) -> _End:
        return _End(b"", encode_close(_GOING_AWAY, ""), Outcome.CLIENT_GONE)

    async def _take(self, source: _Peer, target: _Peer, data: bytes) -> None:
        """Take what was received from one side."""
        pieces: list[DataPiece] = []
        close: ControlFrame | None = None
        from_client = source is self._client
        for item in source.scanner.feed(data):
            if isinstance(item, DataPiece):
                if not from_client or await self._may_pass(item):
                    pieces.append(item)
            elif item.opcode is Opcode.PING:
                await source.send_own(Opcode.PONG, item.payload)
            elif item.opcode is Opcode.CLOSE:
                close, source.has_closed = item, True
                break
        if pieces:
            raw = pieces[0].raw if len(pieces) == 1 else b"".join([each.raw for each in pieces])
            await target.send(raw, pieces[-1])
            self._note(pieces, len(raw), from_client=from_client)
        if close is not None:
            self._finish(_End(close.payload, close.payload))
        elif source.scanner.error is not None:
            error = source.scanner.error
            payload = encode_close(error.code, error.reason)
            outcome = Outcome.CLIENT_GONE if from_client else Outcome.UPSTREAM_CUT
            self._finish(_End(payload, payload, outcome, "bad_websocket_frame"))

    def _note(self, pieces: list[DataPiece], size: int, *, from_client: bool) -> None:
        if from_client:
            self._record.bytes_received += size
            return
        self._record.bytes_sent += size
        if self._reader is not None:
            for piece in pieces:
                if piece.is_text:
                    self._reader.feed(piece.payload)
                    if piece.ends:
                        self._reader.end_message()

    async def _may_pass(self, piece: DataPiece) -> bool:
        """Return whether a piece of the client's goes on; answer a message that does not."""
        if piece.begins:
            refusal = self._call.refuse_now()
            self._dropping = refusal is not None
            if refusal is not None and (
                refusal is not self._refused or _asks_response.search(piece.payload)
            ):
                self._refused = refusal
                await self._send_error(refusal)
        return not self._dropping

    async def _send_error(self, refusal: Refusal) -> None:
        """Send the client an error as a message, if it may stand here."""
        if self._client.in_message:
            return
        details = ErrorDetails(
            refusal.status, refusal.code, refusal.message, self._record.request_id
        )
        document = (self._errors.event_document or self._errors.document)(details)
        body = {"type": "error", "status": refusal.status, **document}
        await self._client.send_own(Opcode.TEXT, msgspec.json.encode(body))

    async def _keep_time(self) -> None:
        """Ping peers that are silent, and end what is too old (runs as a task)."""
        limits = self._call.limits
        step = min(limits.ping_interval, limits.ping_timeout) / 2
        while True:
            now = trio.current_time()
            old = now - self._started >= limits.max_age
            if old and not self._client.in_message:
                self._finish(_End(encode_close(_GOING_AWAY, "max_age"), encode_close(1000, "")))
            for peer in (self._client, self._upstream):
                silent = now - peer.heard
                if silent >= limits.ping_interval + limits.ping_timeout:
                    self._finish(self._gone() if peer is self._client else self._cut())
                elif silent >= limits.ping_interval and not peer.asked:
                    peer.asked = True
                    with suppress(UpstreamError):  # the reader finds it
                        await peer.send_own(Opcode.PING, b"")
            until_old = max(self._started + limits.max_age - now, 0.01)
            await trio.sleep(min(step, until_old))

    async def end_message(self) -> None:
        """Pass the rest of the message to the client on that is under way."""
        with suppress(UpstreamError):
            while self._client.in_message and not self._client.closed:
                data = await self._upstream.stream.receive_some()
                if not data:
                    return
                await self._take(self._upstream, self._client, bytes(data))

    async def wait_closed(self) -> None:
        """Wait until the client has answered the close, and so has read what came before it."""
        client = self._client
        while client.closed and not client.has_closed:
            data = await client.stream.receive_some()
            items = client.scanner.feed(bytes(data))
            closes = (
                isinstance(item, ControlFrame) and item.opcode is Opcode.CLOSE for item in items
            )
            client.has_closed = not data or any(closes) or client.scanner.error is not None

    async def close(self, end: _End) -> None:
        """Close both sides."""
        await self._upstream.close(end.to_upstream)
        if end.to_client or end.outcome is Outcome.COMPLETE:
            await self._client.close(end.to_client)


async def relay_websocket(
    call: WebSocketCall,
    response: UpstreamResponse,
    headers: Headers,
    errors: ErrorForm,
    why_cancelled: Callable[[], Refusal],
    exchange: Exchange,
    record: AccessRecord,
) -> None:
    """Relay a websocket until it ends; returns when both sides were told.

    Args:
        call: Its handshake.
        response: The provider's 101.
        headers: Its headers, as they may go to the client.
        errors: How errors look to the client.
        why_cancelled: Returns why the gateway cancels it.
        exchange: The client's.
        record: Gets the bytes, the outcome and what reads the usage.

    Raises:
        UpstreamProtocolError: The provider's handshake is not sound; nothing was sent.

    Cancellation: Both sides are closed, between two messages if the current one ends in a second.
    """
    if (accepted := call.response_headers(headers)) is None:
        raise UpstreamProtocolError("the upstream's handshake of a websocket is not sound")
    record.status, record.websocket = 101, True
    streams = await exchange.upgrade(accepted), response.stream
    record.first_byte = time.perf_counter()
    now, size = trio.current_time(), call.limits.max_message_bytes
    reader = record.usage_reader
    relay = _Relay(
        call,
        errors,
        record,
        _Peer(streams[0], FrameScanner(True, size), False, now),
        _Peer(streams[1], FrameScanner(False, size), True, now),
        reader if isinstance(reader, SocketReader) else None,
    )
    try:
        end = await relay.run()
    except trio.Cancelled:
        if not exchange.disconnected:
            refusal = why_cancelled()
            code = _RESTART if refusal is DRAIN_DEADLINE else _GOING_AWAY
            with trio.move_on_after(_CLOSE_TIMEOUT, shield=True):
                await relay.end_message()
            with trio.move_on_after(_CLOSE_TIMEOUT, shield=True):
                await relay.close(_end(code, refusal, Outcome.COMPLETE))
        raise
    if record.outcome is Outcome.COMPLETE:
        record.outcome, record.code = end.outcome, end.code
    with trio.move_on_after(_CLOSE_TIMEOUT):
        await relay.close(end)
    with trio.move_on_after(_LINGER_TIMEOUT):
        await relay.wait_closed()
