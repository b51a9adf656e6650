"""`serve_streams`: accept connections in batches, for every server of the package.

`trio.serve_listeners` accepts one connection in each turn of the scheduler, and a turn serves every
task that can run. So of a thousand clients that connect at once beside a thousand busy ones, the
last waits for a thousand turns. Here a turn accepts all connections that wait, up to a bound that
keeps the turn itself short.
"""

import copy
import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from typing import Protocol, TypeVar

import attrs
import trio

S = TypeVar("S", bound=trio.abc.Stream)
_log = logging.getLogger("bridgepool.network")
MAX_ACCEPTED_PER_TURN = 256
_RETRY_INTERVAL = 0.1  # seconds, while the system cannot open another file
_SYSTEM_IS_FULL = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class _Batches(Protocol):
    """Accepts what waits."""

    async def accept(self) -> list[trio.abc.Stream]:
        """Wait for a connection, and accept it together with those that wait behind it."""
        ...


@attrs.frozen
class _OneByOne:
    """For listeners that are not sockets."""

    listener: trio.abc.Listener[trio.abc.Stream]

    async def accept(self) -> list[trio.abc.Stream]:
        """See `_Batches`."""
        return [await self.listener.accept()]


@attrs.frozen
class _Socket:
    listener: trio.SocketListener
    waiting: socket.socket  # a duplicate of the listener's socket, whose calls do not wait

    async def accept(self) -> list[trio.abc.Stream]:
        """See `_Batches`."""
        batch: list[trio.abc.Stream] = [await self.listener.accept()]
        while len(batch) < MAX_ACCEPTED_PER_TURN:
            try:
                accepted = self.waiting.accept()[0]
            except OSError:
                # Mostly BlockingIOError: there are no more. If it is another error, it is met
                # again by the next call of `accept`.
                break
            accepted.setblocking(False)
            batch.append(trio.SocketStream(trio.socket.from_stdlib_socket(accepted)))
        return batch


@attrs.frozen
class _Handed(trio.abc.Listener[trio.abc.Stream]):
    """Hands streams to a `trio.SSLListener`, which wraps them."""

    streams: list[trio.abc.Stream]

    async def accept(self) -> trio.abc.Stream:  # noqa: ASYNC910 -- its only caller has waited
        return self.streams.pop(0)

    async def aclose(self) -> None:  # noqa: ASYNC910 -- never called
        raise AssertionError("this listener has nothing to close")


@attrs.frozen
class _Tls:
    listener: trio.SSLListener[trio.abc.Stream]
    transport: _Batches

    async def accept(self) -> list[trio.abc.Stream]:
        """See `_Batches`."""
        batch = await self.transport.accept()
        wrapping = copy.copy(self.listener)
        wrapping.transport_listener = _Handed(batch)
        return [await wrapping.accept() for _ in range(len(batch))]


def _batches(listener: trio.abc.Listener[trio.abc.Stream], stack: ExitStack) -> _Batches:
    if isinstance(listener, trio.SSLListener):
        return _Tls(listener, _batches(listener.transport_listener, stack))
    if isinstance(listener, trio.SocketListener):
        duplicate = socket.socket(fileno=os.dup(listener.socket.fileno()))
        stack.enter_context(duplicate)
        duplicate.setblocking(False)
        return _Socket(listener, duplicate)
    return _OneByOne(listener)


async def _run_handler(handler: Callable[[S], Awaitable[object]], stream: S) -> None:
    try:
        await handler(stream)
    finally:
        await trio.aclose_forcefully(stream)


async def _serve_listener(
    handler: Callable[[trio.abc.Stream], Awaitable[object]],
    listener: trio.abc.Listener[trio.abc.Stream],
    handler_nursery: trio.Nursery,
) -> None:
    full = False  # the last attempt failed because the system is full
    async with listener:
        with ExitStack() as stack:
            batches = _batches(listener, stack)
            while True:
                try:
                    batch = await batches.accept()
                except OSError as error:
                    if error.errno not in _SYSTEM_IS_FULL:
                        raise
                    if not full:
                        fields = {"error": os.strerror(error.errno)}
                        _log.error("connections cannot be accepted; retrying", extra=fields)
                    full = True
                    await trio.sleep(_RETRY_INTERVAL)
                    continue
                full = False
                for stream in batch:
                    handler_nursery.start_soon(_run_handler, handler, stream)


async def serve_streams(  # noqa: ASYNC114 -- the linter cannot be told of every startable
    handler: Callable[[trio.abc.Stream], Awaitable[object]],
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
    *,
    handler_nursery: trio.Nursery,
    task_status: trio.TaskStatus[
        Sequence[trio.abc.Listener[trio.abc.Stream]]
    ] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Accept connections until cancelled; each is handled in a task and closed at its end.

    Like `trio.serve_listeners`, but all connections that wait are accepted before the next turn of
    the scheduler, up to `MAX_ACCEPTED_PER_TURN` for each listener.

    Args:
        handler: Serves one stream; what it raises ends `handler_nursery`.
        listeners: Closed at the end.
        handler_nursery: Where the handlers run.
        task_status: `started()` gets the listeners.

    Raises:
        OSError: A listener cannot accept. When the system has no room for another connection, that
            is logged, and tried again.
        trio.ClosedResourceError: A listener was closed.
    """
    async with trio.open_nursery() as nursery:
        for listener in listeners:
            nursery.start_soon(_serve_listener, handler, listener, handler_nursery)
        # The listeners already listen: connections wait for the tasks that were just started.
        task_status.started(listeners)
