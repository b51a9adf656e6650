"""One request as it goes to its provider."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from bridgepool.gateway.providers import ErrorForm, Provider, RouteMatch
from bridgepool.gateway.providers._credentials import passes_own_key, withhold_parameters
from bridgepool.gateway.proxy._access_log import AccessRecord
from bridgepool.gateway.proxy._client_use import ClientUse
from bridgepool.gateway.proxy._provider_runtime import ProviderRuntime
from bridgepool.gateway.proxy._refusals import Refusal
from bridgepool.gateway.proxy.websockets._handshake import WebSocketCall
from bridgepool.http import Exchange, Headers

PROVIDER_HEADER: Final = b"x-bridgepool-provider"
"""Of a response: the provider that served it."""


@attrs.define(eq=False)
class Call:
    """One request as it goes to its provider."""

    exchange: Exchange
    """The client's."""
    record: AccessRecord
    """Its record."""
    runtime: ProviderRuntime
    target: bytes
    """The request target below the provider's base URL, with the query."""
    match: RouteMatch
    """The route."""
    query: bytes | None
    """The query as the client sent it."""
    client: str
    """The client's id, or its address if it is anonymous: who shares the provider's connections."""
    own_key: bool
    """The client's own upstream key is forwarded: the provider has `client_keys`."""
    errors: ErrorForm
    """How errors look on the route."""
    why_cancelled: Callable[[], Refusal]
    """Returns the reason why the gateway cancels a request, for its last event."""
    extra_headers: Headers = ()
    """Added to the response."""
    reads_usage: bool = False
    """Read the usage in the response as it passes."""
    use: ClientUse | None = None
    """The use of a client that has rules."""
    socket: WebSocketCall | None = None
    """The websocket that it is to become."""

    @property
    def response_headers(self) -> Headers:
        """What is added to the response."""
        return self.extra_headers if self.use is None else self.extra_headers + self.use.headers

    @property
    def tells_usage(self) -> bool:
        """Whether the response is read for usage, if it tells any."""
        return self.reads_usage or (self.use is not None and self.use.counts_tokens)

    @property
    def passes_own_key(self) -> bool:
        """Whether the client's own upstream key is used."""
        return passes_own_key(self.runtime.provider, self.own_key)


def upstream_target(
    match: RouteMatch, query: bytes | None, provider: Provider, *, own_key: bool
) -> bytes:
    """Return the request target below a provider's base URL.

    Args:
        match: the route.
        query: as the client sent it; what may not go to the provider is left out.
        provider: the provider.
        own_key: the request has the client's own key for it.
    """
    if not query:
        return match.path
    passed = withhold_parameters(query, provider, own_key=own_key)
    return match.path + b"?" + passed if passed else match.path


def route_headers(record: AccessRecord) -> Headers:
    """Return the response headers that name the provider and the generation."""
    return (
        (PROVIDER_HEADER, record.provider.encode("ascii")),
        (b"x-bridgepool-generation", b"%d" % record.generation),
    )
