"""How a side of a connection handles calls and notices."""

from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

import attrs
import trio

from bridgepool.remote._codec import Response
from bridgepool.remote._errors import BROKEN, ConnectionLostError, UnsendableError

P = TypeVar("P")

MAX_CALLS_IN_FLIGHT: Final = 64
"""The most unanswered calls of one side. Part of the protocol."""
MAX_REASON_CHARACTERS: Final = 1000
"""Messages of errors and reasons of goodbyes are truncated to this length."""


@attrs.frozen(eq=False)
class Method(Generic[P]):
    """How calls of one method are answered."""

    params: type[P]
    handle: Callable[[P], Awaitable[object]]
    """Returns the result: a message, or one that `codec.encode` returned. It may raise
    `RemoteError`. Another exception is logged and answered with the error ``internal``."""


@attrs.frozen(eq=False)
class NoticeHandler(Generic[P]):
    """How notices of one method are handled."""

    params: type[P]
    handle: Callable[[P], object]
    """Must be fast; its result is ignored."""


@attrs.define(eq=False)
class PendingCall:
    """A call that was made here."""

    answered: trio.Event = attrs.field(factory=trio.Event)
    answer: Response | None = None


def lost_error(error: Exception) -> ConnectionLostError:
    """Return the error that callers get when the channel raised this."""
    return ConnectionLostError(BROKEN, str(error) or "the connection broke")


def check_size(frame: bytes, limit: int) -> None:
    """Raise `UnsendableError` for a frame that is larger than the other side accepts."""
    if len(frame) > limit:
        raise UnsendableError(f"the frame has {len(frame)} bytes; the limit is {limit}")
