"""What goes wrong between two ends of a message channel."""

import enum
from typing import ClassVar

import trio

from bridgepool._errors import BridgePoolError


class ConnectError(BridgePoolError):
    """No connection could be made: nobody there, an untrusted certificate, or no answer in time.

    Trying again later may help. You get `HandshakeRefusedError` when somebody did answer, and
    said no.
    """

    status_hint = 503


class HandshakeRefusedError(BridgePoolError):
    """The other side answered the handshake with an HTTP status instead of a connection.

    A status of 500 and more tells of trouble over there, which may pass; the others tell that
    what you sent (the key, the version, the address) will not do.
    """

    status_hint = 502

    def __init__(self, status: int, code: str, reason: str) -> None:
        super().__init__(status, code, reason)
        self.status = status
        """The HTTP status of the answer."""
        self.code = code
        """A word for programs; `unexpected_status` when the answer had none."""
        self.reason = reason
        """A sentence for people."""

    def __str__(self) -> str:
        return f"refused with status {self.status} ({self.code}): {self.reason}"


class MessageTooLargeError(BridgePoolError, ValueError):
    """The message is larger than the channel takes. Nothing was sent; the channel lives on."""

    status_hint: ClassVar[int] = 413

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(size, limit)
        self.size = size
        """Of the message, in bytes."""
        self.limit = limit
        """The largest that is taken, in bytes."""

    def __str__(self) -> str:
        return f"a message of {self.size} bytes; the channel takes {self.limit}"


class BreakReason(enum.Enum):
    """Why a channel is broken."""

    CUT = "cut"
    """The connection ended without a goodbye."""
    HEARTBEAT = "heartbeat"
    """Nothing was heard from the other side for too long."""
    STALLED = "stalled"
    """The other side has taken nothing of what was sent for too long."""
    UNREAD = "unread"
    """Too much had come in that was not received here for too long."""
    OVERSIZED = "oversized"
    """A message was larger than its receiver takes."""
    PROTOCOL = "protocol"
    """The other side does not speak the protocol of this channel."""
    REFUSED = "refused"
    """The other side ended the connection for a reason of its own."""


class ChannelBrokenError(BridgePoolError, trio.BrokenResourceError):
    """The channel broke; `reason` tells how. Only a new connection helps.

    You get `trio.EndOfChannel` instead when the other side closed the channel, and
    `trio.ClosedResourceError` when you did.
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
