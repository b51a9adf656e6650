"""The control plane's end of a session with a gateway: rows, and whose key a client sent.

Sessions, rows and receipts are the business of `bridgepool.remote`. Added here are the keys of
gateways, and the service ``clients``. A gateway is notified of a new clients revision before the
revision that holds it: so what it acknowledges it also knows.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Final, Protocol, TypeAlias

import attrs
import trio

from bridgepool._changes import ChangeSubscription
from bridgepool._printable import printable
from bridgepool._secret import Secret
from bridgepool._snapshot import ProviderSnapshot
from bridgepool.gateway._protocol import (
    CLIENTS,
    CLIENTS_VERSION,
    KEYS_NOTICE,
    STORED_ROWS,
    USAGE,
    USAGE_VERSION,
    Authorization,
    Authorize,
    ClientsRevision,
    LeasedShares,
    LeaseShares,
    StoreUsage,
    UsageStored,
    WatchClients,
)
from bridgepool.gateway.control._errors import StoreError
from bridgepool.gateway.control._limit_shares import LimitShares, lease_shares
from bridgepool.gateway.control._revisions import Revisions
from bridgepool.gateway.limits._kinds import LIMITS
from bridgepool.gateway.limits._share_pool import ShareDemand
from bridgepool.gateway.providers import Caller
from bridgepool.gateway.providers._access_keys import GATEWAY_KEYS, token_bytes
from bridgepool.gateway.providers._client_rules import NO_RULES
from bridgepool.gateway.providers._key_status import KeyReport
from bridgepool.gateway.providers._wire import ProviderRow
from bridgepool.gateway.serving._key_lookups import KeyLookups
from bridgepool.gateway.serving._refused_keys import RefusedKeys
from bridgepool.gateway.usage._records import UsageRecord
from bridgepool.remote import (
    Identity,
    RemoteError,
    RemoteService,
    Seen,
    ServiceSession,
    SessionObserver,
    open_remote_service,
)
from bridgepool.transports._handshake import Handshake, Refused

logger = logging.getLogger("bridgepool.control")

_NO_KEY: Final = Refused(
    401, "no_key", "send the gateway's key as `Authorization: Bearer bpg_…`, once"
)
_UNKNOWN_KEY: Final = Refused(
    401,
    "unknown_key",
    "this gateway key is not known, or was revoked; have a new one made for this gateway",
)
_WRONG_PATH: Final = Refused(
    404, "wrong_path", "gateways connect to the path /; remove the path from the URL"
)
_FOREIGN_ORIGIN: Final = Refused(
    403, "foreign_origin", "this port is for gateways, not for web pages: there is an Origin header"
)
_AUTHORIZATIONS: Final = 64  # questions about clients that the backend is asked at a time
_LONGEST_ID: Final = 200  # characters of the id of a client or a key
_MOST: Final = 1e15  # of a number in a report; a limit is at most a thousandth of it


OnKeyReport: TypeAlias = Callable[[str, KeyReport], None]


class GatewayBackend(Protocol):
    """The owner of providers, clients and gateway keys, as gateways are served by it.

    `MemoryBackend` is one, and the control plane's hub another. What is not async must be cheap
    and must not raise.
    """

    @property
    def revisions(self) -> Revisions:
        """The revisions in force, as far as they are known here; in an epoch never going back."""
        ...

    def subscribe(self) -> ChangeSubscription:
        """Open a channel of notices that `revisions` moved."""
        ...

    async def reload(self) -> ProviderSnapshot[ProviderRow]:
        """Return all providers, not older than `revisions` were when it was called."""
        ...

    async def catch_up(self, seen: Revisions) -> Revisions:
        """Read the source again if a gateway has seen what is not known here.

        A source that turns out to have gone back since gets a new epoch.

        Args:
            seen: The latest that the gateway has seen, 0 where it does not say.

        Returns:
            The revisions that are in force then.

        Raises:
            StoreError: It cannot be read now.
        """
        ...

    async def authorize(self, token: Secret) -> Caller | None:
        """Return the client that has this key, at `revisions` or later; None if it is unknown."""
        ...

    async def admit(self, key: Secret) -> Identity | None:
        """Return the gateway that has this key; None if it is unknown or revoked."""
        ...

    async def note_refused(self, peer: str) -> None:
        """Note that a key from this address was refused. A checkpoint; must not raise."""
        ...

    def is_live(self, key_id: str) -> bool:
        """Return whether this gateway key is still valid. Called whenever `revisions` move."""
        ...


@attrs.define(eq=False)
class _Clients:
    """The service ``clients`` of all sessions; and the source of the rows, which it goes before."""

    name = CLIENTS
    version = CLIENTS_VERSION
    backend: GatewayBackend
    on_key_report: OnKeyReport | None = None
    limits: LimitShares = attrs.field(factory=LimitShares)
    # session -> the clients revision that it was sent last
    sent: dict[ServiceSession, ClientsRevision] = attrs.field(factory=dict, init=False)
    lookups: KeyLookups = attrs.field(
        factory=lambda: KeyLookups(RefusedKeys(logger, "gateway keys refused")), init=False
    )
    asking: trio.CapacityLimiter = attrs.field(
        factory=lambda: trio.CapacityLimiter(_AUTHORIZATIONS), init=False
    )

    async def admit(self, handshake: Handshake) -> Identity | Refused:
        """Decide by the key of a gateway; refuse after a while if many were refused."""
        if handshake.path != "/" or handshake.foreign_origin:
            await trio.lowlevel.checkpoint()
            return _WRONG_PATH if handshake.path != "/" else _FOREIGN_ORIGIN
        if handshake.bearer is None:
            await trio.lowlevel.checkpoint()
            return _NO_KEY
        key_id = GATEWAY_KEYS.id_of(token_bytes(handshake.bearer))
        identity = await self.lookups.find(
            handshake.bearer,
            handshake.peer,
            self.backend.admit,
            self.backend.note_refused,
            costs_nothing=key_id is not None and self.backend.is_live(key_id.decode("ascii")),
        )
        return identity if identity is not None else _UNKNOWN_KEY

    def is_live(self, identity: Identity) -> bool:
        """Return whether the key of a session is still valid."""
        return self.backend.is_live(identity.key_id)

    async def reload(self) -> ProviderSnapshot[ProviderRow]:
        """Return the rows, once all sessions are to be sent the clients revision."""
        snapshot = await self.backend.reload()
        latest = self.latest()
        for session, sent in self.sent.items():
            if sent != latest:
                self.sent[session] = latest
                session.publish("changed", latest)
        return snapshot

    def latest(self) -> ClientsRevision:
        """Return the clients revision in force."""
        revisions = self.backend.revisions
        return ClientsRevision(revisions.clients, revisions.epoch)

    async def catch_up(self, seen: Seen) -> Seen:
        """Have the backend catch up with the rows that a gateway has seen."""
        reached = await self.meet(seen.epoch, revision=seen.revision or 0)
        return Seen(reached.revision, reached.epoch)

    async def meet(self, epoch: str | None, revision: int = 0, clients: int = 0) -> Revisions:
        """Have the backend catch up with what a gateway has seen.

        Raises:
            RemoteError: It cannot be found out now which of the two is behind.
        """
        seen = Revisions(revision=revision, providers=0, clients=clients, epoch=epoch or "")
        try:
            return await self.backend.catch_up(seen)
        except StoreError as error:
            logger.warning("gateway is ahead, and the store cannot be read: %s", error)
            raise RemoteError("unavailable", "the store cannot be read; retry later") from None

    @asynccontextmanager
    async def open(self, session: ServiceSession) -> AsyncIterator[None]:
        """Answer on a session."""

        async def watch(asked: WatchClients) -> ClientsRevision:
            await self.meet(asked.epoch, clients=asked.revision or 0)
            latest = self.sent[session] = self.latest()
            return latest

        def note_keys(report: KeyReport) -> None:
            if self.on_key_report is not None:
                self.on_key_report(session.id, report)

        session.on_notice(KEYS_NOTICE, KeyReport, note_keys)
        session.on_call("authorize", Authorize, self.authorize)
        instance = session.follower.instance if session.follower is not None else session.id

        async def lease(asked: LeaseShares) -> LeasedShares:
            if not all(map(_is_sound, asked.demands)):
                await trio.lowlevel.checkpoint()
                raise RemoteError("invalid_params", "a limit is unknown, or a number is impossible")
            shares = await lease_shares(self.limits, instance, asked.demands)
            return LeasedShares(shares, self.limits.in_memory)

        session.on_call("watch", WatchClients, watch)
        session.on_call("lease", LeaseShares, lease)
        self.limits.begin(instance)
        try:
            yield
        finally:
            self.limits.end(instance)
            self.sent.pop(session, None)

    async def authorize(self, asked: Authorize) -> Authorization:
        """Answer whose key it is."""
        # From before the look: so the answer never claims to be newer than it is.
        latest = self.latest()
        try:
            async with self.asking:
                caller = await self.backend.authorize(asked.token)
        except Exception as error:  # the backend's: this call is answered, and the session goes on
            logger.error("look-up of a client's key failed: %s", type(error).__name__)
            reason = "keys cannot be looked up now; ask again later"
            raise RemoteError("unavailable", reason) from None
        if caller is None:
            return Authorization(clients=latest.revision, epoch=latest.epoch)
        return Authorization(
            client_id=caller.client_id,
            key_id=caller.key_id,
            clients=latest.revision,
            epoch=latest.epoch,
            rules=None if caller.rules == NO_RULES else caller.rules,
            key_rules=None if caller.key_rules == NO_RULES else caller.key_rules,
        )


@attrs.define(eq=False)
class _Usage:
    """The service ``usage`` of all sessions."""

    name = USAGE
    version = USAGE_VERSION
    keep: KeepUsage
    failing: bool = False  # the last records could not be stored, which is logged

    @asynccontextmanager
    async def open(self, session: ServiceSession) -> AsyncIterator[None]:
        """Take records on a session."""
        gateway = session.follower.identity.name if session.follower is not None else ""

        async def store(sent: StoreUsage) -> UsageStored:
            try:
                stored = UsageStored(await self.keep(gateway, sent.records))
            except StoreError as error:
                if not self.failing:
                    logger.warning("usage records not stored: %s", error)
                self.failing = True
                reason = "the store cannot be written now; send them again later"
                raise RemoteError("unavailable", reason) from None
            self.failing = False
            return stored

        session.on_call("store", StoreUsage, store)
        yield


KeepUsage: TypeAlias = Callable[[str, Iterable[UsageRecord]], Awaitable[int]]
"""Keeps records of the named gateway, each once, durably; returns how many are new. Raises
`StoreError` if it cannot do so now."""


def _is_sound(demand: ShareDemand) -> bool:
    # What one gateway reports of a limit is in the sums, and in the rows, of all of them.
    numbers = (demand.limit, demand.demand, demand.held, demand.used, demand.period)
    return (
        demand.rule in LIMITS
        and demand.scope in ("client", "key")
        and printable(demand.id, _LONGEST_ID) == demand.id
        and all(abs(number) <= _MOST for number in numbers)  # not of NaN
        and demand.limit >= 0
        and demand.demand >= 0
    )


@asynccontextmanager
async def open_gateway_service(
    backend: GatewayBackend,
    *,
    keep_usage: KeepUsage | None = None,
    observer: SessionObserver | None = None,
    on_key_report: OnKeyReport | None = None,
    limits: LimitShares | None = None,
    max_message_bytes: int = 16 << 20,
) -> AsyncIterator[RemoteService[ProviderRow]]:
    """Open a service that gateways follow, for as long as the block lasts.

    ::

        async with open_gateway_service(backend) as service:
            listeners = await trio.open_tcp_listeners(0)
            await nursery.start(service.serve_listeners, listeners)

    Args:
        backend: The owner of the providers, such as a `MemoryBackend`.
        keep_usage: Keeps the usage records that gateways send. Without it the service ``usage`` is
            not offered.
        observer: Is notified of sessions and receipts.
        on_key_report: Called with the id of a session and what its gateway reports of its
            providers' keys. Must be fast.
        limits: Gives shares of clients' limits, such as `Hub.limits`. By default what was spent of
            budgets is kept in memory.
        max_message_bytes: The largest message that the channels take.
    """
    clients = _Clients(backend, on_key_report, limits or LimitShares())
    with backend.subscribe() as changes:
        async with open_remote_service(
            STORED_ROWS,
            clients,
            changes,
            admit=clients.admit,
            is_live=clients.is_live,
            catch_up=clients.catch_up,
            services=[clients] if keep_usage is None else [clients, _Usage(keep_usage)],
            observer=observer,
            max_message_bytes=max_message_bytes,
            owner_name="control plane",
            follower_name="gateway",
        ) as service:
            yield service
