"""Calls and notices over a channel of messages, both ways, many at once.

Theory of operation. One task reads, and waits for nothing but the channel: each frame is handled
without an await, and each call gets a task of its own. One task writes what is in the outbox.
Nothing here grows without bound, because each side keeps to `MAX_CALLS_IN_FLIGHT`:

    a call takes a place at its caller ─▶ sent ─▶ answered, once, whatever happens ─▶ place free
                                           └─ its caller was cancelled: a `cancel` notice follows,
                                              and the answer (`cancelled`, or the result) is dropped

A place is free only when the answer has come. So a side that follows the protocol never has more
calls unanswered, and one that does not is disconnected with the reason. That is the whole flow
control: callers block locally.

The end of a connection is recorded once (`_end`), whatever causes it: handlers are cancelled, each
caller gets an error of its own, and the channel is closed. The block of `open_rpc` is not
cancelled; its body learns of the end from its calls, or from `wait_lost`.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio

from bridgepool._services import open_service_nursery
from bridgepool.remote import _codec as codec
from bridgepool.remote import _errors as errors
from bridgepool.remote._errors import ConnectionLostError
from bridgepool.remote._rpc_handlers import MAX_CALLS_IN_FLIGHT, Method, NoticeHandler
from bridgepool.remote._rpc_peer import RpcPeer

__all__ = ["MAX_CALLS_IN_FLIGHT", "Method", "NoticeHandler", "RpcPeer", "open_rpc"]


@asynccontextmanager
async def open_rpc(
    channel: trio.abc.Channel[bytes],
    *,
    methods: Mapping[str, Method[Any]] | None = None,
    notices: Mapping[str, NoticeHandler[Any]] | None = None,
    max_frame_bytes: int = codec.MAX_FRAME_BYTES,
) -> AsyncIterator[RpcPeer]:
    """Exchange calls and notices with the other side of a channel.

    Args:
        channel: Must not be used elsewhere; closed when the block is left or the connection is
            lost.
        methods: What the other side may call.
        notices: How its notices are handled; others are ignored. ``cancel`` and ``goodbye`` are
            handled here.
        max_frame_bytes: The largest frame that is sent or accepted.

    Cancellation:
        Leaving the block cancels the handlers and closes the channel, within two seconds. The
        body's own exception comes out unchanged. The block is not cancelled when the connection
        is lost; see `RpcPeer.wait_lost`.
    """
    peer = RpcPeer(channel, dict(methods or {}), dict(notices or {}), max_frame_bytes)
    async with open_service_nursery() as nursery:
        peer._nursery = nursery
        nursery.start_soon(peer._read)
        nursery.start_soon(peer._write)
        try:
            yield peer
        finally:
            peer._left = True
            peer._end(ConnectionLostError(errors.CLOSED, "this side left"))
            peer.methods.clear()  # what serves them usually has the peer
            peer.notices.clear()
            if peer._sends_goodbye:  # which has a deadline
                with trio.CancelScope(shield=True):
                    await peer._closed.wait()
            peer._writing.cancel()
            nursery.cancel_scope.cancel()
