"""The handshake of a websocket, judged before its 101, and taken to the provider anew.

The gateway makes a handshake of its own with the provider: with its own key, without extensions,
whose frames a relay would have to understand, and without what a browser puts among the protocols
because it can set no header: its key, and the account that the key works for.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import attrs

from bridgepool.gateway.providers._credentials import CREDENTIAL_PROTOCOLS, websocket_protocols
from bridgepool.gateway.providers._routes import Target
from bridgepool.gateway.proxy._auth import Identity
from bridgepool.gateway.proxy._client_statuses import with_status
from bridgepool.gateway.proxy._client_use import ClientUses
from bridgepool.gateway.proxy._provider_runtime import ProviderRuntime
from bridgepool.gateway.proxy._refusals import (
    TOO_MANY_WEBSOCKETS,
    UPSTREAM_WITHOUT_WEBSOCKETS,
    USAGE_UNAVAILABLE,
    WEBSOCKET_NOT_SUPPORTED,
    WEBSOCKET_VERSION,
    Refusal,
    bad_handshake,
)
from bridgepool.gateway.proxy._runtimes import UnavailableProvider
from bridgepool.gateway.proxy._settings import GatewaySettings
from bridgepool.gateway.proxy.websockets._lifetime import Lifetime, Shutdown
from bridgepool.gateway.proxy.websockets._limits import WebSocketLimits
from bridgepool.gateway.proxy.websockets._use import can_be_judged, is_limited
from bridgepool.http import Exchange, Headers, get_header, websocket_accept

# What an upstream without websockets on this route answers with.
_NO_WEBSOCKET_HERE: Final = frozenset((404, 405, 426, 501, *range(200, 300)))


@attrs.define(eq=False)
class WebSockets:
    """The open websockets of a gateway, and of each of its clients.

    Args:
        settings: How many there may be, and for how long.
        uses: What clients have used.
        identify: Identifies the client of a request.
        refuse_now: Returns why a provider may begin no response now.
        generation: Returns the generation of the pool.
        usage_full: Returns whether usage cannot be recorded now.
    """

    _settings: GatewaySettings
    _uses: ClientUses
    _identify: Callable[[Exchange], Awaitable[Identity | Refusal]]
    _refuse_now: Callable[[str], Refusal | None]
    _generation: Callable[[], int]
    _usage_full: Callable[[], bool] | None = None
    _shutdown: Shutdown = attrs.field(factory=Shutdown, init=False)
    total: int = 0
    """Open ones, and those that are being opened."""
    _of_client: Counter[str] = attrs.field(factory=Counter)

    def admit(
        self,
        target: Target | None,
        found: ProviderRuntime | UnavailableProvider | None,
        identity: Identity,
        exchange: Exchange,
    ) -> WebSocketCall | Refusal:
        """Judge the handshake of a client that is known.

        Whatever is not relayed is refused with 426, which clients take for "use HTTP at once".

        Args:
            target: The request target.
            found: The provider that it names.
            identity: The client.
            exchange: The client's.
        """
        if target is None or not isinstance(found, ProviderRuntime):
            return WEBSOCKET_NOT_SUPPORTED
        match, ruled = found.kind.match_websocket(target.path), identity.ruled
        if match is None:
            return WEBSOCKET_NOT_SUPPORTED
        if ruled is not None and is_limited(ruled) and not can_be_judged(found.kind, match):
            return WEBSOCKET_NOT_SUPPORTED
        full = self._refuse_full(identity.tenant(exchange.client))
        if full is not None:
            return full
        limits = self._settings.websockets
        handshake = read_handshake(exchange.request.headers)
        if isinstance(handshake, Refusal):
            return handshake
        identify = partial(self._identify, exchange)
        refuse_now = partial(self._refuse_now, found.provider.name)
        if self._usage_full is not None:
            refuse_now = partial(self._refuse_unrecorded, self._usage_full, refuse_now)
        drain_timeout = self._settings.drain_timeout
        lifetime = Lifetime(limits.max_age, drain_timeout, self._generation, self._shutdown)
        fit = partial(
            with_status,
            headers=exchange.request.headers,
            no_retry_status=self._settings.no_retry_status,
        )
        return WebSocketCall(
            *handshake, limits, lifetime, identity, self._uses, identify, refuse_now, fit
        )

    def close_all(self) -> None:
        """Close each one as soon as no response is under way on it; many not all at once."""
        self._shutdown.begin(self.total, self._settings.drain_timeout)

    def _refuse_unrecorded(
        self, usage_full: Callable[[], bool], refuse_now: Callable[[], Refusal | None]
    ) -> Refusal | None:
        return USAGE_UNAVAILABLE if usage_full() else refuse_now()

    def _refuse_full(self, client: str) -> Refusal | None:
        limits = self._settings.websockets
        if self.total < limits.max_websockets and self._of_client[client] < limits.max_per_client:
            return None
        return TOO_MANY_WEBSOCKETS if limits.max_websockets else WEBSOCKET_NOT_SUPPORTED

    def enter(self, client: str) -> Refusal | None:
        """Count a websocket of a client, unless others have taken its place since `admit`."""
        full = self._refuse_full(client)
        if full is None:
            self.total += 1
            self._of_client[client] += 1
        return full

    def leave(self, client: str) -> None:
        """Note the end of one that was counted."""
        self.total -= 1
        self._of_client[client] -= 1
        if not self._of_client[client]:
            del self._of_client[client]


@attrs.frozen(eq=False)
class WebSocketCall:
    """A websocket that a client wants to open."""

    accept: bytes
    """The `Sec-WebSocket-Accept` for the client."""
    protocols: tuple[bytes, ...]
    """Those that the client offers, in its order, without its credentials."""
    limits: WebSocketLimits
    lifetime: Lifetime
    identity: Identity
    """The client."""
    uses: ClientUses
    """What it uses."""
    identify: Callable[[], Awaitable[Identity | Refusal]]
    """Identifies the client again, by what it sent at first."""
    refuse_now: Callable[[], Refusal | None]
    """Returns why the provider may begin no response now; None if it may."""
    fit: Callable[[Refusal], Refusal]
    """Returns a refusal with the status that the client understands."""
    key: bytes = attrs.field(factory=lambda: base64.b64encode(os.urandom(16)))
    """The `Sec-WebSocket-Key` for the provider."""

    def request_headers(self, headers: Headers) -> Headers:
        """Return the headers of the handshake with the provider."""
        kept = _without_handshake(headers)
        fields = [(b"sec-websocket-version", b"13"), (b"sec-websocket-key", self.key)]
        if self.protocols:
            fields.append((b"sec-websocket-protocol", b", ".join(self.protocols)))
        return (*kept, *fields)

    def response_headers(self, headers: Headers) -> Headers | None:
        """Return the fields of the 101 for the client, or None if the provider's is not sound.

        Args:
            headers: The provider's, as they may go to the client.
        """
        if get_header(headers, b"sec-websocket-accept") != websocket_accept(self.key):
            return None
        fields = [(b"upgrade", b"websocket"), (b"sec-websocket-accept", self.accept)]
        protocol = get_header(headers, b"sec-websocket-protocol")
        if protocol is not None:
            if protocol not in self.protocols:
                return None
            fields.append((b"sec-websocket-protocol", protocol))
        if get_header(headers, b"sec-websocket-extensions") is not None:
            return None  # none was offered
        return (*fields, *_without_handshake(headers))


def read_handshake(headers: Headers) -> tuple[bytes, tuple[bytes, ...]] | Refusal:
    """Return what accepts the handshake of a client, and the protocols that it offers.

    Without its credentials. If it is not sound, why it cannot be accepted.
    """
    if get_header(headers, b"sec-websocket-version") != b"13":
        return WEBSOCKET_VERSION
    key = get_header(headers, b"sec-websocket-key") or b""
    try:
        sound = len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        sound = False
    if not sound:
        return bad_handshake()
    offered = websocket_protocols(headers)
    protocols = tuple(each for each in offered if not each.startswith(CREDENTIAL_PROTOCOLS))
    return websocket_accept(key), protocols


def refusal_of_upstream(status: int) -> Refusal | None:
    """Return the refusal for an upstream's answer to a handshake; None if the answer goes on."""
    return UPSTREAM_WITHOUT_WEBSOCKETS if status in _NO_WEBSOCKET_HERE else None


def _without_handshake(headers: Headers) -> Headers:
    return tuple(
        [
            field
            for field in headers
            if not field[0].startswith(b"sec-websocket-")
            and field[0] not in (b"origin", b"content-length", b"upgrade", b"connection")
        ]
    )
