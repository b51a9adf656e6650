"""Every error of the API in one shape, which never repeats what was sent."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Final, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from bridgepool.gateway.control._errors import (
    CommitUnknownError,
    ConflictError,
    InvalidChangeError,
    NameTakenError,
    NotFoundError,
    StoreError,
    StoreUnavailableError,
)

logger = logging.getLogger("bridgepool.control.api")

RETRY_AFTER: Final = "2"
_CODES: Final[Mapping[type[StoreError], str]] = {
    NotFoundError: "not_found",
    NameTakenError: "name_taken",
    ConflictError: "conflict",
    InvalidChangeError: "invalid",
    StoreUnavailableError: "store_unavailable",
    CommitUnknownError: "commit_unknown",
}
_HTTP_CODES: Final = {
    400: ("bad_request", "the request cannot be read; a body is to be JSON"),
    404: ("not_found", "there is no such route"),
    405: ("method_not_allowed", "the route has other methods; see Allow"),
}
# What pydantic says of these holds a part of the value.
_WORDS: Final = {
    "extra_forbidden": "an unknown field",
    "json_invalid": "is no JSON",
    "missing": "is missing",
}


class ErrorFacts(BaseModel):
    """What is wrong."""

    code: str
    message: str
    problems: list[str] | None = None


class ErrorBody(BaseModel):
    """The body of every answer that is not 2xx."""

    error: ErrorFacts


def error_content(
    code: str, message: str, problems: Sequence[str] | None = None
) -> dict[str, object]:
    """Make the body of an error."""
    facts: dict[str, object] = {"code": code, "message": message}
    if problems is not None:
        facts["problems"] = list(problems)
    return {"error": facts}


def error_answer(
    status: int,
    code: str,
    message: str,
    problems: Sequence[str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Make an answer that tells of an error."""
    fields = dict(headers or {})
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        fields["Retry-After"] = RETRY_AFTER
    return JSONResponse(error_content(code, message, problems), status, fields)


def store_answer(error: StoreError) -> JSONResponse:
    """Tell of what the store refused, or that it is away."""
    code = next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), None)
    if code is None:  # the encryption keys, the schema: for the operator, not for the caller
        logger.error("the store cannot be used: %s", error)
        return error_answer(500, "internal", "the store cannot be used; see the log")
    if isinstance(error, InvalidChangeError):
        return error_answer(422, code, "the change breaks a rule", error.problems)
    return error_answer(error.status_hint or 500, code, _message(error))


def _message(error: StoreError) -> str:
    """Say what is the matter, without the names, which were sent."""
    if isinstance(error, NotFoundError):
        return f"there is no such {error.kind}"
    if isinstance(error, NameTakenError):
        return f"the name is taken by another {error.kind}"
    if isinstance(error, ConflictError):
        return f"the {error.kind} has changed since (revision {error.actual}): read it again"
    return str(error)


def failure_answer() -> JSONResponse:
    """Tell of a fault of ours."""
    return error_answer(500, "internal", "the control plane failed; see its log")


def install(app: FastAPI, fields: Iterable[str]) -> None:
    """Have an application answer every error in our shape.

    Args:
        app: The application.
        fields: The names of all fields that there are; others are not repeated.
    """
    known = frozenset(fields)

    # Not sync, though nothing is awaited: Starlette would run them in threads.
    async def invalid(request: Request, error: Exception) -> JSONResponse:  # noqa: ASYNC124
        found = cast("RequestValidationError", error).errors()
        if any(one["type"] == "json_invalid" for one in found):
            return error_answer(400, *_HTTP_CODES[400])
        problems = [_problem(one["loc"], one["type"], one["msg"], known) for one in found]
        return error_answer(422, "invalid", "the request breaks a rule", problems)

    async def refused(request: Request, error: Exception) -> JSONResponse:  # noqa: ASYNC124
        refusal = cast("HTTPException", error)
        status = refusal.status_code
        fallback = ("bad_request", HTTPStatus(status).phrase.lower())
        code, message = _HTTP_CODES.get(status, fallback)
        headers = dict(refusal.headers or {})
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(_methods(app, request.scope["path"]))
        return error_answer(status, code, message, headers=headers)

    async def stored(request: Request, error: Exception) -> JSONResponse:  # noqa: ASYNC124
        return store_answer(cast("StoreError", error))

    async def failed(request: Request, error: Exception) -> JSONResponse:  # noqa: ASYNC124
        return failure_answer()  # the guard gets the error, too, and logs it

    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(StoreError, stored)
    app.add_exception_handler(Exception, failed)


def _methods(app: FastAPI, path: str) -> list[str]:
    """Return what a path can be asked; the router names the methods of its first route only."""
    found: set[str] = set()
    for described, methods in app.openapi()["paths"].items():
        if compile_path(described)[0].match(path):
            found |= {method.upper() for method in methods}
    return sorted(found) or ["GET"]  # the description is not in itself


def _problem(where: Sequence[int | str], kind: str, message: str, known: frozenset[str]) -> str:
    # The first says body, query or path. A name that is none of ours may be a secret that was
    # put in the wrong place.
    path = [str(part) if isinstance(part, int) or part in known else "…" for part in where[1:]]
    said = _WORDS.get(kind)
    if said is None:
        said = message.removeprefix("Value error, ")
        said = said[:1].lower() + said[1:]
    return f"{'.'.join(path) or where[0]}: {said}"
