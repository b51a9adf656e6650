"""Which route of its provider a request takes, or why it takes none. Not a checkpoint."""

from __future__ import annotations

from typing import NamedTuple

from bridgepool.gateway.providers import RouteMatch
from bridgepool.gateway.providers._access_keys import holds_access_key
from bridgepool.gateway.providers._credentials import uses_own_key
from bridgepool.gateway.providers._routes import Target
from bridgepool.gateway.proxy import _refusals as refusals
from bridgepool.gateway.proxy._access_log import AccessRecord
from bridgepool.gateway.proxy._auth import Identity
from bridgepool.gateway.proxy._provider_runtime import ProviderRuntime
from bridgepool.gateway.proxy._redaction import PathRedactor
from bridgepool.gateway.proxy._refusals import Refusal
from bridgepool.gateway.proxy._request_body import has_body
from bridgepool.gateway.proxy._route_hints import find_similar_route
from bridgepool.gateway.proxy._runtimes import UnavailableProvider
from bridgepool.http import Request, is_websocket_handshake


class Routed(NamedTuple):
    """A request whose provider has a route for it that is open."""

    runtime: ProviderRuntime
    """The provider's."""
    match: RouteMatch
    """The route."""
    own_key: bool
    """The client's own upstream key is forwarded."""


def find_route(
    found: ProviderRuntime | UnavailableProvider,
    target: Target,
    identity: Identity,
    request: Request,
    record: AccessRecord,
    redactor: PathRedactor,
) -> Routed | Refusal:
    """Find the route of a request.

    Args:
        found: What its target names.
        target: The target.
        identity: The client.
        request: The client's request.
        record: Gets the provider and the route.
        redactor: Redacts a path that no route matches.
    """
    provider = found.provider
    record.provider, record.provider_type = provider.name, provider.type
    if isinstance(found, UnavailableProvider):
        return found.refusal
    kind = found.kind
    match = (
        kind.match_websocket(target.path)
        if is_websocket_handshake(request)
        else kind.match(request.method, target.path)
    )
    if match is None or holds_access_key(match.path):
        path = redactor.describe(target.path)
        similar = find_similar_route(kind, request.method, target.path)
        return refusals.unknown_route(provider.name, record.method, path, similar)
    record.route = match.pattern
    if request.method not in match.route.bodies and has_body(request.headers):
        return refusals.unexpected_body(record.method)
    own_key = identity.own_key and uses_own_key(request.headers, provider, kind)
    if provider.client_keys and not own_key and found._keys is None:
        return refusals.OWN_KEY_MISSING
    return Routed(found, match, own_key)
