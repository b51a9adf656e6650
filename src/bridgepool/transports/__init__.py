"""Message channels between two processes, or between two ends in one: `trio.abc.Channel[bytes]`.

The two transports are `bridgepool.transports.memory` and `bridgepool.transports.websocket`.
"""

from bridgepool.transports._errors import (
    BreakReason,
    ChannelBrokenError,
    ConnectError,
    HandshakeRefusedError,
    MessageTooLargeError,
)

__all__ = [
    "BreakReason",
    "ChannelBrokenError",
    "ConnectError",
    "HandshakeRefusedError",
    "MessageTooLargeError",
]
