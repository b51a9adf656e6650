"""A control plane as a gateway follows it: its providers, and whose key a client sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Final

import attrs

from bridgepool import ProviderSnapshot, open_singleflight
from bridgepool._secret import Secret
from bridgepool.gateway._protocol import (
    CLIENTS,
    CLIENTS_VERSION,
    Authorization,
    Authorize,
    ClientsRevision,
    provider_rows,
)
from bridgepool.gateway.providers import PROVIDER_TYPES, Provider, ProviderType
from bridgepool.gateway.sources._authorization import AuthorizationLimits, RemoteClients
from bridgepool.remote import (
    Connect,
    RemoteLimits,
    RemoteProviders,
    ServiceSession,
    open_remote_providers,
)

_LIMITS: Final = RemoteLimits()
_AUTHORIZATION_LIMITS: Final = AuthorizationLimits()


@attrs.frozen
class _ClientsService:
    """The service ``clients`` of each session with a control plane."""

    name = CLIENTS
    version = CLIENTS_VERSION
    _clients: RemoteClients

    @asynccontextmanager
    async def open(self, session: ServiceSession) -> AsyncIterator[None]:
        """Ask on a session from now on."""

        def note(clients: ClientsRevision) -> None:
            self._clients._note_clients(clients.revision, clients.epoch)

        async def ask(token: Secret) -> Authorization:
            return await session.call("authorize", Authorize(token), Authorization)

        session.on_notice("changed", ClientsRevision, note)
        note(await session.call("watch", self._clients._seen(), ClientsRevision))
        self._clients._note_session(ask)
        try:
            yield
        finally:
            self._clients._note_session(None)


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
    seen: ProviderSnapshot[Provider] | None = None,
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
        seen: What the control plane sent last, before this program was started.
        limits: How long to wait for what.
        authorization: For how long answers about clients' keys are used.
    """
    async with open_singleflight() as flights:
        clients = RemoteClients(flights, authorization)
        async with open_remote_providers(
            connect,
            provider_rows(types, stand_ins=True),
            name=name,
            instance=instance,
            services=[_ClientsService(clients)],
            seen=seen,
            limits=limits,
        ) as remote:
            yield ControlPlane(remote, clients)
