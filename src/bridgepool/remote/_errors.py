"""Errors of the remote protocol."""

from typing import ClassVar, Final

import trio

from bridgepool._errors import BridgePoolError

# Codes of errors that answer a call.
UNKNOWN_METHOD: Final = "unknown_method"
INVALID_PARAMS: Final = "invalid_params"
CANCELLED: Final = "cancelled"
INTERNAL: Final = "internal"
TOO_LARGE: Final = "too_large"
# Codes of goodbyes after a protocol violation.
MALFORMED_FRAME: Final = "malformed_frame"
FRAME_TOO_LARGE: Final = "frame_too_large"
TOO_MANY_CALLS: Final = "too_many_calls"
DUPLICATE_ID: Final = "duplicate_id"
# The code of the goodbye of a follower that ends; it is not expected back.
FOLLOWER_ENDED: Final = "follower_ended"
# Codes of connections that were lost without a goodbye; they are not sent.
CLOSED: Final = "closed"
BROKEN: Final = "broken"


class RemoteError(BridgePoolError):
    """The other side answered a call with an error; the connection goes on.

    A handler raises it to answer with its code and message. When there will be no answer, the call
    raises `ConnectionLostError` instead.
    """

    status_hint = 502

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        """For programs."""
        self.message = message
        """For people. It must not contain a secret."""

    def __str__(self) -> str:
        return f"{self.message} ({self.code})"


class InvalidMessageError(BridgePoolError, ValueError):
    """A frame or message does not follow the protocol. The text says where, without values."""

    status_hint: ClassVar[int] = 502

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        """For programs."""
        self.reason = reason
        """For people."""

    def __str__(self) -> str:
        return self.reason


class UnusableRowError(BridgePoolError, ValueError):
    """A row cannot be used; its text says why, and goes back to the owner of the rows.

    Raise it where a class or function of yours finds that a row is not usable. The text must hold
    no value of the row.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        """What is wrong with it."""


class UnsendableError(BridgePoolError, ValueError):
    """A message cannot be encoded or is too large; nothing was sent. The text has no values."""


class ConnectionLostError(BridgePoolError, trio.BrokenResourceError):
    """The connection ended, and every pending call with it; connect again.

    Each caller gets an error of its own. After the block of `open_rpc` was left, operations raise
    `trio.ClosedResourceError` instead.
    """

    status_hint = 503

    def __init__(self, code: str, reason: str, *, by_peer: bool = False) -> None:
        super().__init__(code, reason)
        self.code = code
        """The code of the goodbye, or ``closed``, ``broken``, or that of a protocol violation."""
        self.reason = reason
        """For people."""
        self.by_peer = by_peer
        """Whether the other side sent a goodbye, with this code and reason."""

    def __str__(self) -> str:
        return f"the connection was lost: {self.reason} ({self.code})"
