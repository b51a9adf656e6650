"""The parameters of operations: what they may be, read from a request and written into one. Pure.

What is wrong with a request is told field by field and never repeats a value, nor a name that is
none of ours: it may be a secret that was put in the wrong place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias, get_args, get_origin
from urllib.parse import quote

import attrs
import msgspec
from msgspec import Meta

from bridgepool.gateway.control._errors import InvalidChangeError
from bridgepool.gateway.control.operations._operation import (
    REQUIRED,
    Operation,
    Parameter,
    Place,
)

MAX_INTEGER: Final = (1 << 63) - 1
MAX_TEXT: Final = 8192
"""Characters of any text in a request."""
NAME_PATTERN: Final = "^[A-Za-z0-9._@-]+$"
"""What every name and id is made of."""

PathName: TypeAlias = Annotated[
    str, Meta(min_length=1, max_length=256, extra_json_schema={"pattern": NAME_PATTERN})
]
# The store checks the patterns, and says what a name may be.
NewName: TypeAlias = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=64,
        extra_json_schema={"pattern": "^[A-Za-z0-9]([A-Za-z0-9._@-]*[A-Za-z0-9])?$"},
    ),
]
Number: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_INTEGER)]
IfRevision: TypeAlias = Annotated[
    Annotated[
        int,
        Meta(ge=0, le=MAX_INTEGER, description="Only if the row is still at this revision."),
    ]
    | None,
    Place.QUERY,
]

_WHERE: Final = re.compile(r" - at `\$(.*)`$")


@attrs.frozen
class Request:
    """What an operation is asked by, over HTTP."""

    path: str
    query: Mapping[str, str]
    body: Mapping[str, object] | None


def write_request(operation: Operation[..., Any], arguments: Mapping[str, object]) -> Request:
    """Write the request of an operation, secrets included."""
    path: str = operation.path
    query: dict[str, str] = {}
    fields: dict[str, object] = {}
    whole: Any = None
    for parameter in operation.parameters:
        value = arguments.get(parameter.name)
        if parameter.name not in arguments or value == parameter.default:
            continue
        if parameter.place is Place.PATH:
            path = path.replace(f"{{{parameter.name}}}", quote(str(value), safe=""))
        elif parameter.place is Place.QUERY:
            query[parameter.name] = value if isinstance(value, str) else json.dumps(value)
        else:
            written = (
                parameter.document.write(value)
                if parameter.document is not None
                else msgspec.to_builtins(value)
            )
            if parameter.place is Place.BODY:
                whole = written
            else:
                fields[parameter.name] = written
    has_body = any(one.place is Place.FIELD for one in operation.parameters)
    return Request(path, query, fields if has_body else whole)


def read_request(
    operation: Operation[..., Any],
    path: Mapping[str, str],
    query: Mapping[str, str],
    body: object,
) -> dict[str, object]:
    """Read the arguments of an operation out of a request.

    Args:
        operation: Which.
        path: What stands in the places of the names in its path.
        query: As sent.
        body: As sent, parsed; `REQUIRED` if there was none.

    Raises:
        InvalidChangeError: With everything that is wrong.
    """
    problems: list[str] = []
    arguments: dict[str, object] = {}
    places = {parameter.name: parameter.place for parameter in operation.parameters}
    if any(places.get(name) is not Place.QUERY for name in query):
        problems.append("query: an unknown field")
    fields: Mapping[str, object] = {}
    if Place.FIELD in places.values():
        if body is REQUIRED:
            problems.append("body: is missing")
        elif not isinstance(body, dict):
            problems.append("body: is not an object")
        else:
            fields = body
            if any(places.get(name) is not Place.FIELD for name in fields):
                problems.append("…: an unknown field")
    given = {Place.PATH: path, Place.QUERY: query, Place.FIELD: fields}
    for parameter in operation.parameters:
        value = (
            body
            if parameter.place is Place.BODY
            else given[parameter.place].get(parameter.name, REQUIRED)
        )
        if value is REQUIRED:
            if parameter.default is not REQUIRED:
                continue
            if parameter.place is not Place.FIELD or body is not REQUIRED:
                name = "body" if parameter.place is Place.BODY else parameter.name
                problems.append(f"{name}: is missing")
            continue
        try:
            arguments[parameter.name] = _read(parameter, value)
        except InvalidChangeError as error:
            problems += error.problems
    if problems:
        raise InvalidChangeError(*problems)
    return arguments


def _read(parameter: Parameter, value: object) -> object:
    name = "body" if parameter.place is Place.BODY else parameter.name
    for text in _texts(value):
        if not text.isprintable():
            raise InvalidChangeError(f"{name}: has a character that cannot be printed")
        if len(text) > MAX_TEXT:
            raise InvalidChangeError(f"{name}: is longer than {MAX_TEXT} characters")
    if parameter.document is not None:
        return parameter.document.read(value)
    strict = parameter.place not in (Place.PATH, Place.QUERY)
    try:
        return msgspec.convert(value, parameter.kind, strict=strict)
    except msgspec.ValidationError as error:
        raise InvalidChangeError(_problem(name, parameter.kind, str(error))) from None


def _texts(value: object) -> Iterator[str]:
    left = [value]  # a document may be nested deeper than calls may be
    while left:
        one = left.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            left += (*one, *one.values())
        elif isinstance(one, list):
            left += one


def _problem(name: str, kind: Any, message: str) -> str:
    where = _WHERE.search(message)
    if where is not None:
        name += where.group(1).replace("[", ".").replace("]", "")
        message = message[: where.start()]
    if message.startswith("Expected "):  # types and limits; the other messages quote the value
        return f"{name}: e{message[1:]}"
    allowed = [str(one) for one in get_args(kind)] if get_origin(kind) is Literal else []
    return f"{name}: is not one of {', '.join(allowed)}" if allowed else f"{name}: cannot be used"
