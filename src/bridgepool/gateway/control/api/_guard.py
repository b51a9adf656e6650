"""What every request passes before the routes see it: its key, its size, and a net below them.

The application that is served, so that no route can forget it, and so that nothing of a request
without a key is parsed.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final, Protocol, TypeAlias

import attrs
import trio

from bridgepool._secret import Secret
from bridgepool.gateway.control._errors import StoreError
from bridgepool.gateway.control._records import AccessKeyView, Actor
from bridgepool.gateway.control.api._errors import (
    Message,
    Receive,
    Response,
    Send,
    error_response,
    store_response,
)

logger = logging.getLogger("bridgepool.control.api")

Routes: TypeAlias = Callable[[Message, bytes, Actor | None], Awaitable[Response]]
"""What answers a request, given its body and who makes it; nobody outside of ``/api/``."""

MAX_BODY: Final = 1 << 20
_DROPPED: Final = 4 * MAX_BODY
_MOST_HEADERS: Final = 100
_BODY_TIMEOUT: Final = 30.0
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Admins(Protocol):
    """What is needed of the store."""

    async def authenticate_admin(self, token: Secret) -> AccessKeyView | None:
        """Tell which admin's key this is."""
        ...


@attrs.define(eq=False)
class Guard:
    """The routes, with a key before them, as an ASGI application."""

    _routes: Routes
    _admins: Admins
    failures: int = attrs.field(default=0, init=False)
    """Requests that the routes failed on."""

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI wants it."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] == "lifespan":
            for phase in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{phase}.complete"})
        else:
            response = await self._answer(scope, receive)
            await response.send(send)

    async def _answer(self, scope: Message, receive: Receive) -> Response:
        try:
            admitted = await self._admit(scope)
            if isinstance(admitted, Response):
                return admitted
            body = await _read_body(scope, receive)
            if isinstance(body, Response):
                return body
            if body and not _is_json(scope["headers"]):
                return error_response(
                    415, "unsupported_media_type", "the Content-Type has to be application/json"
                )
            return await self._routes(scope, body, admitted)
        except StoreError as error:
            return store_response(error)
        except Exception as error:  # of the routes: the next request is served all the same
            self.failures += 1
            _log_failure(scope, error)
            return error_response(500, "internal", "the control plane failed; see its log")

    async def _admit(self, scope: Message) -> Actor | Response | None:
        """Return who makes a request, or why it may not be made; None if nobody has to be known."""
        problem = _head_problem([name.lower() for name, _ in scope["headers"]])
        if problem is not None:
            # What else is on this connection may not be what its sender meant.
            closing = {"Connection": "close"}
            return error_response(400, "bad_request", problem, headers=closing)
        path: str = scope["path"]
        if not path.startswith("/api/"):
            return None
        token = _bearer(scope["headers"])
        admin = await self._admins.authenticate_admin(token) if token is not None else None
        if admin is None:
            said = "needs an admin key" if token is None else "this admin key is unknown or revoked"
            challenge = {"WWW-Authenticate": 'Bearer realm="bridgepool"'}
            return error_response(401, "unauthorized", said, headers=challenge)
        if admin.role != "write" and scope["method"] not in _READING:
            return error_response(403, "forbidden", "this admin key may read only")
        return Actor("admin", admin.name)


def _head_problem(names: list[bytes]) -> str | None:
    if len(names) > _MOST_HEADERS:
        return f"has more than {_MOST_HEADERS} headers"
    if b"content-length" in names and b"transfer-encoding" in names:
        # RFC 9112, section 6.3: where two parsers may differ, a request can be smuggled.
        return "has Content-Length beside Transfer-Encoding"
    return None


def _bearer(headers: list[tuple[bytes, bytes]]) -> Secret | None:
    found = [value for name, value in headers if name.lower() == b"authorization"]
    if len(found) != 1:
        return None
    scheme, _, token = found[0].strip().partition(b" ")
    text = token.strip().decode("latin-1")
    return Secret(text) if scheme.lower() == b"bearer" and text else None


async def _read_body(scope: Message, receive: Receive) -> bytes | Response:
    """Read all of the body, or return why it is not taken."""
    body = bytearray()
    size = 0
    with trio.move_on_after(_BODY_TIMEOUT):
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return error_response(HTTPStatus.BAD_REQUEST, "bad_request", "the client left")
            part: bytes = message.get("body", b"")
            size += len(part)
            if size <= MAX_BODY:
                body += part
            more: bool = message.get("more_body", False)
            # A little more is read and dropped: a connection that is closed with bytes unread
            # is reset, and the answer may be lost with it.
            if size > MAX_BODY and (not more or size > _DROPPED):
                return _too_large()
            if not more:
                return bytes(body)
    return error_response(408, "timeout", f"the body did not come within {_BODY_TIMEOUT:.0f} s")


def _is_json(headers: list[tuple[bytes, bytes]]) -> bool:
    types = [value for name, value in headers if name.lower() == b"content-type"]
    return len(types) == 1 and types[0].partition(b";")[0].strip().lower() == b"application/json"


def _too_large() -> Response:
    return error_response(
        413, "too_large", f"the body is above {MAX_BODY >> 20} MiB", headers={"Connection": "close"}
    )


def _log_failure(scope: Message, error: Exception) -> None:
    # Not the error's text: it may quote what was sent.
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    logger.error(
        "a request failed",
        extra={
            "method": scope["method"],
            "error": type(error).__name__,
            "trace": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
        },
    )
