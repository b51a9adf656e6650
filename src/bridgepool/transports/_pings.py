"""Answers pings that come alone, before trio-websocket sees them: at two thirds of the cost. Pure.

An idle connection carries nothing but pings, one to a read. Such a read can be told by its first
two bytes and its length, if it is known that a frame begins there; so the frames of all other
reads are counted through. Only their lengths matter here: whatever is wrong with one, wsproto,
which gets all of them, breaks the connection. Between the frames of a message that comes in
fragments, pings are as good as anywhere (RFC 6455 section 5.4).
"""

import attrs

_PING = 0x89
_MASKED = 0x80
_KEY_END = 6
_MOST = 125  # bytes in the payload of a control frame


@attrs.define(eq=False)
class PingReader:
    """Follows what one client sends, from the end of its handshake."""

    # of the present frame, what is still to come
    _left: int = 0
    # the beginning of a frame's head, when a read ended within it
    _head: bytes = b""

    def answer(self, data: bytes | bytearray) -> bytes | None:
        """Return the pong, if that is all that what came in calls for."""
        length = len(data) - _KEY_END
        if (
            self._left == 0
            and 0 <= length <= _MOST
            and data[0] == _PING
            and data[1] == _MASKED | length
            and not self._head
        ):
            return bytes((0x8A, length)) + _unmask(data[2:_KEY_END], data[_KEY_END:])
        self._follow(data)
        return None

    def _follow(self, data: bytes | bytearray) -> None:
        if self._left >= len(data):
            self._left -= len(data)
            return
        rest = self._head + bytes(data[self._left :])
        at = 0
        while at < len(rest):
            size = _frame_size(rest[at : at + 10])
            if size is None:
                break
            at += size
        self._left, self._head = max(0, at - len(rest)), rest[at:]


def _frame_size(head: bytes) -> int | None:
    """Return the size of a frame, its head included; None if more of the head must be seen."""
    if len(head) < 2:
        return None
    short, mask = head[1] & 0x7F, 4 if head[1] & _MASKED else 0
    extended = {126: 2, 127: 8}.get(short, 0)
    if len(head) < 2 + extended:
        return None
    length = int.from_bytes(head[2 : 2 + extended], "big") if extended else short
    return 2 + extended + mask + length


def _unmask(key: bytes | bytearray, payload: bytes | bytearray) -> bytes:
    """Undo the masking (RFC 6455 section 5.3)."""
    size = len(payload)
    keys = (bytes(key) * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(keys, "big")).to_bytes(size, "big")
