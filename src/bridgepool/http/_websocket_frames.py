"""The frames of websockets (RFC 6455), for proxies: passed on as they came, not put together.

A relay passes frames on as the bytes that they are. So a scanner only reads their heads: where each
of them ends, whether a message may begin there, and how long it may become. Extensions are not
supported: who relays does not pass them on in the handshake, and a reserved bit is an error. Pure.
"""

import base64
import enum
import hashlib
import math

import attrs

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_MAX_CONTROL_BYTES = 125


class Opcode(enum.IntEnum):
    """The kind of a frame."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


# Plain numbers: comparing with members of an enum takes a quarter of the time of a scan.
_OPCODES = frozenset(int(opcode) for opcode in Opcode)
_CONTINUATION, _TEXT, _CLOSE = int(Opcode.CONTINUATION), int(Opcode.TEXT), int(Opcode.CLOSE)


@attrs.frozen
class DataPiece:
    """A part of a message: a frame, or what was received of one."""

    raw: bytes
    """As it was received, with the head of the frame if it begins here."""
    is_text: bool
    begins: bool
    """The message begins with it."""
    ends_frame: bool
    """A frame is complete with it; other frames may follow."""
    ends: bool
    """The message is complete with it."""
    _payload: bytes
    _mask: bytes

    @property
    def payload(self) -> bytes:
        """The part of the message's content, unmasked."""
        return _apply_mask(self._payload, self._mask) if self._mask else self._payload

    def head(self, size: int) -> bytes:
        """Return the first bytes of `payload`; cheap for a small size."""
        head = self._payload[:size]
        return _apply_mask(head, self._mask) if self._mask else head


@attrs.frozen
class ControlFrame:
    """A frame between those of messages."""

    opcode: Opcode
    payload: bytes


@attrs.frozen
class WebSocketError:
    """Why frames are not acceptable."""

    code: int
    """For the frame that closes the websocket: 1002 or 1009."""
    reason: str


