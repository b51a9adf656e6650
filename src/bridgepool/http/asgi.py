"""Run a handler of exchanges as an ASGI application, under an ASGI server that runs on Trio.

Here the ASGI server does what `serve_http` does with bytes: it parses, applies its own limits and
closes connections. For each request a task listens to the server, so a disconnect cancels the
handler wherever it waits. A websocket's handshake is a request like any other, a GET with Upgrade,
whose response is one of HTTP.
"""

import logging
import math
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress

import attrs
import trio

from bridgepool._errors import BridgePoolError
from bridgepool._network import format_address
from bridgepool.http._asgi_websocket import AsgiWebSocketStream
from bridgepool.http._body_writers import (
    BodyWriter,
    WriteLength,
    WriteNothing,
    WriteUntilClose,
)
from bridgepool.http._errors import BodyTooLarge, LocalProtocolError, RemoteProtocolError
from bridgepool.http._exchange import Exchange, Handler, RequestBody
from bridgepool.http._framing import check_fields_to_send, with_length, without_fields
from bridgepool.http._heads import join_fields
from bridgepool.http._messages import NO_TRAILERS, EndOfMessage, Headers, Request, get_header

__all__ = ["AsgiApp", "Message", "Receive", "Scope", "Send", "asgi_app", "asgi_app_from"]

_MAX_READ_AHEAD = 4  # messages
_HANDSHAKE = (
    (b"upgrade", b"websocket"),
    (b"sec-websocket-version", b"13"),
    (b"sec-websocket-key", b"AAAAAAAAAAAAAAAAAAAAAA=="),
)
_OF_THE_HANDSHAKE = (b"upgrade", b"sec-websocket-accept", b"sec-websocket-protocol")  # the server's
_log = logging.getLogger("bridgepool.http")

Scope = Mapping[str, object]
"""The scope of an ASGI connection."""
Message = Mapping[str, object]
"""A message of the ASGI server."""
Receive = Callable[[], Awaitable[Message]]
"""Returns the next message of the ASGI server."""
Send = Callable[[dict[str, object]], Awaitable[None]]
"""Sends a message to the ASGI server."""


def asgi_app(handler: Handler, *, max_body_bytes: float = math.inf) -> "AsgiApp":
    """Return an ASGI application that serves with a handler.

    Args:
        handler: As for `serve_http`.
        max_body_bytes: Largest request body; 413 beyond.
    """
    return AsgiApp(lambda: nullcontext(handler), max_body_bytes, handler)


def asgi_app_from(
    open_handler: Callable[[], AbstractAsyncContextManager[Handler]],
    *,
    max_body_bytes: float = math.inf,
) -> "AsgiApp":
    """Return an ASGI application whose handler needs something open, such as a pool.

    It is opened when the ASGI server starts (its lifespan) and closed when the server stops; where
    the application is mounted in another, by `AsgiApp.lifespan`. Before and after that, requests
    get 503.

    Args:
        open_handler: Opens what the handler needs, and yields the handler.
        max_body_bytes: Largest request body; 413 beyond.
    """
    return AsgiApp(open_handler, max_body_bytes)


