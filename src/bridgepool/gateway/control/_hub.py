"""The hub: what a control plane serves to its gateways, read from the store once per revision.

Theory of operation. The hub keeps one snapshot of the store: providers, clients, the gateways'
keys. A task reads the store again when it gives notice of a new revision, and at an interval; the
registration of the control plane shows whether the store can be written. A snapshot of a higher
revision replaces the old one in one step, and then the subscribers are notified. Gateways are
answered from that snapshot, so an unavailable store stops nothing: gateways that come back are
served from the last snapshot, too.

A store that went back (a backup was restored) is found out by what was served here, or by what a
gateway has seen. Unless somebody did so already, the hub then begins a new epoch of the store.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

import attrs
import trio

from bridgepool._changes import ChangeBus, ChangeSubscription
from bridgepool._secret import Secret
from bridgepool._services import open_background_nursery
from bridgepool._snapshot import ProviderSnapshot
from bridgepool.gateway.control._applied import (
    NOBODY_EXPECTED,
    AppliedReport,
    Expected,
    applied_report,
)
from bridgepool.gateway.control._errors import NotFoundError, StoreUnavailableError
from bridgepool.gateway.control._gateway_session import GatewaySession
from bridgepool.gateway.control._limit_shares import LimitShares, open_limit_shares
from bridgepool.gateway.control._records import Actor, StoreSnapshot
from bridgepool.gateway.control._refusal_audit import RefusalAudit
from bridgepool.gateway.control._registration import new_program_name, registered
from bridgepool.gateway.control._revisions import Revisions
from bridgepool.gateway.control._sessions import GatewaySessions
from bridgepool.gateway.control._store_access import StoreAccess
from bridgepool.gateway.control.store import Store
from bridgepool.gateway.providers import Caller
from bridgepool.gateway.providers._access_keys import GATEWAY_KEYS, token_bytes
from bridgepool.gateway.providers._key_status import KeyReport
from bridgepool.gateway.providers._wire import ProviderRow
from bridgepool.remote import Acknowledge, Identity, SessionEnd, SessionInfo

logger = logging.getLogger("bridgepool.control")

_SELF: Final = Actor("program", "control plane")
# Who has a gateway's key can pretend to have seen anything: it costs so many epochs, and no more.
_MAX_RENEWALS: Final = 10
_RENEWALS_PERIOD: Final = 600.0  # seconds


@attrs.frozen
class HubStatus:
    """The status of a `Hub`."""

    revisions: Revisions
    """What is served."""
    unreadable: int
    """How many providers could not be decrypted."""
    connected: int
    """Sessions of gateways that are open here."""
    read_problem: str | None
    """Why the store cannot be read now; None when it can."""
    write_problem: str | None
    """Why the store cannot be written now; None when it can."""
    ending: bool
    """The process is shutting down; see `Hub.end_waits`."""


@attrs.define(eq=False)
class Hub:
    """A `GatewayBackend` on a store; made by `open_hub`."""

    _store: Store
    _sessions: GatewaySessions
    _served: StoreSnapshot
    limits: LimitShares
    """The shares of clients' limits that gateways hold."""
    _changed: ChangeBus = attrs.field(factory=ChangeBus, init=False)
    _turn: trio.Lock = attrs.field(factory=trio.Lock, init=False)  # one read of the store at a time
    _reading: StoreAccess = attrs.field(init=False)
    _writing: StoreAccess = attrs.field(init=False)
    _refusals: RefusalAudit = attrs.field(init=False)
    refused: int = attrs.field(default=0, init=False)
    """Keys of gateways that were refused; only grows."""
    _renewals: deque[float] = attrs.field(factory=deque, init=False)  # when, those from here
    _ending: trio.Event = attrs.field(factory=trio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        def facts() -> dict[str, object]:
            return {"revision": self.revisions.revision}

        self._refusals = RefusalAudit(self._store, "gateway")
        self._reading = StoreAccess(
            "store unavailable; serving the last snapshot", "store available again", facts
        )
        self._writing = StoreAccess(
            "store cannot be written; changes are refused", "store can be written again", facts
        )

    # -- for `open_gateway_service`

    @property
    def revisions(self) -> Revisions:
        """The revisions in force here."""
        return self._served.revisions

    def subscribe(self) -> ChangeSubscription:
        """Open a channel of notices that `revisions` moved."""
        return self._changed.subscribe()

    async def reload(self) -> ProviderSnapshot[ProviderRow]:
        """Return the providers of the served snapshot. A checkpoint; uses no database."""
        await trio.lowlevel.checkpoint()
        served, revisions = self._served, self.revisions
        return ProviderSnapshot(
            served.rows, revisions.revision, revisions.epoch, allow_empty=served.allow_empty
        )

    async def catch_up(self, seen: Revisions) -> Revisions:
        """Read the store if a gateway has seen what is not known here. A checkpoint.

        If the store went back since, it gets a new epoch.

        Raises:
            StoreError: It cannot be read or changed now.
        """
        await trio.lowlevel.checkpoint()
        if self._is_lost(seen):
            await self.refresh()
        if self._is_lost(seen):
            await self._renew_epoch(seen)
            await self.refresh()
        return self.revisions

    def _is_lost(self, seen: Revisions) -> bool:
        return seen.lost_by(self.revisions, self._served.epochs)

    async def _renew_epoch(self, seen: Revisions | None) -> None:
        """Begin a new epoch; unless another process did so, if what was seen can tell that."""
        now = trio.current_time()
        while self._renewals and self._renewals[0] <= now - _RENEWALS_PERIOD:
            self._renewals.popleft()
        if len(self._renewals) >= _MAX_RENEWALS:
            raise StoreUnavailableError(
                "the store seems to go back again and again; run `bridgepool store restored`"
            )
        renewed = await self._store.renew_epoch(_SELF, seen)
        if renewed.changed:
            self._renewals.append(now)
            last = (seen or self.revisions).revision
            facts = {"seen": last, "revision": renewed.revision, "epoch": renewed.epoch}
            logger.warning("store went back to an earlier state; began a new epoch", extra=facts)

    async def authorize(self, token: Secret) -> Caller | None:
        """Return whose key this is. A checkpoint; asks no database."""
        await trio.lowlevel.checkpoint()
        return self._served.clients.authenticate(token_bytes(token))

    async def admit(self, key: Secret) -> Identity | None:
        """Return the gateway whose key this is, None if it is unknown. A checkpoint.

        One that is not known here may have been made a moment ago elsewhere: the store is asked.

        Raises:
            StoreUnavailableError: The key is not known here, and the store is away.
        """
        await trio.lowlevel.checkpoint()
        token = token_bytes(key)
        key_id = GATEWAY_KEYS.id_of(token)
        if key_id is None:
            return None
        name = key_id.decode("ascii")
        if name not in self._served.gateway_keys:
            if await self._store.authenticate("gateway", key) is None:
                return None
            await self.refresh()
        found = self._served.gateway_keys.get(name)
        return found.identity if found is not None and found.hash.matches(token) else None

    async def note_refused(self, peer: str) -> None:
        """Note in the audit that a gateway's key was refused. A checkpoint."""
        self.refused += 1
        await self._refusals.note(peer)

    def is_live(self, key_id: str) -> bool:
        """Return whether a gateway key is still good."""
        return key_id in self._served.gateway_keys

    def session_opened(self, session: SessionInfo) -> None:
        """Note that a gateway has begun a session."""
        self._sessions.opened(session)

    def acknowledged(self, session_id: str, receipt: Acknowledge) -> None:
        """Note what a gateway made of a revision."""
        explained = self._served.explain(receipt.rejected)
        # A gateway that knows no epochs means the one that it is served.
        epoch = self.revisions.epoch if receipt.epoch is None else receipt.epoch
        known = attrs.evolve(receipt, rejected=explained, epoch=epoch)
        self._sessions.acknowledged(session_id, known)

    def note_keys(self, session_id: str, report: KeyReport) -> None:
        """Note what a gateway reports of its providers' keys."""
        self._sessions.note_keys(session_id, report)

    def session_closed(self, session_id: str, end: SessionEnd) -> None:
        """Note that a session has ended, and how."""
        self._sessions.closed(session_id, end)

    # -- for the API

    def subscribe_sessions(self) -> ChangeSubscription:
        """Open a channel of notices that a session of a gateway here changed."""
        return self._sessions.subscribe()

    def is_pending(self, revision: int) -> bool:
        """Return whether a gateway that is connected here has still to confirm a revision."""
        return self._sessions.is_pending(revision, self.revisions)

    def status(self) -> HubStatus:
        """Return the current status."""
        return HubStatus(
            revisions=self.revisions,
            unreadable=len(self._served.unreadable),
            connected=self._sessions.connected,
            read_problem=self._reading.problem,
            write_problem=self._writing.problem,
            ending=self._ending.is_set(),
        )

    async def gateways(self) -> tuple[GatewaySession, ...]:
        """Return what is known of all gateways, whichever control plane they are connected to.

        A checkpoint.

        Raises:
            StoreUnavailableError: The store is away, which has those of others.
        """
        return await self._sessions.list_all()

    async def wait_applied(
        self,
        revision: int,
        wait: float = math.inf,
        expected: Expected = NOBODY_EXPECTED,
        *,
        poll: float = 0.25,
    ) -> AppliedReport:
        """Wait until every gateway has acknowledged a revision that is connected or reconnecting.

        What gateways of this control plane acknowledge counts at once; what those of others do,
        when it is in the store. A checkpoint.

        Args:
            revision: One that is in force, or was.
            wait: At most so many seconds; then the report says which have not.
            expected: Wait for these gateways as well, though they are not connected.
            poll: Seconds between two looks into the store.

        Raises:
            NotFoundError: The store is not at that revision yet.
            StoreUnavailableError: The store is away.
        """
        revisions = self.revisions
        if revision > revisions.revision:
            revisions = await self._store.revisions()
        if revision > revisions.revision:
            raise NotFoundError("revision", str(revision))
        deadline = trio.current_time() + wait
        with self._sessions.subscribe() as changes:
            while True:
                stored = await self._sessions.read_stored()
                forgotten = self._sessions.forgotten
                look = min(deadline, trio.current_time() + poll)
                while forgotten == self._sessions.forgotten:
                    now = trio.current_time()
                    over = now >= deadline or self._ending.is_set()
                    latest = self.revisions
                    if over or not self._sessions.is_pending(revision, latest):
                        sessions = self._sessions.merge(stored)
                        report = applied_report(revision, sessions, latest, expected)
                        if over or report.complete:
                            return report
                    if now >= look:
                        break
                    with trio.move_on_at(look):
                        await changes.receive()

    def end_waits(self) -> None:
        """End all waits of `wait_applied`, now and from now on: the process is shutting down."""
        self._ending.set()

    # -- following the store

    async def refresh(self) -> None:
        """Read the store; what has changed is in force when this returns. A checkpoint.

        Raises:
            StoreError: It cannot be read.
        """
        async with self._turn:
            served, present = await self._store.snapshot(), self.revisions
            if present.lost_by(served.revisions, served.epochs):
                await self._renew_epoch(present)
                served = await self._store.snapshot()
            elif _has_other_clients(self._served, served):
                await self._renew_epoch(None)
                served = await self._store.snapshot()
            if served.revisions != present:
                self._served = served
                self._changed.publish()

    async def _look(self) -> None:
        # A notice may come without a change: a few numbers say whether there is any.
        if await self._store.revisions() != self.revisions:
            await self.refresh()


def _has_other_clients(before: StoreSnapshot, after: StoreSnapshot) -> bool:
    """Return whether the store went back, and has come as far again by other changes."""
    one, other = before.revisions, after.revisions
    same = (one.epoch, one.clients) == (other.epoch, other.clients)
    return same and before.clients != after.clients


@asynccontextmanager
async def open_hub(
    store: Store,
    *,
    poll_interval: float = 2.0,
    write_interval: float = 10.0,
    gather: float = 0.25,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[Hub]:
    """Open a hub on a store, and follow the store until the block is left.

    Args:
        store: The store.
        poll_interval: Seconds after which the store's revision is looked at without a notice.
        write_interval: Seconds between two signs of life, which also show whether the store can
            be written.
        gather: Seconds for which changes of sessions are collected into one write.
        clock: Returns the time since the epoch, for the times that people read.

    Resource handling:
        Leaving unregisters this control plane, and writes the sessions of gateways, for at most
        three seconds.

    Raises:
        StoreError: The store cannot be read the first time.
    """
    name = new_program_name()
    sessions = GatewaySessions(
        store,
        name,
        lambda: datetime.fromtimestamp(clock(), UTC),
        gather,
    )
    with store.subscribe() as notices:
        served = await store.snapshot()

        async def wait_notice() -> None:
            with trio.move_on_after(poll_interval):
                await notices.receive()

        try:
            async with open_limit_shares(store, name, wall=clock) as limits:
                hub = Hub(store, sessions, served, limits)
                async with (
                    registered(
                        store, "control plane", name, interval=write_interval, writing=hub._writing
                    ),
                    open_background_nursery() as nursery,
                ):
                    nursery.start_soon(hub._reading.keep_trying, hub._look, wait_notice)
                    nursery.start_soon(sessions.run_writer)
                    nursery.start_soon(sessions.run_heartbeat)
                    try:
                        yield hub
                    finally:
                        hub.end_waits()
        finally:
            with trio.move_on_after(2, shield=True):
                await sessions.flush()
