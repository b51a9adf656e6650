"""Tells frames that come alone, before trio-websocket sees them: at a third of the cost. Pure.

What a quiet connection carries comes in reads of one whole frame each: a ping, or a message such
as a notice to many. Such a read is told by its head and its length, if it is known that a frame
begins there; so the frames of all other reads are counted through. Only their heads matter here:
whatever is wrong with one, wsproto, which gets all of them, breaks the connection. Between the
frames of a message that comes in fragments, a ping is as good as anywhere, and a message is an
error (RFC 6455 section 5.4).
"""

from typing import Final

import attrs

BINARY: Final = 0x82
PING: Final = 0x89
_FINAL: Final = 0x80
_CONTROL: Final = 0x08
_MASKED: Final = 0x80
_LONGEST_HEAD: Final = 14
_MOST: Final = {PING: 125, BINARY: 65_535}  # bytes of a payload; no read is longer


@attrs.define(eq=False)
class LoneFrames:
    """Follows what one peer sends, from the end of its handshake.

    Args:
        masked: Whether the peer is a client, whose frames are masked.
    """

    _masked: bool
    messages: int = attrs.field(default=0, init=False)
    """How many messages began their last frame in what was followed."""
    # of the present frame, what is still to come
    _left: int = attrs.field(default=0, init=False)
    # the beginning of a frame's head, when a read ended within it
    _head: bytes = attrs.field(default=b"", init=False)
    # the frame that comes next continues a message
    _is_amid: bool = attrs.field(default=False, init=False)

    def payload(self, data: bytes | bytearray) -> bytes | None:
        """Return the payload, if what came in is one whole ping or message; else None.

        Which of them it is tells its first byte, `PING` or `BINARY`.
        """
        size = len(data)
        if self._left or self._head or size < 2:
            return None
        first, short = data[0], data[1] & 0x7F
        if first not in _MOST or (first == BINARY and self._is_amid):
            return None
        if bool(data[1] & _MASKED) is not self._masked:
            return None
        start = 2
        if short == 126:
            short, start = int.from_bytes(data[2:4], "big"), 4
            if short < 126:
                return None  # it would be longer than it must
        if self._masked:
            start += 4
        if short > _MOST[first] or size != start + short:
            return None
        if self._masked:
            return mask(data[start - 4 : start], data[start:])
        return bytes(data[start:])

    def follow(self, data: bytes | bytearray) -> None:
        """Count through what goes on to wsproto."""
        if self._left >= len(data):
            self._left -= len(data)
            return
        rest = self._head + bytes(data[self._left :])
        at = 0
        while at < len(rest):
            head = rest[at : at + _LONGEST_HEAD]
            size = _frame_size(head)
            if size is None:
                break
            if not head[0] & _CONTROL:
                self._is_amid = not head[0] & _FINAL
                self.messages += not self._is_amid
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


def mask(key: bytes | bytearray, payload: bytes | bytearray) -> bytes:
    """Mask, or undo it (RFC 6455 section 5.3)."""
    size = len(payload)
    keys = (bytes(key) * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(keys, "big")).to_bytes(size, "big")
