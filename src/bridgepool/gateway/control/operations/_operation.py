"""An operation: one thing that an administrator can do on a control plane, declared once.

An operation is a function on a `Context`, with a method and a path. Its
signature, annotations and docstring say what a request carries, what the response is and how the
route is described. So one declaration makes the route of the API, its OpenAPI description, the call
of the API's client, and the same call on a store that this process has opened.

A parameter that the path names is part of the path. Other parameters are queries of GET and DELETE,
and fields of the JSON body of other methods, unless a `Place` in the annotation says otherwise.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping
from enum import Enum
from types import NoneType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Concatenate,
    Final,
    Generic,
    ParamSpec,
    Protocol,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

import attrs

from bridgepool.gateway.control._applied import AppliedReport, Expected
from bridgepool.gateway.control._gateway_session import GatewaySession
from bridgepool.gateway.control._records import Actor

if TYPE_CHECKING:  # a client of the API needs no store
    from bridgepool.gateway.control.store import Store

P = ParamSpec("P")
T = TypeVar("T")

API_VERSION: Final = "v1"
PREFIX: Final = f"/api/{API_VERSION}"
API_HEADER: Final = "x-bridgepool-api"
"""The header of all responses of the API: its version. No proxy or other program sends it."""
NO_ROUTE: Final = "no-route"
"""The value of `API_HEADER` for a path that is not one of the API."""
REQUIRED: Final = inspect.Parameter.empty


class Gateways(Protocol):
    """What is known of the gateways. A `Hub` knows it at once, a store a little later."""

    async def gateways(self) -> tuple[GatewaySession, ...]:
        """Return what is known of all gateways, whichever control plane they are connected to."""
        ...

    async def wait_applied(self, revision: int, wait: float, expected: Expected) -> AppliedReport:
        """Wait until the report on a revision is complete, for at most `wait` seconds."""
        ...


@attrs.frozen
class Context:
    """What an operation works on, and who asks for it."""

    store: Store
    gateways: Gateways
    actor: Actor
    """For the audit."""


class Place(Enum):
    """Where a request carries a parameter."""

    PATH = "path"
    QUERY = "query"
    FIELD = "field"
    """A field of the JSON body."""
    BODY = "body"
    """The whole JSON body."""


@attrs.frozen(eq=False)
class Document:
    """How a parameter is written in JSON, if msgspec cannot derive that from its type."""

    read: Callable[[object], object]
    """Raises `InvalidChangeError`."""
    write: Callable[[Any], object]
    schema: Mapping[str, object]


@attrs.frozen(eq=False)
class Parameter:
    """One parameter of an operation."""

    name: str
    kind: Any
    """Its type as annotated; without None for a query, which cannot be null."""
    place: Place
    default: object
    """`REQUIRED` if it has none."""
    document: Document | None


@attrs.frozen(eq=False)
class Operation(Generic[P, T]):
    """One thing that can be done on a control plane; made by `operation`."""

    name: str
    method: str
    path: str
    """Without `PREFIX`; names of parameters in braces."""
    status: int
    """The status code of the response."""
    shows_key: bool
    """Whether the response contains a key that was just made and is never shown again."""
    description: str
    parameters: tuple[Parameter, ...]
    answer: Any
    """The type that it returns, a frozen attrs class."""
    _function: Callable[Concatenate[Context, P], Awaitable[T]]

    async def carry_out(self, context: Context, *args: P.args, **kwargs: P.kwargs) -> T:
        """Carry it out. A checkpoint."""
        return await self._function(context, *args, **kwargs)

    def arguments(self, *args: P.args, **kwargs: P.kwargs) -> dict[str, object]:
        """Return the arguments of a call by name, without those that have their default."""
        names = [parameter.name for parameter in self.parameters]
        return dict(zip(names, args, strict=False)) | kwargs


class Admin(Protocol):
    """A way to a control plane, on which operations are carried out."""

    async def do(self, operation: Operation[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Carry out an operation. A checkpoint.

        Raises:
            BridgePoolError: It was refused, or the control plane cannot be reached.
        """
        ...


def operation(
    method: str, path: str, *, status: int = 200, shows_key: bool = False
) -> Callable[[Callable[Concatenate[Context, P], Awaitable[T]]], Operation[P, T]]:
    """Make an operation of a function on a `Context`.

    Args:
        method: The HTTP method. GET requires the role ``read``, all others the role ``write``.
        path: Without `PREFIX`, such as ``/clients/{client_id}``.
        status: The status code of the response.
        shows_key: The response contains a key that was just made; else secrets in it are masked.
    """

    def make(function: Callable[Concatenate[Context, P], Awaitable[T]]) -> Operation[P, T]:
        return Operation(
            name=function.__name__,
            method=method,
            path=path,
            status=status,
            shows_key=shows_key,
            description=inspect.getdoc(function) or "",
            parameters=tuple(_parameter(*one, method, path) for one in _declared(function)),
            answer=get_type_hints(function, include_extras=True)["return"],
            function=function,
        )

    return make


def _declared(function: Callable[..., object]) -> Iterator[tuple[inspect.Parameter, Any]]:
    """Yield parameters with their types; for keywords of a typed dict, those, with None."""
    hints = get_type_hints(function, include_extras=True)
    _, *parameters = inspect.signature(function).parameters.values()
    for one in parameters:
        if one.kind is not one.VAR_KEYWORD:
            yield one, hints[one.name]
            continue
        [keywords] = get_args(hints[one.name])
        for name, kind in get_type_hints(keywords, include_extras=True).items():
            yield inspect.Parameter(name, one.KEYWORD_ONLY, default=None), kind


def _parameter(declared: inspect.Parameter, kind: Any, method: str, path: str) -> Parameter:
    marks = getattr(kind, "__metadata__", ())
    place = next((mark for mark in marks if isinstance(mark, Place)), None)
    if f"{{{declared.name}}}" in path:
        place = Place.PATH
    elif place is None:
        place = Place.QUERY if method in ("GET", "DELETE") else Place.FIELD
    if place is Place.QUERY:
        kind = _without_none(kind)
    document = next((mark for mark in marks if isinstance(mark, Document)), None)
    return Parameter(declared.name, kind, place, declared.default, document)


def _without_none(kind: Any) -> Any:
    inner = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    kinds = get_args(inner)
    return next(one for one in kinds if one is not NoneType) if NoneType in kinds else kind
