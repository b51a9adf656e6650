"""What an upstream speaks: its open routes, where its key goes, how its errors look. Pure.

A provider type is one module that makes one `ProviderType`, such as `_openai.py`. A gateway knows
the types that it was opened with (`open_gateway(types=…)`); `PROVIDER_TYPES` is only the default.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

import attrs

from bridgepool.gateway.providers._error_form import ErrorForm
from bridgepool.gateway.providers._errors import InvalidProviderError
from bridgepool.gateway.providers._rate_status import RateStatus
from bridgepool.gateway.providers._routes import Route, RouteMatch, is_safe_tail
from bridgepool.gateway.providers._usage_fields import UsageFields

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]
"""Names, in lower case, and values."""


@attrs.frozen
class UrlField:
    """A field of JSON answers that holds an absolute address, which SDKs call with their own key.

    That key is the client's gateway key, so the gateway puts its own address of the same route in
    its place. An address that leads elsewhere becomes null. Such answers are small documents: the
    gateway reads each of them whole, and refuses one that it cannot read.
    """

    name: str
    """The name of the field, at any depth."""
    answers: re.Pattern[bytes]
    """The paths below the base URL whose answers may hold it; matched as a whole."""
    leads_to: re.Pattern[bytes]
    """The path below the base URL that the address must end with."""


@attrs.frozen
class ResetFields:
    """The headers of answers that tell about one limit of a key."""

    remaining: bytes
    """How much is left, lower case; more than 0 says that another limit was met."""
    reset: bytes
    """When it is full again, lower case: a duration such as ``6m0s``, seconds, or an RFC 3339
    date."""


def _is_never_recognised(path: bytes, headers: Headers) -> bool:
    return False


@attrs.frozen(eq=False)
class ProviderType:
    """What an upstream speaks."""

    name: str
    """As in a provider's `type`."""
    prefix: bytes
    """What follows ``/{provider}`` and stands for the base URL: ``b"/v1"``, or ``b""`` for an
    API whose base URL carries no version."""
    routes: tuple[Route, ...]
    """What is open below the base URL; everything else is closed."""
    key_header: bytes
    """The header that carries the key, lower case."""
    key_prefix: bytes
    """What stands before the key in it, such as ``b"Bearer "``."""
    errors: ErrorForm
    """How errors look to its clients."""
    recognises: Callable[[bytes, Headers], bool] = _is_never_recognised
    """Whether a request, by its path without query and its headers, comes from a client of this
    API. Asked for errors that concern no provider; where no type recognises a request, the first
    type's form is used."""
    models_path: bytes | None = None
    """The path whose answer lists models, as objects with an ``id`` in the list ``data``; below it,
    each model has a path of its own."""
    rate_headers: Callable[[RateStatus, float], Headers] | None = None
    """Makes the headers that tell clients what is left of their limits; gets the time in seconds
    since the epoch."""
    url_fields: tuple[UrlField, ...] = ()
    """The fields of its answers whose addresses the gateway replaces by its own."""
    usage: UsageFields | None = None
    """Where its answers tell what a request has used; None if that is not read."""
    reset_fields: tuple[ResetFields, ...] = ()
    """What its answers say beside ``Retry-After`` about when a rate-limited key is good again."""
    request_too_large: re.Pattern[bytes] | None = None
    """Is found in the body of a 429 that says that the request alone exceeds a limit: other
    requests are not limited, so its key does not cool down. None if no answer says so."""
    _exact: Mapping[tuple[bytes, bytes], RouteMatch] = attrs.field(init=False, repr=False)
    # (path with its slash, route), the longest path first
    _subtrees: tuple[tuple[bytes, Route], ...] = attrs.field(init=False, repr=False)

    @_exact.default
    def _build_exact(self) -> Mapping[tuple[bytes, bytes], RouteMatch]:
        return {
            (method, route.path): RouteMatch(route, route.path, route.path.decode("ascii"))
            for route in self.routes
            for method in route.methods
        }

    def match_websocket(self, path: bytes) -> RouteMatch | None:
        """Find the open route for a websocket; `path` as for `match`."""
        for route in self.routes:
            if route.websocket and path == self.prefix + route.path:
                return RouteMatch(route, route.path, route.path.decode("ascii"))
        return None

    @_subtrees.default
    def _build_subtrees(self) -> tuple[tuple[bytes, Route], ...]:
        trees = [(route.path + b"/", route) for route in self.routes if route.below]
        return tuple(sorted(trees, key=lambda tree: -len(tree[0])))

    def match(self, method: bytes, path: bytes) -> RouteMatch | None:
        """Find the open route for a request.

        Pure. A path that any server could read as leaving the route fits none.

        Args:
            method: Upper case, as it came.
            path: What follows ``/{provider}``, without the query, as it came.

        Returns:
            The route with the path below the base URL; None when the request is not open.
        """
        if not path.startswith(self.prefix):
            return None
        path = path[len(self.prefix) :]
        exact = self._exact.get((method, path))
        if exact is not None:
            return exact
        for subtree, route in self._subtrees:
            if path.startswith(subtree):
                open_here = method in route.below and is_safe_tail(path[len(subtree) :])
                pattern = route.path.decode("ascii") + "/*"
                return RouteMatch(route, path, pattern) if open_here else None
        return None


def find_type(name: str, types: Iterable[ProviderType]) -> ProviderType:
    """Return the type of that name; raises `InvalidProviderError`, which does not repeat it."""
    known = tuple(types)
    for kind in known:
        if kind.name == name:
            return kind
    names = ", ".join(sorted(kind.name for kind in known))
    raise InvalidProviderError("type", f"is none of the known types ({names})")


def find_repeated_path(base_path: str, kind: ProviderType) -> str | None:
    """Return the end of a base URL that its type's routes add again; None if there is none.

    The gateway would send requests to ``…/v1/v1/messages``, which the upstream does not know.
    """
    for route in kind.routes:
        path = route.path.decode("ascii")
        first = "/" + path.split("/")[1]
        if base_path.endswith(path):
            return path
        if base_path.endswith(first) and all(
            other.path.decode("ascii").startswith(first + "/") for other in kind.routes
        ):
            return first
    return None
