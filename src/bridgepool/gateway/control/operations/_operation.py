"""An operation: one thing that an administrator can ask of a control plane, declared once.

An operation is a function on a `Context`, with a method and a path. What a request carries, what
it is answered with and how it is described follow from the function's signature, its annotations
and its docstring. So one declaration makes the route of the API, its description, the call of a
client of the API, and the same call on a store that this process has opened.

A parameter comes from the path if the path names it. Else it is a query of a GET or DELETE, or a
field of the JSON body of the others; `Place` in its annotation says otherwise.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
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

from bridgepool.gateway.control._applied import AppliedReport
from bridgepool.gateway.control._records import Actor, GatewaySession

if TYPE_CHECKING:  # a client of the API needs no store
    from bridgepool.gateway.control.store import Store

P = ParamSpec("P")
T = TypeVar("T")

PREFIX: Final = "/api/v1"
REQUIRED: Final = inspect.Parameter.empty


class Gateways(Protocol):
    """What is known of the gateways; a `Hub` knows it at once, a store a little later."""

    async def gateways(self) -> tuple[GatewaySession, ...]:
        """Return what is known of all gateways, whichever control plane they are connected to."""
        ...

    async def wait_applied(self, revision: int, wait: float) -> AppliedReport:
        """Wait until no connected gateway is pending, for at most `wait` seconds."""
        ...


@attrs.frozen
class Context:
    """What an operation works on, and for whom."""

    store: Store
    gateways: Gateways
    actor: Actor
    """Who asks for it."""


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
    """How a parameter is written in JSON, where its type alone does not say it."""

    read: Callable[[object], object]
    """Raises `InvalidChangeError`."""
    write: Callable[[Any], object]
    schema: Mapping[str, object]


@attrs.frozen(eq=False)
class Parameter:
    """One parameter of an operation."""

    name: str
    kind: Any
    """Its type as annotated; of a query without None, which no query can be."""
    place: Place
    default: object
    """`REQUIRED` if it has none."""
    document: Document | None


@attrs.frozen(eq=False)
class Operation(Generic[P, T]):
    """What can be asked of a control plane; made by `operation`."""

    name: str
    method: str
    path: str
    """Without `PREFIX`; names of parameters in braces."""
    status: int
    """Of the answer."""
    shows_key: bool
    """Whether the answer holds a key that was made just now, and that is never shown again."""
    description: str
    parameters: tuple[Parameter, ...]
    answer: Any
    """The type of what it returns, a frozen attrs class."""
    _function: Callable[Concatenate[Context, P], Awaitable[T]]

    async def carry_out(self, context: Context, *args: P.args, **kwargs: P.kwargs) -> T:
        """Do it. A checkpoint."""
        return await self._function(context, *args, **kwargs)

    def arguments(self, *args: P.args, **kwargs: P.kwargs) -> dict[str, object]:
        """Return the arguments of a call by name, without those that were left out."""
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
        method: Of the request. GET needs an admin key that may read, all others one that may write.
        path: Without `PREFIX`, such as ``/clients/{client_id}``.
        status: Of the answer.
        shows_key: The answer holds a key that was made just now; else secrets are masked in it.
    """

    def make(function: Callable[Concatenate[Context, P], Awaitable[T]]) -> Operation[P, T]:
        hints = get_type_hints(function, include_extras=True)
        _, *parameters = inspect.signature(function).parameters.values()
        return Operation(
            name=function.__name__,
            method=method,
            path=path,
            status=status,
            shows_key=shows_key,
            description=inspect.getdoc(function) or "",
            parameters=tuple(_parameter(one, hints[one.name], method, path) for one in parameters),
            answer=hints["return"],
            function=function,
        )

    return make


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
