"""One end of a websocket that is relayed: what may be sent to it, and when."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

import attrs
import trio

from bridgepool.http import (
    ControlFrame,
    DataPiece,
    FrameScanner,
    Opcode,
    UpstreamError,
    encode_frame,
)

_MAX_FRAMES: Final = 64  # taken at once
_MAX_CLIENT_FRAMES: Final = 8  # each may be judged and refused: less than a millisecond in all
_MAX_LATER: Final = 16  # errors that wait for the end of a message


@attrs.define(eq=False)
class Peer:
    """One end of a relay."""

    stream: trio.abc.Stream
    scanner: FrameScanner
    masks: bool  # our frames to it
    heard: float  # when it last sent anything
    asked: bool = False  # a ping was sent since then
    in_message: bool = False  # a message to it is under way
    closed: bool = False  # a close was sent to it
    has_closed: bool = False  # it has sent a close, or the end of its stream
    unsent: bool = False  # the last `send` was cancelled before it began
    _in_frame: bool = False
    _waiting: list[bytes] = attrs.field(factory=list)  # our frames, until a frame has ended
    _later: list[bytes] = attrs.field(factory=list)  # our messages, until a message has ended
    _sending: bool = False  # a task is sending to it
    _sent: trio.Event | None = None  # a task waits for the end of that

    @property
    def busy(self) -> bool:
        """Whether a message to it or from it is under way."""
        return self.in_message or self.scanner.in_message or self._sending

    async def receive(self) -> list[DataPiece | ControlFrame] | None:
        """Return the next frames that it has sent, a few at a time; None at its end.

        Cancellation: Nothing is lost.
        """
        data = b""
        if self.scanner.has_more:
            await trio.lowlevel.checkpoint()
        else:
            data = bytes(await self.stream.receive_some())
            self.heard, self.asked = trio.current_time(), False
            if not data:
                self.has_closed = True
                return None
        return self.scanner.feed(data, _MAX_FRAMES if self.masks else _MAX_CLIENT_FRAMES)

    async def send(self, data: bytes, last: DataPiece) -> None:
        """Send pieces of messages, of which `last` is the last.

        Cancellation: If nothing was sent, `unsent` is true.
        """
        self.unsent = True
        while self._sending:
            self._sent = self._sent or trio.Event()
            await self._sent.wait()
        await trio.lowlevel.checkpoint_if_cancelled()
        self.unsent = False
        self._in_frame, self.in_message = not last.ends_frame, not last.ends
        await self._send_all(data)

    async def send_own(self, opcode: Opcode, payload: bytes) -> None:
        """Send a frame of ours, or keep it until one may be sent."""
        frame = self._frame(opcode, payload)
        if opcode is Opcode.TEXT and (self.in_message or self._sending):
            if len(self._later) < _MAX_LATER:
                self._later.append(frame)
            return
        if self._in_frame or self._sending:
            if len(self._waiting) < 4:  # a peer that asks more often gets fewer answers
                self._waiting.append(frame)
            return
        await self._send_all(frame)

    async def _send_all(self, data: bytes) -> None:
        """Send this, then frames of ours that may follow it, also those that come meanwhile."""
        self._sending = True
        try:
            while data:
                await self.stream.send_all(data + self._take_own())
                data = self._take_own()
        finally:
            self._sending = False
            if self._sent is not None:
                self._sent.set()
                self._sent = None

    def _take_own(self) -> bytes:
        """Return the frames of ours that may be sent now; they wait no longer."""
        own: list[bytes] = []
        if self._waiting and not self._in_frame:
            own, self._waiting = self._waiting, []
        if self._later and not self.in_message:
            own, self._later = own + self._later, []
        return b"".join(own)

    async def close(self, payload: bytes) -> None:
        """Send a close, once; nothing follows it. Errors mean that it has ended already."""
        if self.closed or self._in_frame:
            return
        self.closed = True
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError, UpstreamError):
            await self.stream.send_all(self._frame(Opcode.CLOSE, payload))

    def _frame(self, opcode: Opcode, payload: bytes) -> bytes:
        return encode_frame(opcode, payload, mask=os.urandom(4) if self.masks else b"")
