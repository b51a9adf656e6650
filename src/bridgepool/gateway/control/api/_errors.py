"""The responses of the API. Errors have one shape and never repeat what was sent."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Final

import attrs
import msgspec

from bridgepool._secret import Secret
from bridgepool.gateway.control._errors import (
    CommitUnknownError,
    ConflictError,
    InvalidChangeError,
    NameTakenError,
    NotFoundError,
    NotWritableError,
    StoreError,
    StoreUnavailableError,
)
from bridgepool.gateway.control.operations._operation import API_HEADER, API_VERSION
from bridgepool.gateway.control.operations._requests import ApiError, ApiErrorBody
from bridgepool.http import Exchange, Headers

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


@attrs.frozen
class ApiResponse:
    """A response in JSON."""

    status: int
    content: bytes
    headers: Mapping[str, str] = attrs.field(factory=dict)
    code: str = ""
    """Of the error; empty if it is none."""
    revision: int | None = None
    """The revision in it."""

    def fields(self, request_id: str | None = None) -> Headers:
        """Return the fields of its head."""
        fields = {"content-type": "application/json", API_HEADER: API_VERSION, **self.headers}
        if request_id is not None:
            fields["x-request-id"] = request_id
        return tuple((name.lower().encode(), text.encode()) for name, text in fields.items())

    async def send(self, exchange: Exchange, request_id: str) -> None:
        """Send it as the response of an exchange."""
        await exchange.answer(self.status, self.fields(request_id), self.content)


def json_response(status: int, answer: object, *, shows_key: bool = False) -> ApiResponse:
    """Make a response of a record.

    Args:
        status: The status code.
        answer: A frozen attrs class, or anything that msgspec encodes.
        shows_key: Whether a `Secret` in it is to be shown; else it is masked.
    """

    def encode(value: object) -> object:
        if isinstance(value, Secret):
            return value.reveal() if shows_key else "***"
        if isinstance(value, Mapping):  # msgspec encodes dicts only
            return dict(value)
        raise TypeError(f"{type(value).__name__} is not written as JSON")

    content = msgspec.json.encode(answer, enc_hook=encode)
    return ApiResponse(status, content, revision=getattr(answer, "revision", None))


def error_response(
    status: int,
    code: str,
    message: str,
    problems: Sequence[str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> ApiResponse:
    """Make the response of an error."""
    listed = msgspec.UNSET if problems is None else tuple(problems)
    fields = dict(headers or {})
    if status == 503:
        fields["Retry-After"] = RETRY_AFTER
    body = ApiErrorBody(ApiError(code, message, listed))
    return ApiResponse(status, msgspec.json.encode(body), fields, code)


def store_response(error: StoreError) -> ApiResponse:
    """Make the response of an error of the store."""
    code = next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), None)
    if code is None:  # the encryption keys, the schema: for the operator, not for the caller
        logger.error("store cannot be used: %s", error)
        return error_response(500, "internal", "the store cannot be used; see the log")
    if isinstance(error, InvalidChangeError):
        return error_response(422, code, "the request breaks a rule", error.problems)
    return error_response(error.status_hint or 500, code, _message(error))


def _message(error: StoreError) -> str:
    """Say what is wrong, without the names, which were sent."""
    if isinstance(error, NotFoundError):
        return f"there is no such {error.kind}"
    if isinstance(error, NameTakenError):
        return f"the name is taken by another {error.kind}"
    if isinstance(error, ConflictError):
        return f"the {error.kind} was changed at revision {error.actual}: read it again"
    if isinstance(error, CommitUnknownError):
        return str(error)
    # Without the reason, which names the database; it is asked for before a key is checked.
    lost = "written" if isinstance(error, NotWritableError) else "used"
    return f"the store cannot be {lost}; the log of the control plane has the reason"
