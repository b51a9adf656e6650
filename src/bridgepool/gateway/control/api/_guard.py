"""The ASGI application around the routes: admin keys, limits of requests, unexpected errors.

Every request passes it, so no route can forget a check, and nothing of a request without a valid
key is parsed.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import attrs
import trio

from bridgepool._secret import Secret
from bridgepool.gateway.control._errors import StoreError
from bridgepool.gateway.control._records import Actor
from bridgepool.gateway.control.api._errors import (
    ApiResponse,
    Message,
    Receive,
    Send,
    error_response,
    store_response,
)
from bridgepool.gateway.control.store import Store

logger = logging.getLogger("bridgepool.control.api")

Routes: TypeAlias = Callable[[Message, bytes, Actor | None], Awaitable[ApiResponse]]
"""What answers a request, given its body and who makes it; nobody outside of ``/api/``."""

MAX_BODY: Final = 1 << 20
_MAX_DISCARDED: Final = 4 * MAX_BODY
_MAX_HEADERS: Final = 100
_BODY_TIMEOUT: Final = 30.0
_READ_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


@attrs.define(eq=False)
class Guard:
    """The routes, with a key before them, as an ASGI application."""

    _routes: Routes
    _store: Store
    failures: int = attrs.field(default=0, init=False)
    """Number of requests on which a route raised an unexpected error."""

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

    async def _answer(self, scope: Message, receive: Receive) -> ApiResponse:
        try:
            admitted = await self._admit(scope)
            if isinstance(admitted, ApiResponse):
                return admitted
            body = await _read_body(scope, receive)
            if isinstance(body, ApiResponse):
                return body
            if body and not _is_json(scope["headers"]):
                return error_response(
                    415, "unsupported_media_type", "the Content-Type has to be application/json"
                )
            return await self._routes(scope, body, admitted)
        except StoreError as error:
            return store_response(error)
        except Exception as error:  # of the routes; the next request must be served
            self.failures += 1
            _log_failure(scope, error)
            return error_response(500, "internal", "the control plane failed; see its log")

    async def _admit(self, scope: Message) -> Actor | ApiResponse | None:
        """Return who makes a request, None where no key is needed, or the rejection."""
        problem = _head_problem([name.lower() for name, _ in scope["headers"]])
        if problem is not None:
            # The rest of what this connection carries may not be what its sender meant.
            closing = {"Connection": "close"}
            return error_response(400, "bad_request", problem, headers=closing)
        path: str = scope["path"]
        if not path.startswith("/api/"):
            return None
        token = _bearer(scope["headers"])
        admin = await self._store.authenticate("admin", token) if token is not None else None
        if admin is None:
            problem = (
                "an admin key is required"
                if token is None
                else "the admin key is unknown or revoked"
            )
            challenge = {"WWW-Authenticate": 'Bearer realm="bridgepool"'}
            return error_response(401, "unauthorized", problem, headers=challenge)
        if admin.role != "write" and scope["method"] not in _READ_METHODS:
            return error_response(403, "forbidden", "this admin key has the role read")
        return Actor("admin", admin.name)


def _head_problem(names: list[bytes]) -> str | None:
    if len(names) > _MAX_HEADERS:
        return f"the request has more than {_MAX_HEADERS} headers"
    if b"content-length" in names and b"transfer-encoding" in names:
        # RFC 9112, section 6.3: parsers may differ, so a request could be smuggled.
        return "the request has both Content-Length and Transfer-Encoding"
    return None


def _bearer(headers: list[tuple[bytes, bytes]]) -> Secret | None:
    found = [value for name, value in headers if name.lower() == b"authorization"]
    if len(found) != 1:
        return None
    scheme, _, token = found[0].strip().partition(b" ")
    text = token.strip().decode("latin-1")
    return Secret(text) if scheme.lower() == b"bearer" and text else None


async def _read_body(scope: Message, receive: Receive) -> bytes | ApiResponse:
    """Read all of the body; return the response if it is rejected."""
    body = bytearray()
    size = 0
    with trio.move_on_after(_BODY_TIMEOUT):
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return error_response(400, "bad_request", "the client disconnected")
            part: bytes = message.get("body", b"")
            size += len(part)
            if size <= MAX_BODY:
                body += part
            more: bool = message.get("more_body", False)
            # A little more is read and discarded: closing a connection with unread bytes resets
            # it, and the response may be lost.
            if size > MAX_BODY and (not more or size > _MAX_DISCARDED):
                return _too_large()
            if not more:
                return bytes(body)
    return error_response(408, "timeout", f"the body did not arrive within {_BODY_TIMEOUT:.0f} s")


def _is_json(headers: list[tuple[bytes, bytes]]) -> bool:
    types = [value for name, value in headers if name.lower() == b"content-type"]
    return len(types) == 1 and types[0].partition(b";")[0].strip().lower() == b"application/json"


def _too_large() -> ApiResponse:
    return error_response(
        413,
        "too_large",
        f"the body is larger than {MAX_BODY >> 20} MiB",
        headers={"Connection": "close"},
    )


def _log_failure(scope: Message, error: Exception) -> None:
    # Without the text of the error, which may quote the request.
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    logger.error(
        "request failed",
        extra={
            "method": scope["method"],
            "error": type(error).__name__,
            "trace": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
        },
    )
