"""A websocket of an ASGI server as the stream of frames that `Exchange.upgrade` returns."""

from collections.abc import Awaitable, Callable, Mapping

import attrs
import trio

from bridgepool.http._errors import LocalProtocolError
from bridgepool.http._websocket_frames import (
    ControlFrame,
    DataPiece,
    FrameScanner,
    Opcode,
    encode_close,
    encode_frame,
)

_NO_MASK = b"\0\0\0\0"  # frames of a client have one; this one changes nothing
_NOT_SENT = (1005, 1006)  # codes that stand for a close without one
_Message = Mapping[str, object]


@attrs.define(eq=False)
class AsgiWebSocketStream(trio.abc.Stream):
    """Frames on this side, messages on the side of the ASGI server, which answers pings itself.

    Args:
        messages: Those of the server, from `websocket.receive` on.
        send: Sends a message to the server.
        pong: Puts a message among `messages`, if there is room.
    """

    _messages: trio.MemoryReceiveChannel[_Message]
    _send: Callable[[dict[str, object]], Awaitable[None]]
    _pong: Callable[[_Message], None]
    _scanner: FrameScanner = attrs.field(factory=lambda: FrameScanner(False, float("inf")))
    _pieces: list[bytes] = attrs.field(factory=list)  # of the message that is being sent
    _rest: bytes = b""  # of what was received
    _ended: bool = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return received frames; b"" at the end."""
        while not self._rest:
            if self._ended:
                await trio.lowlevel.checkpoint()
                return b""
            self._rest = self._frame_of(await self._messages.receive())
        most = max_bytes or len(self._rest)
        data, self._rest = self._rest[:most], self._rest[most:]
        return data

    def _frame_of(self, message: _Message) -> bytes:
        if message["type"] == "websocket.pong":
            return encode_frame(Opcode.PONG, b"", mask=_NO_MASK)
        if message["type"] == "websocket.disconnect":
            self._ended = True
            code = message.get("code", 1005)
            if not isinstance(code, int) or code == 1006:
                return b""
            payload = b"" if code in _NOT_SENT else encode_close(code, "")
            return encode_frame(Opcode.CLOSE, payload, mask=_NO_MASK)
        text, data = message.get("text"), message.get("bytes")
        if isinstance(text, str):
            return encode_frame(Opcode.TEXT, text.encode(), mask=_NO_MASK)
        if not isinstance(data, bytes):
            raise LocalProtocolError("the ASGI server sent a message without content")
        return encode_frame(Opcode.BINARY, data, mask=_NO_MASK)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send the messages that are complete with `data`."""
        await trio.lowlevel.checkpoint()
        for item in self._scanner.feed(bytes(data)):
            if isinstance(item, DataPiece):
                self._pieces.append(item.payload)
                if item.ends:
                    await self._send_message(item.is_text)
            elif item.opcode is Opcode.CLOSE:
                await self._send(_close_message(item))
            elif item.opcode is Opcode.PING:
                self._pong({"type": "websocket.pong"})
        if self._scanner.error is not None:
            raise LocalProtocolError(self._scanner.error.reason)

    async def _send_message(self, is_text: bool) -> None:
        content = b"".join(self._pieces)
        self._pieces.clear()
        if is_text:
            await self._send({"type": "websocket.send", "text": content.decode(errors="replace")})
        else:
            await self._send({"type": "websocket.send", "bytes": content})

    async def wait_send_all_might_not_block(self) -> None:
        """A checkpoint."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Do nothing: the ASGI server closes the connection when the application returns."""
        await trio.lowlevel.checkpoint()


def _close_message(frame: ControlFrame) -> dict[str, object]:
    payload = frame.payload
    code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1000
    reason = payload[2:].decode(errors="replace")
    return {"type": "websocket.close", "code": code, "reason": reason}