@attrs.define(eq=False)
class FrameScanner:
    """Splits the frames of one peer.

    Args:
        masked: Whether the peer is a client, whose frames are masked.
        max_message_bytes: Longest message; 1009 beyond, as soon as a frame says so.
    """

    _masked: bool
    _max_message_bytes: float
    error: WebSocketError | None = None
    """Set when the peer has sent something that is not acceptable; nothing follows."""
    in_message: bool = False
    """A message has begun, and not ended."""
    has_more: bool = False
    """The last `feed` has returned as many frames as it may; the next one goes on."""
    _rest: bytes = b""  # what was not read yet, such as the beginning of a frame's head
    _left: int = 0  # bytes of the current frame that are to come
    _is_last_frame: bool = False  # the current frame ends its message
    _is_text: bool = False
    _message_bytes: int = 0  # of the current message, announced so far
    _mask: bytes = b""  # of the current frame, from the next byte of its payload on

    def feed(self, data: bytes, most: float = math.inf) -> list[DataPiece | ControlFrame]:
        """Take received bytes; return what they complete, and the beginning of a long frame.

        Args:
            data: The bytes; empty to go on with those that came before.
            most: How many frames to return. Tens of thousands fit into what is received at once.
        """
        data = self._rest + data if self._rest else data
        self._rest, self.has_more = b"", False
        found: list[DataPiece | ControlFrame] = []
        position = 0
        while position < len(data) and self.error is None:
            if len(found) >= most:
                self._rest, self.has_more = data[position:], True
                break
            if self._left:
                begin, position = position, min(len(data), position + self._left)
                found.append(self._go_on(data[begin:position]))
                continue
            end = self._read_frame(data, position, found)
            if end == position:
                self._rest = data[position:]
                break
            position = end
        return found

    def _go_on(self, payload: bytes) -> DataPiece:
        self._left -= len(payload)
        return self._piece(payload, payload, begins=False)

    def _piece(self, raw: bytes, payload: bytes, *, begins: bool) -> DataPiece:
        ends_frame = not self._left
        ends = ends_frame and self._is_last_frame
        self.in_message = not ends
        mask = self._mask
        if mask and not ends_frame:
            turn = len(payload) % 4
            self._mask = mask[turn:] + mask[:turn]
        return DataPiece(raw, self._is_text, begins, ends_frame, ends, payload, mask)

    def _read_frame(self, data: bytes, begin: int, found: list[DataPiece | ControlFrame]) -> int:
        """Read a frame, or its beginning; return where it ends, or `begin` if more is needed."""
        if len(data) - begin < 2:
            return begin
        first, second = data[begin], data[begin + 1]
        length, position = second & 0x7F, begin + 2
        if length > 125:
            size = 2 if length == 126 else 8
            length = int.from_bytes(data[position : position + size], "big")
            position += size
        mask = data[position : position + 4] if self._masked else b""
        position += 4 * self._masked
        self._check(first, second, length if position <= len(data) else 0)
        if self.error is not None or position > len(data):
            return begin
        opcode, end = first & 0x0F, position + length
        if opcode >= _CLOSE:
            if end > len(data):
                return begin
            payload = data[position:end]
            payload = _apply_mask(payload, mask) if mask else payload
            found.append(ControlFrame(Opcode(opcode), payload))
            return end
        begins = opcode != _CONTINUATION
        if begins:
            self._is_text, self._message_bytes = opcode == _TEXT, 0
        self._message_bytes += length
        self._is_last_frame, self._mask = first >= 0x80, mask
        end = min(end, len(data))
        self._left = length - (end - position)
        found.append(self._piece(data[begin:end], data[position:end], begins=begins))
        return end

    def _check(self, first: int, second: int, length: int) -> None:
        """Set `error` if the head of a frame is not acceptable."""
        opcode = first & 0x0F
        reason = ""
        if first & 0x70:
            reason = "a reserved bit is set"
        elif opcode not in _OPCODES:
            reason = "unknown opcode"
        elif (second >= 0x80) is not self._masked:
            reason = "a frame of a client must be masked, and no other"
        elif opcode >= _CLOSE:
            if first < 0x80 or second & 0x7F > _MAX_CONTROL_BYTES:
                reason = "a control frame is too long or in parts"
        elif (opcode == _CONTINUATION) is not self.in_message:
            reason = "a message begins in another, or goes on without a beginning"
        elif length + self._message_bytes * self.in_message > self._max_message_bytes:
            self.error = WebSocketError(1009, "the message is too long")
            return
        if reason:
            self.error = WebSocketError(1002, reason)


def encode_frame(opcode: Opcode, payload: bytes, *, mask: bytes = b"") -> bytes:
    """Return a frame that is a whole message, or a control frame.

    Args:
        opcode: Its kind.
        payload: Its content.
        mask: Four bytes for a frame of a client; empty for one of a server.
    """
    length = len(payload)
    bit = 0x80 if mask else 0
    if length <= 125:
        head = bytes((0x80 | opcode, bit | length))
    elif length < 65536:
        head = bytes((0x80 | opcode, bit | 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, bit | 127)) + length.to_bytes(8, "big")
    return head + mask + (_apply_mask(payload, mask) if mask else payload)


def encode_close(code: int, reason: str) -> bytes:
    """Return the payload of a frame that closes a websocket."""
    text = reason.encode()[: _MAX_CONTROL_BYTES - 2].decode(errors="ignore").encode()
    return code.to_bytes(2, "big") + text


def websocket_accept(key: bytes) -> bytes:
    """Return the `Sec-WebSocket-Accept` that answers a `Sec-WebSocket-Key`."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def _apply_mask(data: bytes, mask: bytes) -> bytes:
    length = len(data)
    whole = (mask * (length // 4 + 1))[:length]
    number = int.from_bytes(data, "big") ^ int.from_bytes(whole, "big")
    return number.to_bytes(length, "big")
