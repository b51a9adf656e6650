"""What the routes of the API have in common: parameters, error descriptions, the two sources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeAlias

import attrs
from fastapi import APIRouter, Depends, Path, Query, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.params import Depends as Dependency
from fastapi.security import HTTPBearer
from pydantic import AfterValidator

from bridgepool.gateway.control._hub import Hub
from bridgepool.gateway.control._records import Actor
from bridgepool.gateway.control.api._bodies import MAX_INTEGER, NAME_PATTERN, sound_text
from bridgepool.gateway.control.api._errors import ErrorBody
from bridgepool.gateway.control.api._guard import actor_of
from bridgepool.gateway.control.store import Store

PathName: TypeAlias = Annotated[
    str,
    Path(min_length=1, max_length=256, json_schema_extra={"pattern": NAME_PATTERN}),
    AfterValidator(sound_text),
]
IfRevision: TypeAlias = Annotated[
    int | None,
    Query(ge=0, le=MAX_INTEGER, description="Only if the row is still at this revision."),
]
Who: TypeAlias = Annotated[Actor, Depends(actor_of)]

QUERY_NAMES: Final = frozenset(
    {
        *("name", "client_id", "key_id", "key", "revision"),  # in paths
        *("if_revision", "revoked", "wait", "limit", "before"),
    }
)
"""The names of everything in paths and queries."""
_BEARER: Final = HTTPBearer(
    auto_error=False, scheme_name="adminKey", description="An admin key, bpa_…"
)
_ERRORS: Final[Mapping[int, str]] = {
    400: "The request cannot be read.",
    401: "No admin key, or one that is unknown or revoked.",
    404: "There is nothing of that name or id.",
    422: "A field, a query or the change as a whole breaks a rule.",
    503: "The database is away.",
}
_WRITE_ERRORS: Final[Mapping[int, str]] = {
    403: "The key may read only.",
    408: "The body did not come.",
    409: "The name is taken, or the row has changed.",
    413: "The body is too large.",
    415: "The body is not said to be JSON.",
}


@attrs.frozen
class Sources:
    """What the API shows and changes."""

    store: Store
    hub: Hub


def errors(*more: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    """Describe the errors of a route."""
    described: dict[int | str, dict[str, Any]] = {}
    for table in more:
        described |= {
            status: {"model": ErrorBody, "description": text} for status, text in table.items()
        }
    return described


READS: Final = errors(_ERRORS)
"""The errors of a route that reads."""
WRITES: Final = errors(_ERRORS, _WRITE_ERRORS)
"""The errors of a route that writes."""


def queries(*names: str) -> Dependency:
    """Refuse queries other than these."""

    async def check(request: Request) -> None:  # noqa: ASYNC124  # sync ones run in threads
        if any(name not in names for name in request.query_params):
            raise RequestValidationError(
                [{"type": "extra_forbidden", "loc": ("query",), "msg": "", "input": None}]
            )

    return Dependency(check)


def new_router() -> APIRouter:
    """Make a router whose routes need an admin key, which the guard has seen already."""
    return APIRouter(prefix="/api/v1", dependencies=[Security(_BEARER)])