@attrs.define(eq=False)
class AsgiApp:
    """An ASGI 3 application; from `asgi_app` and `asgi_app_from`."""

    _open_handler: Callable[[], AbstractAsyncContextManager[Handler]]
    _max_body_bytes: float
    _handler: Handler | None = None
    _warns: bool = True  # of the first request, if it was never open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope of the ASGI server."""
        if scope["type"] in ("http", "websocket"):
            await self._serve_request(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._serve_lifespan(receive, send)

    @asynccontextmanager
    async def lifespan(self, _: object = None) -> AsyncIterator[None]:
        """Keep open what the handler needs, for an application that this one is mounted in.

        Frameworks do not pass the lifespan on to what is mounted. Give them this method:
        ``FastAPI(lifespan=app.lifespan)``, the same of Starlette, or enter it in your own lifespan.

        Args:
            _: The application that the framework passes; not used.
        """
        self._warns = False
        async with self._open_handler() as self._handler:
            try:
                yield
            finally:
                self._handler = None

    async def _serve_lifespan(self, receive: Receive, send: Send) -> None:
        """Keep the handler open while the server runs."""
        await receive()
        phase = "startup"
        try:
            async with self.lifespan():
                await send({"type": "lifespan.startup.complete"})
                phase = "shutdown"
                await receive()
        except Exception as error:
            _log.exception("ASGI %s failed", phase)
            await send({"type": f"lifespan.{phase}.failed", "message": repr(error)})
        else:
            await send({"type": "lifespan.shutdown.complete"})

    async def _serve_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        port = _AsgiPort(scope, receive, send, self._max_body_bytes)
        raised: Exception | None = None
        if port.is_websocket:
            await receive()  # websocket.connect
        try:
            async with trio.open_nursery() as nursery:
                port.handling = nursery.cancel_scope
                nursery.start_soon(port.listen)
                try:
                    await self._run_handler(port, scope)
                except Exception as error:
                    raised = error
                nursery.cancel_scope.cancel()
        finally:
            port.end()
        if raised is not None:
            try:
                raise raised  # outside the nursery, which would wrap it in a group
            finally:
                del raised  # its traceback refers to this frame

    async def _run_handler(self, port: "_AsgiPort", scope: Scope) -> None:
        """Run the handler; raise errors that the ASGI server must log and cut the response for."""
        exchange = Exchange(
            port.request,
            _client_of(scope),
            str(scope.get("scheme", "http")),
            RequestBody(port, NO_TRAILERS if port.is_websocket else None),
            port,
            _mounted_at(scope),
        )
        try:
            if self._handler is None:
                if self._warns:
                    self._warns = False
                    _log.error(
                        "ASGI application is not open: pass it the lifespan of the server, "
                        "or give its lifespan to the framework that it is mounted in"
                    )
                await exchange.answer(503, body=b"the application is not running\n")
            else:
                await self._handler(exchange)
            if not port.responded:
                raise LocalProtocolError("the handler returned without a response")
        except Exception as error:
            if port.responded:
                raise
            if not isinstance(error, RemoteProtocolError):
                _log.exception("handler failed", extra=dict(exchange.log_fields))
            status = error.status_hint if isinstance(error, BridgePoolError) else 500
            await exchange.answer(status, body=b"the request could not be served\n")
        finally:
            exchange._end()
        # A response that is left unfinished is cut by the ASGI server, which needs no error for it.


@attrs.define(eq=False)
class _AsgiPort:
    """Performs one exchange by ASGI messages; an `ExchangePort`."""

    _scope: Scope
    _receive: Receive
    _send_to_server: Send
    _max_body_bytes: float
    responded: bool = False
    finished: bool = False
    disconnected: bool = False
    handling: trio.CancelScope = attrs.field(factory=trio.CancelScope)  # around the handler
    is_websocket: bool = attrs.field(init=False)
    request: Request = attrs.field(init=False)
    _to_handler: trio.MemorySendChannel[Message] = attrs.field(init=False)
    _from_server: trio.MemoryReceiveChannel[Message] = attrs.field(init=False)
    _received: int = 0
    _writer: BodyWriter = attrs.field(factory=WriteNothing)
    _trailers: bool = False  # trailers were announced to the server
    _response: str = "http.response"  # the beginning of the types of its messages
    _upgraded: bool = False
    _refused: bool = False  # the server itself answers the handshake of a websocket

    def __attrs_post_init__(self) -> None:
        self.is_websocket = self._scope["type"] == "websocket"
        if self.is_websocket:
            self._response = "websocket.http.response"
        self.request = _request_of(self._scope)
        # A few pieces are read ahead of the handler: a disconnect is only reported after the last
        # piece of the body. A handler that does not read still makes the client wait.
        self._to_handler, self._from_server = trio.open_memory_channel[Message](_MAX_READ_AHEAD)

    async def listen(self) -> None:
        """Receive the server's messages until the client disconnects; then cancel the handler."""
        while not str((message := await self._receive())["type"]).endswith(".disconnect"):
            await self._to_handler.send(message)
        if self._upgraded:
            await self._to_handler.send(message)  # the close of the websocket, for the handler
            return
        self.disconnected = True
        self.handling.cancel()

    async def _send(self, message: dict[str, object]) -> None:
        try:
            await self._send_to_server(message)
        except OSError as error:  # by ASGI 2.4: the client has disconnected
            self.disconnected = True
            self.handling.cancel()
            await trio.lowlevel.checkpoint()  # noqa: ASYNC120 -- the cancellation comes first
            raise trio.BrokenResourceError from error  # only reached inside a shield

    def cancel(self) -> None:
        """See `ExchangePort`."""
        self.handling.cancel()

    def end(self) -> None:
        """Wake a task that still waits for the body: there is no exchange any more."""
        self._from_server.close()

    def take_buffered(self) -> tuple[bytes, EndOfMessage | None]:
        """See `ExchangePort`."""
        return b"", None  # the ASGI server buffers it, and only returns it by an await

    async def receive_some(self) -> tuple[bytes, EndOfMessage | None]:
        """See `ExchangePort`."""
        while True:
            message = await self._from_server.receive()
            piece = message.get("body", b"")
            if not isinstance(piece, bytes):
                raise LocalProtocolError("the ASGI server sent a body that is not bytes")
            self._received += len(piece)
            if self._received > self._max_body_bytes:
                raise BodyTooLarge(f"the body is larger than {self._max_body_bytes} bytes")
            end = None if message.get("more_body", False) else NO_TRAILERS
            if piece or end:
                return piece, end

    async def upgrade(self, headers: Headers) -> trio.abc.Stream:
        """See `ExchangePort`."""
        if not self.is_websocket:
            raise LocalProtocolError("an ASGI server can only switch to websockets")
        protocol = get_header(headers, b"sec-websocket-protocol")
        accept: dict[str, object] = {
            "type": "websocket.accept",
            "headers": list(without_fields(headers, *_OF_THE_HANDSHAKE)),
        }
        if protocol is not None:
            accept["subprotocol"] = protocol.decode("latin-1")
        self.responded = self.finished = self._upgraded = True
        await self._send(accept)

        def pong(message: Message) -> None:
            with suppress(trio.WouldBlock):
                self._to_handler.send_nowait(message)

        return AsgiWebSocketStream(self._from_server, self._send, pong)

    async def send_interim(self, status: int, headers: Headers) -> None:
        """See `ExchangePort`; ASGI only has early hints, and only some servers support them."""
        join_fields(headers)
        if status == 103 and self._offers("http.response.early_hint"):
            links = [value for name, value in headers if name == b"link"]
            await self._send({"type": "http.response.early_hint", "links": links})
        else:
            await trio.lowlevel.checkpoint()

    async def send_head(
        self, status: int, headers: Headers, reason: bytes, data: bytes, *, finish: bool
    ) -> None:
        """See `ExchangePort`; ASGI has no reason phrases."""
        join_fields(headers)
        length, _ = check_fields_to_send(headers)
        headers = with_length(without_fields(headers, b"connection"), length)
        if status < 200:
            raise LocalProtocolError("not a final response")
        if status == 204:
            headers = without_fields(headers, b"content-length")
        if status in (204, 304) or self.request.method == b"HEAD":
            self._writer = WriteNothing()
        elif length is not None:
            self._writer = WriteLength(length)
        else:
            self._writer = WriteUntilClose()
            self._trailers = not finish and self._offers("http.response.trailers")
        self.responded = True
        if self.is_websocket and not self._offers("websocket.http.response"):
            await self._send({"type": "websocket.close"})  # the server answers 403
            self._refused = True
            self.finished = finish
            return
        start: dict[str, object] = {"type": self._response + ".start", "status": status}
        start["headers"] = list(headers)
        if self._trailers:
            start["trailers"] = True
        await self._send(start)
        if finish:
            data = self._writer.data(data)
            self._writer.end(())
            await self._send({"type": self._response + ".body", "body": data})
            self.finished = True
        else:
            # Most servers send the head only with the first message of the body.
            await self.send_data(data)

    async def send_data(self, data: bytes) -> None:
        """See `ExchangePort`."""
        piece = self._writer.data(data)
        if not self._refused:
            body = {"type": self._response + ".body", "body": piece, "more_body": True}
            await self._send(body)

    async def send_end(self, trailers: Headers) -> None:
        """See `ExchangePort`."""
        self._writer.end(trailers)
        if not self._refused:
            await self._send({"type": self._response + ".body", "body": b""})
        if self._trailers:
            join_fields(trailers)
            await self._send({"type": "http.response.trailers", "headers": list(trailers)})
        self.finished = True

    def authenticated(self) -> None:
        """See `ExchangePort`; the ASGI server has its own limits."""

    def cut(self) -> None:
        """See `ExchangePort`; an unfinished response is cut when the handler ends."""

    def _offers(self, extension: str) -> bool:
        extensions = self._scope.get("extensions")
        return isinstance(extensions, Mapping) and extension in extensions


def _request_of(scope: Scope) -> Request:
    method = str(scope.get("method", "GET")).encode()  # the scope of a websocket has none
    version = str(scope.get("http_version", "1.1")).encode()
    path = scope.get("raw_path")
    if not isinstance(path, bytes):
        path = urllib.parse.quote(str(scope["path"])).encode()
    mounted_at = _mounted_at(scope)
    if mounted_at and path.startswith(mounted_at):
        path = path[len(mounted_at) :] or b"/"
    query = scope.get("query_string")
    target = path + b"?" + query if isinstance(query, bytes) and query else path
    fields = scope.get("headers", ())
    if not isinstance(fields, Iterable):
        raise LocalProtocolError("the ASGI server sent no headers")
    headers = tuple((bytes(n), bytes(v)) for n, v in fields)
    if scope["type"] == "websocket":
        # By HTTP/2 there are no such fields, and the server has checked the handshake.
        names = {name for name, _ in headers}
        headers += tuple(field for field in _HANDSHAKE if field[0] not in names)
    return Request(method, target, headers, version)


def _mounted_at(scope: Scope) -> bytes:
    return urllib.parse.quote(str(scope.get("root_path") or "")).encode()


def _client_of(scope: Scope) -> str:
    client = scope.get("client")
    if not isinstance(client, Sequence) or len(client) < 2:
        return ""
    return format_address((str(client[0]), int(client[1])))
