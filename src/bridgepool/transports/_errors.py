"""Errors of message channels and of opening them."""

import enum
from typing import ClassVar, Final

import trio

from bridgepool._errors import BridgePoolError
from bridgepool._printable import printable

NOT_A_WEBSOCKET: Final = (
    "the other side sent something that is not a valid websocket frame or message"
)
_CLEAN_CODES: Final = (1000, 1001, 1005)  # normal, going away, no code (RFC 6455 section 7.4.1)
_PROTOCOL_ERROR_CODES: Final = (1002, 1003, 1007)


class ConnectError(BridgePoolError):
    """No connection could be made: no server, an untrusted certificate, or no answer in time.

    A later attempt may succeed. A server that answers and refuses raises `HandshakeRefusedError`
    instead.
    """

    status_hint = 503


class HandshakeRefusedError(BridgePoolError):
    """The server answered the handshake with an HTTP status instead of a connection.

    A status of 500 or more reports a failure of the server, which may be temporary. Other statuses
    report that what was sent (the key, the version, the URL) is not accepted.
    """

    status_hint = 502

    def __init__(self, status: int, code: str, reason: str) -> None:
        super().__init__(status, code, reason)
        self.status = status
        """The HTTP status of the answer."""
        self.code = code
        """For programs; `unexpected_status` when the answer had none."""
        self.reason = reason
        """For people."""

    def __str__(self) -> str:
        return f"refused with status {self.status} ({self.code}): {self.reason}"


class MessageTooLargeError(BridgePoolError, ValueError):
    """The message is larger than the channel's limit. Nothing was sent; the channel still works."""

    status_hint: ClassVar[int] = 413

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(size, limit)
        self.size = size
        """Bytes of the message."""
        self.limit = limit
        """Bytes of the largest message that the channel sends."""

    def __str__(self) -> str:
        return f"the message has {self.size} bytes; the limit is {self.limit}"


class BreakReason(enum.Enum):
    """Why a channel is broken."""

    CUT = "cut"
    """The connection ended without a closing handshake."""
    HEARTBEAT = "heartbeat"
    """The other side sent nothing for too long."""
    STALLED = "stalled"
    """The other side accepted no data for too long."""
    UNREAD = "unread"
    """Too much was left unread at this end for too long."""
    OVERSIZED = "oversized"
    """A message was larger than its receiver accepts."""
    PROTOCOL = "protocol"
    """The other side broke the protocol of this channel."""
    REFUSED = "refused"
    """The other side ended the connection for a reason of its own."""


class ChannelBrokenError(BridgePoolError, trio.BrokenResourceError):
    """The channel is broken, for a `reason`. Only a new connection helps.

    A channel that the other side closed raises `trio.EndOfChannel` instead, and one that was
    closed here `trio.ClosedResourceError`.
    """

    status_hint = 503

    def __init__(self, reason: BreakReason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        """What broke it."""
        self.detail = detail
        """The same in words, with figures."""

    def __str__(self) -> str:
        return self.detail


def close_error(code: int, reason: str | None) -> Exception:
    """Return what ended a channel that the other side closed by this code, other than 1006."""
    if code in _CLEAN_CODES:
        return trio.EndOfChannel("the other side closed the channel")
    if code == 1009:
        return ChannelBrokenError(
            BreakReason.OVERSIZED, "a message was larger than its receiver accepts"
        )
    if code in _PROTOCOL_ERROR_CODES:
        return ChannelBrokenError(BreakReason.PROTOCOL, NOT_A_WEBSOCKET)
    detail = f"the other side ended the connection: {code} {printable(reason or '')}".rstrip()
    return ChannelBrokenError(BreakReason.REFUSED, detail)
