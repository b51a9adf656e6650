"""The handler around the routes: admin keys, limits of requests, unexpected errors.

Every request passes it, so no route can forget a check, and nothing of a request without a valid
key is parsed.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final, TypeAlias
from urllib.parse import parse_qsl, unquote

import attrs
import msgspec
import trio

from bridgepool._secret import Secret
from bridgepool.gateway.control._errors import StoreError
from bridgepool.gateway.control._records import Actor
from bridgepool.gateway.control._refusal_audit import RefusalAudit
from bridgepool.gateway.control.api._access_log import ApiLog, ApiRecord, redact_path
from bridgepool.gateway.control.api._errors import (
    ApiResponse,
    error_response,
    logger,
    store_response,
)
from bridgepool.gateway.control.store import Store
from bridgepool.gateway.proxy._redaction import redact_method
from bridgepool.gateway.serving._key_lookups import KeyLookups
from bridgepool.gateway.serving._peer import FindPeer
from bridgepool.gateway.serving._refused_keys import RefusedKeys
from bridgepool.http import (
    Exchange,
    Headers,
    InvalidRequest,
    RemoteProtocolError,
    RequestBody,
    is_websocket_handshake,
)

MAX_BODY: Final = 1 << 20
_BODY_TIMEOUT: Final = 30.0
_HEALTH: Final = (("healthz",), ("readyz",))  # asked every few seconds: not in the access log
_READ_METHODS: Final = frozenset({b"GET", b"HEAD", b"OPTIONS"})
# The rest of what the connection carries belongs to a body that was not read.
_CLOSING: Final = {"Connection": "close"}
_TOO_MANY_CONNECTIONS: Final = error_response(
    503,
    "too_many_connections",
    "there are too many connections, in total or from this address; try again later",
)

# In the form of a refused handshake, so that a gateway shows the reason.
_WRONG_PORT: Final = ApiResponse(
    404,
    msgspec.json.encode(
        {
            "code": "wrong_port",
            "reason": "this is the port of the control plane's API; gateways connect to the "
            "address of its --rpc-listen, which it prints at its start: serving gateways on …",
        }
    ),
    _CLOSING,
    "wrong_port",
)


@attrs.frozen
class ApiRequest:
    """One request that the guard has admitted."""

    method: str
    segments: tuple[str, ...]
    """Of its path; see `split_path`."""
    query: Mapping[str, str]
    body: bytes
    """All of it."""
    actor: Actor | None
    """Who makes it; None outside of ``/api/``, where no key is needed."""


Answer: TypeAlias = Callable[[ApiRequest], Awaitable[ApiResponse]]
"""Answers a request."""


@attrs.define(eq=False)
class Guard:
    """The routes, with a key before them; `handle` serves exchanges."""

    _routes: Answer
    _store: Store
    _access_log: ApiLog | None
    _find_peer: FindPeer | None = None
    refused_keys: RefusedKeys = attrs.field(
        factory=lambda: RefusedKeys(logger, "admin keys refused"), init=False
    )
    _lookups: KeyLookups = attrs.field(init=False)
    _refusals: RefusalAudit = attrs.field(init=False)
    failures: int = attrs.field(default=0, init=False)
    """Number of requests on which a route raised an unexpected error."""

    def __attrs_post_init__(self) -> None:
        self._lookups = KeyLookups(self.refused_keys)
        self._refusals = RefusalAudit(self._store, "admin")

    async def handle(self, exchange: Exchange) -> None:
        """Serve one request; a handler for `serve_http`."""
        await self._serve(exchange, over_limit=False)

    async def handle_over_limit(self, exchange: Exchange) -> None:
        """Answer checks of health only; an `over_limit` for `serve_http`."""
        await self._serve(exchange, over_limit=True)

    async def _serve(self, exchange: Exchange, *, over_limit: bool) -> None:
        request = exchange.request
        path, _, query = request.target.decode("ascii").partition("?")
        segments = split_path(path)
        route = redact_path(segments)
        peer = self._peer(request.headers, exchange.client)
        record = ApiRecord(redact_method(request.method), route, peer)
        try:
            if not over_limit:
                response = await self._answer(exchange, segments, query, record)
            elif segments in _HEALTH:
                response = await self._routes(ApiRequest("GET", segments, {}, b"", None))
            else:
                response = _TOO_MANY_CONNECTIONS
            record.status, record.revision = response.status, response.revision
            await response.send(exchange, record.request_id)
            record.code = response.code
        finally:
            if segments not in _HEALTH:
                self._end_record(record)

    def _peer(self, headers: Headers, connection: str) -> str:
        return connection if self._find_peer is None else self._find_peer(headers, connection)

    async def health_page(self, name: str) -> tuple[int, Headers, bytes]:
        """Return status, headers and body of `healthz` or `readyz`."""
        response = await self._routes(ApiRequest("GET", (name,), {}, b"", None))
        return response.status, response.fields(), response.content

    def _end_record(self, record: ApiRecord) -> None:
        record.ended = time.perf_counter()
        if self._access_log is not None:
            self._access_log(record)

    def answer_invalid(self, invalid: InvalidRequest) -> tuple[Headers, bytes]:
        """Refuse input that is not an acceptable request; an `answer_invalid` for `serve_http`."""
        path = invalid.target.partition(b"?")[0].decode("ascii")
        record = ApiRecord(
            redact_method(invalid.method),
            redact_path(split_path(path)),
            self._peer(invalid.headers, invalid.client),
        )
        response = _invalid(invalid.error)
        record.status, record.code = response.status, response.code
        self._end_record(record)
        return response.fields(record.request_id), response.content

    async def _answer(
        self, exchange: Exchange, segments: tuple[str, ...], query: str, record: ApiRecord
    ) -> ApiResponse:
        request = exchange.request
        if is_websocket_handshake(request):
            return _WRONG_PORT
        try:
            actor = await self._admit(exchange, record) if _needs_key(segments) else None
            if isinstance(actor, ApiResponse):
                return actor
            if actor is not None:
                exchange.authenticated()
            body = await _read_body(exchange.body)
            if isinstance(body, ApiResponse):
                return body
            if body and not _is_json(request.headers):
                return error_response(
                    415, "unsupported_media_type", "the Content-Type has to be application/json"
                )
            fields = dict(parse_qsl(query, keep_blank_values=True))
            method = request.method.decode("ascii")
            return await self._routes(ApiRequest(method, segments, fields, body, actor))
        except RemoteProtocolError as error:  # of the body
            return _invalid(error)
        except StoreError as error:
            return store_response(error)
        except Exception as error:  # of the routes; the next request must be served
            self.failures += 1
            _log_failure(record, error)
            return error_response(500, "internal", "the control plane failed; see its log")

    async def _admit(self, exchange: Exchange, record: ApiRecord) -> Actor | ApiResponse:
        """Return who makes a request, or the refusal, after a while if there are many."""
        request = exchange.request
        token = _bearer(request.headers)
        if token is None:
            return _unauthorized("an admin key is required")
        admin = await self._lookups.find(
            token,
            record.peer,
            partial(self._store.authenticate, "admin"),
            self._refusals.note,
        )
        if admin is None:
            return _unauthorized("the admin key is unknown or revoked")
        record.actor = admin.name
        if admin.role != "write" and request.method not in _READ_METHODS:
            return error_response(403, "forbidden", "this admin key has the role read")
        return Actor("admin", admin.name)


def _invalid(error: RemoteProtocolError) -> ApiResponse:
    message = f"the request cannot be read: {error}"
    return error_response(error.status_hint, "bad_request", message, headers=_CLOSING)


def _unauthorized(problem: str) -> ApiResponse:
    challenge = {"WWW-Authenticate": 'Bearer realm="bridgepool"'}
    return error_response(401, "unauthorized", problem, headers=challenge)


def split_path(path: str) -> tuple[str, ...]:
    """Return what a path has after each slash, decoded; nothing for ``*``."""
    return tuple(map(unquote, path.split("/")[1:]))


def _needs_key(segments: tuple[str, ...]) -> bool:
    return segments[:1] == ("api",) and len(segments) > 1


def _bearer(headers: Headers) -> Secret | None:
    found = [value for name, value in headers if name == b"authorization"]
    if len(found) != 1:
        return None
    scheme, _, token = found[0].strip().partition(b" ")
    text = token.strip().decode("latin-1")
    return Secret(text) if scheme.lower() == b"bearer" and text else None


async def _read_body(stream: RequestBody) -> bytes | ApiResponse:
    """Read all of the body; return the response if it is refused."""
    body = bytearray()
    with trio.move_on_after(_BODY_TIMEOUT):
        async for piece in stream:
            body += piece
            if len(body) > MAX_BODY:
                problem = f"the body is larger than {MAX_BODY >> 20} MiB"
                return error_response(413, "too_large", problem, headers=_CLOSING)
        return bytes(body)
    problem = f"the body did not arrive within {_BODY_TIMEOUT:.0f} s"
    return error_response(408, "timeout", problem, headers=_CLOSING)


def _is_json(headers: Headers) -> bool:
    types = [value for name, value in headers if name == b"content-type"]
    return len(types) == 1 and types[0].partition(b";")[0].strip().lower() == b"application/json"


def _log_failure(record: ApiRecord, error: Exception) -> None:
    # Without the text of the error, which may quote the request.
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    logger.error(
        "request failed",
        extra={
            "request_id": record.request_id,
            "method": record.method,
            "error": type(error).__name__,
            "trace": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
        },
    )
