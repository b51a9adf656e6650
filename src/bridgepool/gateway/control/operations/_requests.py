"""How the API carries operations: the types of parameters, requests, errors. Pure.

Problems of a request are reported field by field. They never repeat a value, nor an unknown name,
which may be a secret in the wrong place.
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
from bridgepool.gateway.control._records import NAME_PATTERN
from bridgepool.gateway.control.operations._operation import REQUIRED, Operation, Parameter, Place
from bridgepool.gateway.providers._clients import ID_PATTERN
from bridgepool.gateway.providers._plain_fields import TEXTS, PlainField

MAX_INTEGER: Final = (1 << 63) - 1
MAX_TEXT: Final = 8192
"""The most characters of a text in a request."""
NAME_CHARACTERS: Final = "letters, digits and . _ @ -"

PathName: TypeAlias = Annotated[
    str, Meta(min_length=1, max_length=256, extra_json_schema={"pattern": NAME_PATTERN})
]
# The store checks the pattern, with a message that says what a name may be.
NewName: TypeAlias = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=64,
        extra_json_schema={"pattern": f"^{ID_PATTERN}$"},
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
AllowEmpty: TypeAlias = Annotated[
    bool,
    Place.QUERY,
    Meta(description="It may be the last enabled provider: no request would be served."),
]

_JSON_TYPES: Final = {str: "string", bool: "boolean", int: "integer", float: "number"}
_TYPES: Final = {
    "str": "a string", "bool": "true or false", "int": "an integer", "float": "a number",
    "array": "a list",
}  # fmt: skip
# What `msgspec` says: a type, and its bounds or the pattern, which is always that of names.
_EXPECTED: Final = re.compile(r"Expected `([^`]+)`(?:( of length)? ([<>]=) ([0-9.]+)|(, .+| m.+))")
_WHERE: Final = re.compile(r" - at `\$(.*)`$")


@attrs.frozen
class RequestParts:
    """The variable parts of a request."""

    path: str
    query: Mapping[str, str]
    body: Mapping[str, object] | None


@attrs.frozen
class ApiError:
    """What is wrong with a request."""

    code: str
    message: str
    problems: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    """Field by field, with the code ``invalid`` only."""


@attrs.frozen
class ApiErrorBody:
    """The body of every response that is not 2xx."""

    error: ApiError


def plain_schema(field: PlainField) -> dict[str, object]:
    """Return the JSON schema of a plain field."""
    listed = field.kind == TEXTS
    if field.kind is bool and field.choices:
        return {"enum": [False, True, *field.choices], "description": field.help}
    schema: dict[str, object] = {"type": "string" if listed else _JSON_TYPES[field.kind]}
    bounds = {
        "pattern": f"^{field.pattern}$" if field.pattern is not None else None,
        "maxLength": field.max_length,
        "minimum": field.minimum,
        "maximum": field.maximum,
        "enum": list(field.choices) or None,
        "format": "date-time" if field.is_time else None,
    }
    schema |= {name: bound for name, bound in bounds.items() if bound is not None}
    if listed:
        schema = {"type": "array", "items": schema}
    if field.optional:
        schema = {"anyOf": [schema, {"type": "null"}]}
    return {**schema, "description": field.help}


def write_request(operation: Operation[..., Any], arguments: Mapping[str, object]) -> RequestParts:
    """Write the request of an operation. It contains the secrets."""
    path: str = operation.path
    query: dict[str, str] = {}
    fields: dict[str, object] = {}
    body: Any = fields if any(one.place is Place.FIELD for one in operation.parameters) else None
    for parameter in operation.parameters:
        name, place = parameter.name, parameter.place
        if name not in arguments or arguments[name] == parameter.default:
            continue
        value = arguments[name]
        if place is Place.PATH:
            path = path.replace(f"{{{name}}}", quote(str(value), safe=""))
        elif place is Place.QUERY:
            query[name] = value if isinstance(value, str) else json.dumps(value)
        else:
            write = parameter.document.write if parameter.document else msgspec.to_builtins
            fields[name] = write(value)
            if place is Place.BODY:
                body = fields[name]
    return RequestParts(path, query, body)


def read_request(
    operation: Operation[..., Any],
    path: Mapping[str, str],
    query: Mapping[str, str],
    body: object,
) -> dict[str, object]:
    """Read the arguments of an operation from a request.

    Args:
        operation: The operation.
        path: The path parameters.
        query: The queries.
        body: The parsed body; `REQUIRED` if there was none.

    Raises:
        InvalidChangeError: With all problems of the request.
    """
    places = {parameter.name: parameter.place for parameter in operation.parameters}
    carried: dict[Place, Mapping[str, object]] = {Place.PATH: path, Place.QUERY: query}
    problems: list[str] = []
    if Place.BODY in places.values():
        [name] = [name for name, place in places.items() if place is Place.BODY]
        carried[Place.BODY] = {} if body is REQUIRED else {name: body}
    elif Place.FIELD in places.values():
        if isinstance(body, dict):
            carried[Place.FIELD] = body
        elif body is REQUIRED and not needs_body(operation):
            carried[Place.FIELD] = {}
        else:
            problems.append(f"body: {'is missing' if body is REQUIRED else 'is not an object'}")
    for place, where in ((Place.QUERY, "query"), (Place.FIELD, "…")):
        if any(places.get(name) is not place for name in carried.get(place, ())):
            problems.append(f"{where}: an unknown field")
    arguments: dict[str, object] = {}
    for parameter in operation.parameters:
        if parameter.place not in carried:
            continue
        fields = carried[parameter.place]
        if parameter.name in fields:
            try:
                arguments[parameter.name] = _read(parameter, fields[parameter.name])
            except InvalidChangeError as error:
                problems += error.problems
        elif parameter.default is REQUIRED:
            problems.append(f"{_label(parameter)}: is missing")
    if problems:
        raise InvalidChangeError(*problems)
    return arguments


def _read(parameter: Parameter, value: object) -> object:
    name = _label(parameter)
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


def needs_body(operation: Operation[..., Any]) -> bool:
    """Return whether a request of an operation has a body in any case."""
    return any(
        one.place is Place.BODY or (one.place is Place.FIELD and one.default is REQUIRED)
        for one in operation.parameters
    )


def _label(parameter: Parameter) -> str:
    return "body" if parameter.place is Place.BODY else parameter.name


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
    found = _EXPECTED.fullmatch(message)
    if found is not None:  # a type or a limit; other messages quote the value
        return f"{name}: {_in_words(found)}"
    allowed = [str(one) for one in get_args(kind)] if get_origin(kind) is Literal else []
    return f"{name}: is not one of {', '.join(allowed)}" if allowed else f"{name}: cannot be used"


def _in_words(found: re.Match[str]) -> str:
    """Say which type or limit of `msgspec` a value does not fit."""
    kind, length, bound, number, rest = found.groups()
    if number is None:
        if rest.startswith(" matching regex"):
            return f"is not made of {NAME_CHARACTERS}"
        return f"is not {' or '.join(_TYPES.get(one, one) for one in kind.split(' | '))}"
    if not length:
        return f"is {'less' if bound == '>=' else 'more'} than {number}"
    if (bound, number) == (">=", "1"):
        return "is empty"
    things = "characters" if kind == "str" else "items"
    return f"has {'fewer' if bound == '>=' else 'more'} than {number} {things}"
