"""The description of the API for programs (OpenAPI 3.1), made of the operations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final, Literal, TypeAlias

import attrs
import msgspec

from bridgepool._secret import Secret
from bridgepool._version import __version__
from bridgepool.gateway.control.operations import OPERATIONS, Operation
from bridgepool.gateway.control.operations._operation import PREFIX, REQUIRED, Parameter, Place
from bridgepool.gateway.control.operations._requests import ApiError, ApiErrorBody, needs_body

_ERRORS: Final = {
    400: "The request cannot be read.",
    401: "The admin key is missing, unknown or revoked.",
    404: "The name or id does not exist.",
    414: "The target is longer than 8192 bytes.",
    422: "A field, a query or the change as a whole breaks a rule.",
    431: "The head has more than 128 fields, or more than 64 KiB.",
    503: "The database is unavailable.",
}
_WRITE_ERRORS: Final = {
    403: "The role of the key is `read`.",
    408: "The body did not arrive in time.",
    409: "The name is in use, or the row has changed.",
    413: "The body is too large.",
    415: "The content type of the body is not JSON.",
}
_REFERENCES: Final = "#/components/schemas/{name}"


@attrs.frozen
class Health:
    """The process runs."""

    status: Literal["ok"] = "ok"


Access: TypeAlias = Literal["ok", "failed"]


@attrs.frozen
class StoreReadiness:
    """How the store can be used."""

    read: Access
    write: Access


@attrs.frozen
class Readiness:
    """The control plane is ready."""

    revision: int
    unreadable: int
    """How many providers the control plane cannot decrypt."""
    store: StoreReadiness
    log_lines_dropped: int = 0
    """Lines of logs that were dropped since the start of the process."""
    status: Literal["ready"] = "ready"


@attrs.frozen
class Unreadiness:
    """The control plane is not ready."""

    error: ApiError
    store: StoreReadiness


@cache
def describe() -> bytes:
    """Describe the API, in JSON."""
    answers = [Health, Readiness, Unreadiness, ApiErrorBody, *(one.answer for one in OPERATIONS)]
    schemas, components = msgspec.json.schema_components(
        dict.fromkeys(answers), schema_hook=_secret_schema, ref_template=_REFERENCES
    )
    named = dict(zip(dict.fromkeys(answers), schemas, strict=True))
    paths: dict[str, dict[str, object]] = {
        "/healthz": {"get": _public("healthz", "Report that the process runs.", named[Health])},
        "/readyz": {
            "get": _public(
                "readyz",
                "Report whether the control plane can serve reads and changes.",
                named[Readiness],
                {503: "It is not ready."},
                named[Unreadiness],
            )
        },
    }
    for operation in OPERATIONS:
        route = paths.setdefault(PREFIX + operation.path, {})
        route[operation.method.lower()] = _describe(operation, named)
    described = {
        "openapi": "3.1.0",
        "info": {
            "title": "bridgepool control plane",
            "version": __version__,
            "description": "Providers, clients and keys; and what each gateway makes of a change.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "adminKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An admin key, bpa_…",
                }
            },
        },
    }
    # The API has clients and providers, not views of them.
    return msgspec.json.encode(described).replace(b'View"', b'"')


def _describe(operation: Operation[..., object], named: Mapping[Any, object]) -> dict[str, object]:
    errors = _ERRORS if operation.method == "GET" else _ERRORS | _WRITE_ERRORS
    role = "read" if operation.method == "GET" else "write"
    described: dict[str, object] = {
        "operationId": operation.name,
        "summary": operation.description.partition("\n")[0],
        "description": f"Needs an admin key with the role `{role}`.",
        "security": [{"adminKey": []}],
        "parameters": [
            {
                "name": one.name,
                "in": one.place.value,
                "required": one.default is REQUIRED,
                "schema": _schema(one),
            }
            for one in operation.parameters
            if one.place in (Place.PATH, Place.QUERY)
        ],
        "responses": _responses(
            operation.status, named[operation.answer], errors, named[ApiErrorBody]
        ),
    }
    body = _body(operation.parameters)
    if body is not None:
        described["requestBody"] = {
            "required": needs_body(operation),
            "content": {"application/json": {"schema": body}},
        }
    return described


def _public(
    name: str,
    summary: str,
    answer: object,
    errors: Mapping[int, str] | None = None,
    error: object = None,
) -> dict[str, object]:
    responses = _responses(200, answer, errors or {}, error)
    return {"operationId": name, "summary": summary, "responses": responses}


def _responses(
    status: int, answer: object, errors: Mapping[int, str], error: object
) -> dict[str, object]:
    answers = {status: ("Done.", answer)} | {code: (text, error) for code, text in errors.items()}
    return {
        str(code): {"description": text, "content": {"application/json": {"schema": schema}}}
        for code, (text, schema) in answers.items()
    }


def _body(parameters: Iterable[Parameter]) -> object | None:
    fields = {one.name: one for one in parameters if one.place is Place.FIELD}
    whole = next((one for one in parameters if one.place is Place.BODY), None)
    if whole is not None:
        return _schema(whole)
    if not fields:
        return None
    return {
        "type": "object",
        "properties": {name: _schema(one) for name, one in fields.items()},
        "required": [name for name, one in fields.items() if one.default is REQUIRED],
        "additionalProperties": False,
    }


def _schema(parameter: Parameter) -> Mapping[str, object]:
    if parameter.document is not None:
        return parameter.document.schema
    schema = msgspec.json.schema(parameter.kind)
    has_default = parameter.default not in (REQUIRED, None)
    return schema | {"default": parameter.default} if has_default else schema


def _secret_schema(kind: type) -> dict[str, object]:
    return {"type": "string"} if kind is Secret else {"description": "Any value."}
