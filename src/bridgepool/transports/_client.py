"""The connecting side of a websocket."""

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio
from trio_websocket import ConnectionRejected, WebSocketConnection, wrap_client_stream

from bridgepool._network import (
    Origin,
    describe_failure,
    dial_origin,
    parse_origin,
    upstream_ssl_context,
)
from bridgepool._secret import Secret
from bridgepool._services import open_service_nursery
from bridgepool.transports._carrier import UNREAD_MESSAGES, GreetingFailedError, run_connection
from bridgepool.transports._connection import WebSocketChannel, printable
from bridgepool.transports._errors import ConnectError, HandshakeRefusedError
from bridgepool.transports._handshake import WebSocketLimits
from bridgepool.transports._link import Link
from bridgepool.transports._timekeeper import keep_time

_DEFAULT_LIMITS = WebSocketLimits()
_SCHEMES = {"ws": "http", "wss": "https"}


def _is_plain(text: str) -> bool:
    return all("!" <= char <= "~" for char in text)


@attrs.frozen
class _Target:
    """A URL, taken apart."""

    origin: Origin
    resource: str

    @classmethod
    def parse(cls, url: str) -> "_Target":
        scheme, _, rest = url.partition("://")
        if scheme not in _SCHEMES:
            raise ValueError("the URL of a websocket begins with ws:// or wss://")
        base, mark, query = rest.partition("?")
        try:
            origin = parse_origin(f"{_SCHEMES[scheme]}://{base}")
        except ValueError:
            raise ValueError(
                "the URL of a websocket is ws:// or wss://, a host, and then at most a port, "
                "a path and a query"
            ) from None
        path = base[base.find("/") :] if "/" in base else "/"
        resource = path + mark + query
        if not _is_plain(resource) or "#" in resource:
            raise ValueError("the path and the query of a websocket's URL are ASCII without spaces")
        return cls(origin, resource)


@asynccontextmanager
async def open_websocket_channel(
    url: str,
    *,
    bearer: Secret | None = None,
    ssl_context: ssl.SSLContext | None = None,
    limits: WebSocketLimits = _DEFAULT_LIMITS,
) -> AsyncIterator[WebSocketChannel]:
    """Connect to a server of websockets.

    Args:
        url: `ws://` or `wss://`, with path and query.
        bearer: Sent as `Authorization: Bearer`. Over `ws://` everyone on the way can read it.
        ssl_context: For `wss://`; by default certificates are verified against the operating
            system's store if truststore is installed, else against Python's default.
        limits: How much and how long.

    Raises:
        ConnectError: There is no connection to be had.
        HandshakeRefusedError: The server answered, and refused.
        ValueError: `url` is none of these, or `bearer` does not fit a header.

    Cancellation: The block's end takes up to `close_timeout`, for the goodbye.
    """
    target = _Target.parse(url)
    if bearer is not None and not _is_plain(bearer.reveal()):
        raise ValueError("the bearer token must be printable ASCII without spaces")
    async with open_service_nursery() as nursery:
        dial = partial(_dial, target, bearer, ssl_context, limits)
        channel: WebSocketChannel = await nursery.start(dial)
        nursery.start_soon(keep_time, (channel,), limits)
        try:
            yield channel
        finally:
            with trio.move_on_after(limits.close_timeout, shield=True):
                await channel.aclose()
            nursery.cancel_scope.cancel()


async def _dial(  # noqa: ASYNC114, ASYNC128 - run_connection calls started()
    target: _Target,
    bearer: Secret | None,
    ssl_context: ssl.SSLContext | None,
    limits: WebSocketLimits,
    *,
    task_status: trio.TaskStatus[WebSocketChannel | None],
) -> None:
    """Be the carrier of one connection; raises only before `started()`."""
    name = target.origin.authority.decode()
    deadline = trio.current_time() + limits.handshake_timeout
    stream: trio.abc.Stream | None = None
    with trio.CancelScope(deadline=deadline):
        try:
            stream = await dial_origin(target.origin, _context(target, ssl_context))()
        except (OSError, trio.BrokenResourceError) as error:
            raise ConnectError(f"cannot connect to {name}: {describe_failure(error)}") from error
    if stream is None:
        raise ConnectError(f"cannot connect to {name} within {limits.handshake_timeout:g} s")
    greet = partial(_greet, target, bearer, limits)
    try:
        await run_connection(stream, limits, deadline, greet, task_status=task_status)
    except GreetingFailedError as failure:
        raise _why(name, failure.__cause__) from failure.__cause__


def _context(target: _Target, ssl_context: ssl.SSLContext | None) -> ssl.SSLContext | None:
    if target.origin.scheme == "http" or ssl_context is not None:
        return ssl_context
    try:
        return upstream_ssl_context()
    except ImportError:
        return ssl.create_default_context()


async def _greet(
    target: _Target,
    bearer: Secret | None,
    limits: WebSocketLimits,
    nursery: trio.Nursery,
    link: Link,
) -> WebSocketConnection:
    headers = []
    if bearer is not None:
        headers.append((b"authorization", f"Bearer {bearer.reveal()}".encode("ascii")))
    return await wrap_client_stream(
        nursery,
        link,  # type: ignore[arg-type] # any stream will do, as on the server's side
        target.origin.authority.decode(),
        target.resource,
        extra_headers=headers,
        message_queue_size=UNREAD_MESSAGES,
        max_message_size=limits.max_message_bytes,
        receive_buffer_size=None,
    )


def _why(name: str, cause: BaseException | None) -> Exception:
    if isinstance(cause, ConnectionRejected):
        return _refusal(cause.status_code, cause.body)
    if isinstance(cause, trio.TooSlowError):
        return ConnectError(f"{name} did not answer the websocket handshake in time")
    if isinstance(cause, trio.BrokenResourceError):
        return ConnectError(f"{name} ended the connection during the websocket handshake")
    return ConnectError(f"{name} does not answer as a websocket server")


def _refusal(status: int, body: bytes | None) -> HandshakeRefusedError:
    """Read `{"code", "reason"}`, or make do without."""
    try:
        told = json.loads(body or b"")
        code, reason = told["code"], told["reason"]
    except (ValueError, KeyError, TypeError, RecursionError):
        code = reason = None
    if not isinstance(code, str) or not isinstance(reason, str):
        return HandshakeRefusedError(
            status, "unexpected_status", "the server there gave no reason; is it the right one?"
        )
    return HandshakeRefusedError(status, printable(code), printable(reason, 1000))
