"""A control plane as a gateway follows it: its providers, and whose key a client sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import attrs
import trio

from bridgepool import open_singleflight
from bridgepool._secret import Secret
from bridgepool.gateway._protocol import (
    CLIENTS,
    CLIENTS_VERSION,
    Authorization,
    Authorize,
    ClientsRevision,
    WatchClients,
    provider_rows,
)
from bridgepool.gateway.providers import PROVIDER_TYPES, Caller, Provider, ProviderType
from bridgepool.gateway.sources._authorization import (
    AuthorizationCache,
    AuthorizationLimits,
    KnownClient,
)
from bridgepool.remote import (
    Connect,
    RemoteLimits,
    RemoteProviders,
    ServiceSession,
    open_remote_providers,
)

_LIMITS: Final = RemoteLimits()
_AUTHORIZATION_LIMITS: Final = AuthorizationLimits()


@attrs.define(eq=False)
class RemoteClients:
    """The clients of a control plane; an `Authorizer`. See `open_control_plane`."""

    name = CLIENTS
    version = CLIENTS_VERSION
    has_clients = True
    """The control plane knows the clients, and an empty list lets nobody in."""
    _limits: AuthorizationLimits
    _cache: AuthorizationCache = attrs.field(init=False)
    _session: ServiceSession | None = attrs.field(default=None, init=False)

    async def authorize(self, token: bytes) -> Caller | None:
        """Return whose key this is; None when it is nobody's.

        Not a checkpoint when a fresh answer is cached. See `AuthorizationLimits`.

        Args:
            token: The key as the client sent it; any bytes.

        Raises:
            AuthorizationUnavailableError: It is not known here, and cannot be asked now.
        """
        return await self._cache.authorize(token)

    def known_clients(self) -> tuple[KnownClient, ...]:
        """Return the clients' keys that are remembered, by hash, to be kept over a restart."""
        return self._cache.known_clients()

    def count_client_changes(self) -> int:
        """Return how often `known_clients` has got other clients; cheap."""
        return self._cache.changes

    def remember_clients(self, clients: Iterable[KnownClient]) -> None:
        """Take what `known_clients` gave before a restart: served while nobody can be asked."""
        self._cache.remember(clients)

    def open(self, session: ServiceSession) -> AbstractAsyncContextManager[None]:
        """Ask on a session from now on."""
        return self._open(session)

    @asynccontextmanager
    async def _open(self, session: ServiceSession) -> AsyncIterator[None]:
        session.on_notice("changed", ClientsRevision, self._note)
        self._note(await session.call("watch", WatchClients(), ClientsRevision))
        self._session = session
        self._cache.note_session(reachable=True)
        try:
            yield
        finally:
            self._session = None
            self._cache.note_session(reachable=False)

    def _note(self, clients: ClientsRevision) -> None:
        self._cache.note_clients(clients.revision)

    async def _ask(self, token: Secret) -> Authorization:
        session = self._session
        if session is None:
            raise trio.ClosedResourceError
        with trio.fail_after(self._limits.answer_timeout):
            return await session.call("authorize", Authorize(token), Authorization)


@attrs.frozen(eq=False)
class ControlPlane:
    """A control plane that is followed."""

    providers: RemoteProviders[Provider]
    clients: RemoteClients


@asynccontextmanager
async def open_control_plane(
    connect: Connect,
    *,
    name: str,
    instance: str | None = None,
    types: Iterable[ProviderType] = PROVIDER_TYPES,
    limits: RemoteLimits = _LIMITS,
    authorization: AuthorizationLimits = _AUTHORIZATION_LIMITS,
) -> AsyncIterator[ControlPlane]:
    """Follow a control plane, for as long as the block lasts.

    ::

        connect = websocket_connector("wss://control.example.com", key)
        async with open_control_plane(connect, name="front-1") as plane:
            remote = plane.providers
            async with open_gateway(remote, remote.changes, clients=plane.clients) as gateway:
                ...

    Args:
        connect: Opens a connection, with the key of this gateway.
        name: What this gateway calls itself.
        instance: Which process of it; random by default.
        types: The provider types that it knows, as for `open_gateway`.
        limits: How long to wait for what.
        authorization: For how long answers about clients' keys are used.
    """
    async with open_singleflight() as flights:
        clients = RemoteClients(authorization)
        clients._cache = AuthorizationCache(clients._ask, flights, authorization)
        async with open_remote_providers(
            connect,
            provider_rows(types),
            name=name,
            instance=instance,
            services=[clients],
            limits=limits,
        ) as remote:
            yield ControlPlane(remote, clients)
