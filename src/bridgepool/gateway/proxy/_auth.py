"""Client authentication: by key, or, on a gateway without clients, local programs only."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol, runtime_checkable

import attrs

from bridgepool.gateway.limits._rules import rules_of
from bridgepool.gateway.providers import AuthorizationUnavailableError, Caller, Clients
from bridgepool.gateway.providers._client_rules import NO_RULES
from bridgepool.gateway.providers._credentials import find_client_tokens
from bridgepool.gateway.proxy._bridge import ANONYMOUS, BridgeKey
from bridgepool.gateway.proxy._refusals import (
    KEY_EXPIRED,
    NO_CLIENT_KEY,
    WRONG_CLIENT_KEY,
    Refusal,
    Retry,
    authorization_unavailable,
)
from bridgepool.gateway.serving._local_programs import (
    comes_from_elsewhere,
    is_loopback_authority,
)
from bridgepool.http import Headers

LOCAL_PROGRAMS_ONLY = Refusal(
    403,
    "not_from_here",
    "This gateway has no clients configured, so it serves programs on its own machine only.",
    Retry.USELESS,
)
FROM_A_PROXY = Refusal(
    403,
    "not_from_here",
    "This gateway has no clients configured, so it serves programs on its own machine only, and "
    "this request came through a proxy. Behind one the gateway needs clients with keys.",
    Retry.USELESS,
)
FOREIGN_ORIGIN = Refusal(
    403,
    "not_from_here",
    "This gateway has no clients configured, so it refuses web pages of other origins. Its option "
    "--cors-origin allows one.",
    Retry.USELESS,
)


class Identity(NamedTuple):
    """An authenticated client."""

    key: BridgeKey
    own_key: bool
    """The usual credential headers hold the client's own upstream key, not a gateway key: it may
    be forwarded to a provider with `client_keys`."""
    ruled: Caller | None = None
    """The caller, if there are rules for it."""

    def visible(self, providers: Iterable[str]) -> list[str]:
        """Return the names of the providers that it may use."""
        judged = rules_of(self.ruled).permissions if self.ruled is not None else None
        return [name for name in providers if judged is None or judged.allow_provider(name)]

    def tenant(self, address: str) -> str:
        """Return who shares the connections of providers: the client, or an anonymous one's host.

        Args:
            address: the client's, with its port.
        """
        return address.rpartition(":")[0] if self.key == ANONYMOUS else self.key.client_id


_ANONYMOUS = Identity(ANONYMOUS, own_key=True)


@runtime_checkable
class Authorizer(Protocol):
    """Authenticates client keys. Implement it for your own clients; `ListedClients` is one."""

    @property
    def has_clients(self) -> bool:
        """Whether any clients are configured; True if that is not known.

        When it is False, and `GatewaySettings.allow_anonymous` is True, local programs are served
        without a key.
        """
        ...

    async def authorize(self, token: bytes) -> Caller | None:
        """Return the client that the key belongs to; None if the key is unknown.

        Called for each request, so most answers should be cached; it is not a checkpoint then.

        Raises:
            AuthorizationUnavailableError: The key is not cached, and the authority is unreachable.
        """
        ...


@attrs.frozen
class ListedClients:
    """An `Authorizer` for a list of clients.

    Args:
        in_force: Returns the clients in force; called for each request, so it must be cheap.
    """

    _in_force: Callable[[], Clients]

    @property
    def has_clients(self) -> bool:
        """Whether the list has a client."""
        return len(self._in_force()) > 0

    async def authorize(self, token: bytes) -> Caller | None:
        """Look the key up. Not a checkpoint."""
        return self._in_force().authenticate(token)


async def identify(
    headers: Headers,
    authorizer: Authorizer,
    *,
    allow_anonymous: bool,
    allowed_origin: bool = False,
) -> Identity | Refusal:
    """Authenticate a request. Not a checkpoint when the authorizer has the answer cached.

    Args:
        headers: the request's.
        authorizer: authenticates keys.
        allow_anonymous: whether a gateway without clients serves local programs. A web page that
            reaches this machine from a browser (by a foreign origin, or by a name rebound to a
            loopback address), and a request that a proxy on it brings from elsewhere, are refused.

    Returns:
        The client, or the refusal to answer with.
    """
    tokens = find_client_tokens(headers)
    retry_after: float | None = None
    for found in tokens:
        try:
            caller = await authorizer.authorize(found.token)
        except AuthorizationUnavailableError as error:
            retry_after = error.retry_after
            continue
        if caller is not None:
            key = BridgeKey(caller.client_id, caller.key_id)
            if caller.rules is NO_RULES and caller.key_rules is NO_RULES:
                return Identity(key, found.brings_own_key)
            judged = rules_of(caller).permissions
            if judged is not None and judged.has_expired(time.time()):
                return KEY_EXPIRED
            return Identity(key, found.brings_own_key, caller)
    if retry_after is not None:
        return authorization_unavailable(retry_after)
    if authorizer.has_clients or not allow_anonymous:
        return WRONG_CLIENT_KEY if tokens else NO_CLIENT_KEY
    return _refuse_foreign(headers, allowed_origin=allowed_origin) or _ANONYMOUS


def _refuse_foreign(headers: Headers, *, allowed_origin: bool) -> Refusal | None:
    """Refuse the request of a web page or a proxy's client; None for a local program."""
    if comes_from_elsewhere(headers):
        return FROM_A_PROXY
    for name, value in headers:
        if name == b"host" and not is_loopback_authority(value):
            return LOCAL_PROGRAMS_ONLY
        if allowed_origin:
            continue
        if name == b"origin" and not is_loopback_authority(value.partition(b"://")[2]):
            return FOREIGN_ORIGIN
        if name == b"sec-fetch-site" and value.strip().lower() == b"cross-site":
            return FOREIGN_ORIGIN
    return None
