"""The connecting side of a websocket."""

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio
from trio_websocket import ConnectionRejected, WebSocketConnection, wrap_client_stream

from bridgepool._network import (
    Origin,
    describe_failure,
    dial_origin,
    parse_websocket_url,
    upstream_ssl_context,
)
from bridgepool._printable import printable
from bridgepool._secret import Secret, require_secret
from bridgepool._services import open_service_nursery
from bridgepool.transports._channel import (
    MAX_UNREAD_MESSAGES,
    HandshakeFailedError,
    WebSocketChannel,
    check_channels,
    run_connection,
)
from bridgepool.transports._errors import ConnectError, HandshakeRefusedError
from bridgepool.transports._handshake import WebSocketLimits
from bridgepool.transports._watched_stream import WatchedStream

_DEFAULT_LIMITS = WebSocketLimits()


@asynccontextmanager
async def open_websocket_channel(
    url: str,
    *,
    bearer: Secret | None = None,
    ssl_context: ssl.SSLContext | None = None,
    limits: WebSocketLimits = _DEFAULT_LIMITS,
) -> AsyncIterator[WebSocketChannel]:
    """Connect to a websocket server.

    Args:
        url: `ws://` or `wss://`, with path and query.
        bearer: Sent as `Authorization: Bearer`. Over `ws://` it can be read on the way.
        ssl_context: For `wss://`. By default certificates are verified against the operating
            system's store if truststore is installed, otherwise against Python's default.
        limits: Sizes and timeouts.

    Raises:
        ConnectError: No connection could be made.
        HandshakeRefusedError: The server refused the handshake.
        ValueError: `url` is not a websocket URL, or `bearer` cannot be sent in a header.

    Cancellation: Leaving the block takes up to `close_timeout`, for the closing handshake.
    """
    origin, resource = parse_websocket_url(url)
    if bearer is not None:
        require_secret(bearer, "bearer")
        if not _is_plain(bearer.reveal()):
            raise ValueError("the bearer token must be printable ASCII without spaces")
    client = _Client(origin, resource, bearer, ssl_context, limits)
    async with open_service_nursery() as nursery:
        channel: WebSocketChannel = await nursery.start(client.run)
        nursery.start_soon(check_channels, (channel,), limits)
        try:
            yield channel
        finally:
            with trio.move_on_after(limits.close_timeout, shield=True):
                await channel.aclose()
            nursery.cancel_scope.cancel()


def _is_plain(text: str) -> bool:
    return all("!" <= char <= "~" for char in text)


@attrs.frozen
class _Client:
    """What one connection is opened with."""

    origin: Origin
    resource: str
    bearer: Secret | None
    ssl_context: ssl.SSLContext | None
    limits: WebSocketLimits

    async def run(  # noqa: ASYNC114, ASYNC128 -- run_connection calls started()
        self, *, task_status: trio.TaskStatus[WebSocketChannel | None]
    ) -> None:
        """Run one connection; raises only before `started()`."""
        name = self.origin.authority.decode()
        timeout = self.limits.handshake_timeout
        deadline = trio.current_time() + timeout
        stream: trio.abc.Stream | None = None
        with trio.CancelScope(deadline=deadline):
            try:
                stream = await dial_origin(self.origin, self.tls())()
            except (OSError, trio.BrokenResourceError) as error:
                problem = f"cannot connect to {name}: {describe_failure(error)}"
                raise ConnectError(problem) from error
        if stream is None:
            raise ConnectError(f"cannot connect to {name} within {timeout:g} s")
        try:
            await run_connection(
                stream, self.limits, deadline, self.perform_handshake, task_status=task_status
            )
        except HandshakeFailedError as failure:
            secure = self.origin.scheme == "https"
            raise _handshake_error(name, failure.__cause__, secure=secure) from failure.__cause__

    def tls(self) -> ssl.SSLContext | None:
        if self.origin.scheme == "http" or self.ssl_context is not None:
            return self.ssl_context
        try:
            return upstream_ssl_context()
        except ImportError:
            return ssl.create_default_context()

    async def perform_handshake(
        self, nursery: trio.Nursery, stream: WatchedStream
    ) -> WebSocketConnection:
        headers = []
        if self.bearer is not None:
            headers.append((b"authorization", f"Bearer {self.bearer.reveal()}".encode("ascii")))
        return await wrap_client_stream(
            nursery,
            stream,  # type: ignore[arg-type] # it accepts any stream, as on the server's side
            self.origin.authority.decode(),
            self.resource,
            extra_headers=headers,
            message_queue_size=MAX_UNREAD_MESSAGES,
            max_message_size=self.limits.max_message_bytes,
            receive_buffer_size=None,
        )


def _handshake_error(name: str, cause: BaseException | None, *, secure: bool) -> Exception:
    if isinstance(cause, ConnectionRejected):
        return _parse_refusal(cause.status_code, cause.body)
    if isinstance(cause, trio.TooSlowError):
        return ConnectError(f"{name} did not answer the websocket handshake in time")
    if isinstance(cause, trio.BrokenResourceError):
        hint = "" if secure else "; if it expects TLS, use wss://"
        return ConnectError(f"{name} ended the connection during the websocket handshake{hint}")
    return ConnectError(f"{name} does not answer as a websocket server")


def _parse_refusal(status: int, body: bytes | None) -> HandshakeRefusedError:
    """Read `{"code", "reason"}`; a body of another form is not an error."""
    try:
        fields = json.loads(body or b"")
        code, reason = fields.get("code"), fields.get("reason")
        said = fields["error"]["message"] if reason is None else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        code = reason = said = None
    if not isinstance(code, str) or not isinstance(reason, str):
        # Not a server of ours, or not the right one of them: many describe their errors so.
        what = f"said {printable(said)!r}" if isinstance(said, str) else "gave no reason"
        problem = f"the server {what}; check the URL"
        return HandshakeRefusedError(status, "unexpected_status", problem)
    return HandshakeRefusedError(status, printable(code), printable(reason, 1000))
