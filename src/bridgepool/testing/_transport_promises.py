"""What a transport under test is, and how a promise that it breaks is told."""

from collections.abc import Awaitable, Callable
from typing import NoReturn, Protocol, TypeAlias

import trio

Channel: TypeAlias = trio.abc.Channel[bytes]

# Seconds after which a hang is one.
HANG = 20.0


class TransportPromiseBrokenError(AssertionError):
    """A transport does not keep the contract; the message tells which part."""


class TransportRig(Protocol):
    """Two connected ends of a transport under test."""

    @property
    def left(self) -> Channel:
        """One end."""
        ...

    @property
    def right(self) -> Channel:
        """The other end."""
        ...

    @property
    def max_message_bytes(self) -> int | None:
        """The largest message that is taken; None for no limit."""
        ...

    async def break_link(self) -> None:
        """Lose the connection as by a cut cable: neither end says goodbye, both find out."""
        ...


Check: TypeAlias = Callable[[TransportRig, Channel, Channel], Awaitable[None]]


def must(holds: bool, what: str) -> None:
    """Raise unless it holds."""
    if not holds:
        raise TransportPromiseBrokenError(what)


async def get(end: Channel, what: str) -> bytes:
    """Receive a message that must be there, or come soon."""
    with trio.move_on_after(HANG):
        try:
            message = await end.receive()
        except Exception as error:
            wrong(f"{what}: receive() raised", error)
        must(type(message) is bytes, f"a message is bytes, not {type(message).__name__}")
        return message
    raise TransportPromiseBrokenError(f"{what}: nothing was received")


async def ends_with(
    kind: type[Exception], operation: Callable[[], Awaitable[object]], what: str
) -> None:
    """Perform an operation that must raise this, sooner or later than after some successes."""
    with trio.move_on_after(HANG):
        for _ in range(10_000):
            try:
                await operation()
            except kind:
                return
            except Exception as error:
                wrong(f"{what} must raise {kind.__name__}, not", error)
    raise TransportPromiseBrokenError(f"{what} must raise {kind.__name__}")


def wrong(what: str, error: Exception) -> NoReturn:
    """Raise, with what was raised instead."""
    raise TransportPromiseBrokenError(f"{what} {error!r}") from error


async def cancel_after(scope: trio.CancelScope, ticks: int) -> None:
    """Cancel so many scheduler steps from now."""
    for _ in range(ticks):
        await trio.lowlevel.checkpoint()
    scope.cancel()
