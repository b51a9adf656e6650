"""The routes of the API: each operation under its method and path, and the checks of health."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

import attrs

from bridgepool.gateway.control._hub import Hub
from bridgepool.gateway.control.api._access_log import ApiLog
from bridgepool.gateway.control.api._errors import (
    RETRY_AFTER,
    ApiResponse,
    error_response,
    json_response,
)
from bridgepool.gateway.control.api._guard import ApiRequest, Guard
from bridgepool.gateway.control.api._openapi import (
    Health,
    Readiness,
    StoreReadiness,
    Unreadiness,
    describe,
)
from bridgepool.gateway.control.operations import OPERATIONS, Context, Operation
from bridgepool.gateway.control.operations._operation import (
    API_HEADER,
    NO_ROUTE,
    PREFIX,
    REQUIRED,
    Place,
)
from bridgepool.gateway.control.operations._requests import ApiError, read_request
from bridgepool.gateway.control.store import Store
from bridgepool.gateway.serving._peer import FindPeer

_NOT_FOUND: Final = error_response(
    404, "not_found", "there is no such route", headers={API_HEADER: NO_ROUTE}
)
_NO_JSON: Final = error_response(
    400, "bad_request", "the request cannot be read; a body has to be JSON"
)


def make_api(
    store: Store,
    hub: Hub,
    *,
    access_log: ApiLog | None = None,
    log_lines_dropped: Callable[[], int] = int,
    find_peer: FindPeer | None = None,
) -> Guard:
    """Make the API; its `handle` is a handler for `serve_http`.

    Args:
        store: The store that it reads and changes.
        hub: The hub that knows the gateways.
        access_log: Called once for each request, after its end.
        log_lines_dropped: Returns how many lines the logs have lost, for `/readyz`.
        find_peer: Returns the peer of a request; None if it is that of its connection.
    """
    return Guard(Routes(store, hub, log_lines_dropped).answer, store, access_log, find_peer)


@attrs.frozen
class Routes:
    """The routes, behind the guard."""

    _store: Store
    _hub: Hub
    _log_lines_dropped: Callable[[], int]

    async def answer(self, request: ApiRequest) -> ApiResponse:
        """Answer one request."""
        found: dict[str, tuple[Operation[..., object], dict[str, str]]] = {}
        for operation in OPERATIONS:
            places = _match(PREFIX + operation.path, request.segments)
            if places is not None:
                found[operation.method] = operation, places
        if not found or request.actor is None:
            return self._answer_public(request)
        if request.method not in found:
            return _wrong_method(*found)
        operation, places = found[request.method]
        document: object = REQUIRED
        takes_body = any(one.place in (Place.BODY, Place.FIELD) for one in operation.parameters)
        if request.body and takes_body:
            try:
                document = json.loads(request.body)
            except (ValueError, RecursionError):
                return _NO_JSON
        arguments = read_request(operation, places, request.query, document)
        context = Context(self._store, self._hub, request.actor)
        answer = await operation.carry_out(context, **arguments)
        return json_response(operation.status, answer, shows_key=operation.shows_key)

    def _answer_public(self, request: ApiRequest) -> ApiResponse:
        answers: dict[tuple[str, ...], Callable[[], ApiResponse]] = {
            ("healthz",): lambda: json_response(200, Health()),
            ("readyz",): self._readiness,
            ("openapi.json",): lambda: ApiResponse(200, describe()),
        }
        answer = answers.get(request.segments)
        if answer is None:
            return _NOT_FOUND
        return answer() if request.method == "GET" else _wrong_method("GET")

    def _readiness(self) -> ApiResponse:
        status = self._hub.status()
        reads, writes = status.read_problem is None, status.write_problem is None
        store = StoreReadiness("ok" if reads else "failed", "ok" if writes else "failed")
        if not status.ending and reads and writes:
            revision, dropped = status.revisions.revision, self._log_lines_dropped()
            return json_response(200, Readiness(revision, status.unreadable, store, dropped))
        if status.ending:
            error = ApiError("draining", "the control plane is shutting down")
        else:  # without the reason, which names the database to whoever asks
            lost = "written" if reads else "read" if writes else "read or written"
            message = f"the store cannot be {lost}; the log of the control plane has the reason"
            error = ApiError("store_unavailable", message)
        answer = json_response(503, Unreadiness(error, store))
        return attrs.evolve(answer, headers={"Retry-After": RETRY_AFTER}, code=error.code)


def _match(template: str, segments: tuple[str, ...]) -> dict[str, str] | None:
    """Return the path parameters; None if the path does not match the template."""
    names = template.split("/")[1:]
    places: dict[str, str] = {}
    if len(names) != len(segments):
        return None
    for name, text in zip(names, segments, strict=True):
        if name.startswith("{") and text:
            places[name[1:-1]] = text
        elif name != text:
            return None
    return places


def _wrong_method(*methods: str) -> ApiResponse:
    allow = {"Allow": ", ".join(sorted(methods))}
    message = "the route does not support this method; see Allow"
    return error_response(405, "method_not_allowed", message, headers=allow)
