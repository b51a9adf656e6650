"""What goes wrong in a conversation of the remote protocol."""

from typing import ClassVar, Final

import trio

from bridgepool._errors import BridgePoolError

# Codes of errors that answer a call.
UNKNOWN_METHOD: Final = "unknown_method"
INVALID_PARAMS: Final = "invalid_params"
CANCELLED: Final = "cancelled"
INTERNAL: Final = "internal"
TOO_LARGE: Final = "too_large"
# Codes of goodbyes to those who break the protocol.
MALFORMED_FRAME: Final = "malformed_frame"
FRAME_TOO_LARGE: Final = "frame_too_large"
TOO_MANY_CALLS: Final = "too_many_calls"
DUPLICATE_ID: Final = "duplicate_id"
# Codes of connections that were lost without a goodbye; they are not sent.
CLOSED: Final = "closed"
BROKEN: Final = "broken"


class RemoteError(BridgePoolError):
    """The other side answered a call with an error; the connection lives on.

    A handler raises it too, to have the caller told its code and message. You get
    `ConnectionLostError` instead when there will be no answer.
    """

    status_hint = 502

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        """A word for programs."""
        self.message = message
        """A sentence for people. It must hold no secret."""

    def __str__(self) -> str:
        return f"{self.message} ({self.code})"


class InvalidMessageError(BridgePoolError, ValueError):
    """What came is not what the protocol says; where, but never a value of it."""

    status_hint: ClassVar[int] = 502

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        """A word for programs."""
        self.reason = reason
        """A sentence for people."""

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
    """A message cannot be encoded; nothing was sent. Its text holds no value of it."""


class ConnectionLostError(BridgePoolError, trio.BrokenResourceError):
    """The connection ended, and with it every call; connect again.

    Each caller gets one of its own. You get `trio.ClosedResourceError` instead when you left
    the block of `open_rpc` yourself.
    """

    status_hint = 503

    def __init__(self, code: str, reason: str, *, told: bool = False) -> None:
        super().__init__(code, reason)
        self.code = code
        """That of the goodbye; else ``closed``, ``broken``, or what the other side broke."""
        self.reason = reason
        """A sentence for people."""
        self.told = told
        """Whether the other side said goodbye, and the code and reason are its own."""

    def __str__(self) -> str:
        return f"the connection was lost: {self.reason} ({self.code})"
