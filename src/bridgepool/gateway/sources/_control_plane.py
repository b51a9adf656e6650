"""A control plane as a gateway follows it: its providers, and whose key a client sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Final

import attrs
import trio

from bridgepool import ProviderSnapshot, open_singleflight
from bridgepool._secret import Secret
from bridgepool._services import open_background_nursery
from bridgepool.gateway._protocol import (
    CLIENTS,
    CLIENTS_VERSION,
    KEYS_NOTICE,
    USAGE,
    USAGE_VERSION,
    Authorization,
    Authorize,
    ClientsRevision,
    LeasedShares,
    LeaseShares,
    StoreUsage,
    UsageStored,
    provider_rows,
)
from bridgepool.gateway.providers import PROVIDER_TYPES, Provider, ProviderType
from bridgepool.gateway.providers._key_status import KeyReport, KeyStatus
from bridgepool.gateway.sources._authorization import AuthorizationLimits, RemoteClients
from bridgepool.gateway.usage._records import UsageRecord
from bridgepool.gateway.usage._spool import NotStoredError, UsageSpool
from bridgepool.remote import (
    Connect,
    ConnectionLostError,
    InvalidMessageError,
    RemoteError,
    RemoteLimits,
    RemoteProviders,
    ServiceSession,
    open_remote_providers,
)

_LIMITS: Final = RemoteLimits()
_AUTHORIZATION_LIMITS: Final = AuthorizationLimits()
_FIRST_DELAY: Final = 1.0  # seconds between two looks at the keys after a change


@attrs.define(eq=False)
class _KeyReports:
    """Sends what the gateway does with its providers' keys, when it has changed.

    It looks every so often; after a change of the providers at once and then after one second, two,
    four …, since the last requests that use an old key end then.
    """

    interval: float
    read: Callable[[], KeyReport] | None = None  # None before the gateway is open
    _sent: KeyReport | None = None
    _woken: trio.Event = attrs.field(factory=trio.Event)

    def wake(self) -> None:
        """Look again at once."""
        self._woken.set()

    async def run(self, session: ServiceSession) -> None:
        """Send the reports of a session (runs as a task)."""
        self._sent, delay = None, self.interval
        while True:
            if self.read is not None:
                report = self.read()
                if self._is_news(report):
                    session.publish(KEYS_NOTICE, report)
                    self._sent = report
            with trio.move_on_after(delay):
                await self._woken.wait()
            delay = min(2 * delay, self.interval)
            if self._woken.is_set():
                self._woken = trio.Event()
                delay = min(_FIRST_DELAY, self.interval)

    def _is_news(self, report: KeyReport) -> bool:
        if self._sent is None or any(_used_within(key, self.interval) for key in report.keys):
            return True
        return _without_times(report) != _without_times(self._sent)


def _used_within(key: KeyStatus, seconds: float) -> bool:
    return key.unused_for is not None and key.unused_for <= seconds


def _without_times(report: KeyReport) -> KeyReport:
    """Return a report without what changes while nothing happens."""
    keys = [attrs.evolve(key, unused_for=None, cooling_for=0) for key in report.keys]
    return attrs.evolve(report, keys=tuple(keys))


@attrs.frozen
class _ClientsService:
    """The service ``clients`` of each session with a control plane."""

    name = CLIENTS
    version = CLIENTS_VERSION
    _clients: RemoteClients
    _key_reports: _KeyReports

    @asynccontextmanager
    async def open(self, session: ServiceSession) -> AsyncIterator[None]:
        """Ask on a session from now on."""

        def note(clients: ClientsRevision) -> None:
            self._clients._note_clients(clients.revision, clients.epoch)

        async def ask(token: Secret) -> Authorization:
            return await session.call("authorize", Authorize(token), Authorization)

        async def lease(asked: LeaseShares) -> LeasedShares:
            return await session.call("lease", asked, LeasedShares)

        session.on_notice("changed", ClientsRevision, note)
        note(await session.call("watch", self._clients._seen(), ClientsRevision))
        self._clients._note_session(ask)
        self._clients._leases.note_session(lease)
        async with open_background_nursery() as nursery:
            nursery.start_soon(self._key_reports.run, session)
            nursery.start_soon(self._clients._leases.run)
            try:
                yield
                await self._clients._leases.report_last()  # this gateway ends
            finally:
                self._clients._note_session(None)
                self._clients._leases.note_session(None)


@attrs.frozen
class _UsageService:
    """The service ``usage`` of each session with a control plane."""

    name = USAGE
    version = USAGE_VERSION
    _spool: UsageSpool

    @asynccontextmanager
    async def open(self, session: ServiceSession) -> AsyncIterator[None]:
        """Send records on a session while it lasts."""

        async def store(records: tuple[UsageRecord, ...]) -> None:
            try:
                await session.call("store", StoreUsage(records), UsageStored)
            except (RemoteError, InvalidMessageError, ConnectionLostError) as error:
                raise NotStoredError(str(error)) from None

        async with open_background_nursery() as nursery:
            nursery.start_soon(self._spool.send, store)
            yield


@attrs.frozen(eq=False)
class ControlPlane:
    """A control plane that is followed."""

    providers: RemoteProviders[Provider]
    clients: RemoteClients
    _key_reports: _KeyReports

    def report_keys(self, read: Callable[[], KeyReport]) -> None:
        """Report what the gateway does with its providers' keys, on each session from now on.

        The control plane then tells operators when an old key is safe to revoke.

        Args:
            read: Returns the report of now, such as `Gateway.key_report`.
        """
        self._key_reports.read = read
        self._key_reports.wake()


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
    key_report_interval: float = 10.0,
    usage: UsageSpool | None = None,
) -> AsyncIterator[ControlPlane]:
    """Follow a control plane, for as long as the block lasts.

    ::

        connect = websocket_connector("wss://control.example.com", key)
        async with open_control_plane(connect, name="front-1") as plane:
            remote = plane.providers
            async with open_gateway(remote, remote.changes, clients=plane.clients) as gateway:
                plane.report_keys(gateway.key_report)
                ...

    Args:
        connect: Opens a connection, with the key of this gateway.
        name: The name of this gateway.
        instance: Identifies its process; random by default.
        types: The provider types that it knows, as for `open_gateway`.
        seen: What the control plane sent last, before this program was started.
        limits: Durations of the connection and of its retries.
        authorization: For how long answers about clients' keys are used.
        key_report_interval: Seconds between two looks at the use of keys; see
            `ControlPlane.report_keys`.
        usage: Send its records to the control plane, which must be of a version that takes them.
    """
    key_reports = _KeyReports(key_report_interval)
    async with open_singleflight() as flights:
        clients = RemoteClients(flights, authorization)
        async with open_remote_providers(
            connect,
            provider_rows(types, stand_ins=True),
            name=name,
            instance=instance,
            services=[
                _ClientsService(clients, key_reports),
                *([_UsageService(usage)] if usage is not None else []),
            ],
            seen=seen,
            limits=limits,
            owner_name="control plane",
        ) as remote:
            yield ControlPlane(remote, clients, key_reports)
