"""The sessions of gateways: kept in memory, written to the store in batches.

Theory of operation. A session that begins, acknowledges or ends is recorded in memory at once,
without an await, and marked as unwritten. The writer collects unwritten sessions for a moment and
writes them in one transaction; if the store is unavailable, they stay marked. A session that has
ended is forgotten when its end is written. The sessions of other control planes are only in the
store. If a gateway is connected here, that overrides what the store has of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final

import attrs
import trio

from bridgepool._changes import ChangeBus, ChangeSubscription
from bridgepool._printable import printable
from bridgepool.gateway.control._applied import has_told
from bridgepool.gateway.control._errors import StoreUnavailableError
from bridgepool.gateway.control._gateway_session import GatewaySession
from bridgepool.gateway.control._revisions import Revisions
from bridgepool.gateway.control.store import GatewayExpiry, Store
from bridgepool.gateway.providers._key_status import KeyReport
from bridgepool.remote import Acknowledge, RejectedRow, SessionEnd, SessionInfo

logger = logging.getLogger("bridgepool.control")

_NAME: Final = 200  # characters of a name or a version
_REASON: Final = 1000
_REJECTIONS: Final = 1000
_FINGERPRINT: Final = 32  # characters of a fingerprint or a hint
_MOST: Final = (1 << 63) - 1
_YEAR: Final = 366 * 86400  # seconds
_TOUCH_EVERY: Final = 10.0  # seconds between two records that the connected ones still are


@attrs.define(eq=False)
class GatewaySessions:
    """The sessions of this control plane, and the task that writes them to the store.

    Args:
        store: The store.
        control_plane: The name of this control plane in the rows.
        clock: Returns the time for people.
        gather: Seconds for which changes are collected into one transaction.
    """

    _store: Store
    _control_plane: str
    _clock: Callable[[], datetime]
    _gather: float
    forgotten: int = attrs.field(default=0, init=False)
    """Sessions that ended and are now only in the store; what was read of it before lacks them."""
    _sessions: dict[str, GatewaySession] = attrs.field(factory=dict, init=False)  # by session
    _unwritten: set[str] = attrs.field(factory=set, init=False)  # sessions
    _dirty: trio.Event = attrs.field(factory=trio.Event, init=False)
    _changes: ChangeBus = attrs.field(factory=ChangeBus, init=False)

    # -- called by sessions; cheap, and never raising

    def opened(self, session: SessionInfo) -> None:
        """Record that a session began."""
        now = self._clock()
        begun = GatewaySession(
            instance=printable(session.instance, _NAME) or session.id,
            gateway=session.identity.name,
            key_id=session.identity.key_id,
            session=session.id,
            control_plane=self._control_plane,
            software=printable(session.software, _NAME),
            connected=True,
            since=now,
            last_contact=now,
        )
        others = [
            one
            for one in self._sessions.values()
            if one.connected and one.key_id == begun.key_id and one.instance != begun.instance
        ]
        if len(others) == 1:  # with more of them it was logged
            facts = {"gateway": begun.gateway, "key": begun.key_id, "session": begun.session}
            facts["other_session"] = others[0].session
            logger.warning("gateway key in use by two processes", extra=facts)
        self._update(begun)

    def acknowledged(self, session_id: str, receipt: Acknowledge) -> None:
        """Record a receipt: what a gateway made of a revision."""
        session = self._sessions.get(session_id)
        if session is not None:
            self._update(
                attrs.evolve(
                    session,
                    last_contact=self._clock(),
                    revision=min(max(receipt.revision, 0), _MOST),
                    epoch=printable(receipt.epoch or "", _NAME),
                    rejected=tuple(
                        RejectedRow(printable(row.name, _NAME), printable(row.reason, _REASON))
                        for row in receipt.rejected[:_REJECTIONS]
                    ),
                )
            )

    def note_keys(self, session_id: str, report: KeyReport) -> None:
        """Record what a gateway reports of its providers' keys."""
        session = self._sessions.get(session_id)
        if session is not None:
            now, known = self._clock(), _plausible(report)
            self._update(
                attrs.evolve(session, last_contact=now, provider_keys=known, keys_reported=now)
            )

    def closed(self, session_id: str, end: SessionEnd) -> None:
        """Record that a session ended, and whether the gateway is expected back."""
        session = self._sessions.get(session_id)
        if session is not None:
            self._update(
                attrs.evolve(
                    session,
                    connected=False,
                    reconnecting=end == "lost",
                    stopped=end == "left",
                    last_contact=self._clock(),
                )
            )

    def _update(self, session: GatewaySession) -> None:
        self._sessions[session.session] = session
        self._unwritten.add(session.session)
        self._dirty.set()
        self._changes.publish()

    # -- for the API

    @property
    def connected(self) -> int:
        """How many sessions are open here."""
        return sum(session.connected for session in self._sessions.values())

    def subscribe(self) -> ChangeSubscription:
        """Open a channel of notices that a session of this control plane changed."""
        return self._changes.subscribe()

    def is_pending(self, revision: int, latest: Revisions) -> bool:
        """Return, cheaply, whether a gateway that is connected here has still to answer."""
        return any(
            session.connected and not has_told(revision, session, latest)
            for session in self._sessions.values()
        )

    def merge(self, stored: Iterable[GatewaySession]) -> tuple[GatewaySession, ...]:
        """Return the sessions of all gateways, given those in the store; by name and instance."""
        known = {session.instance: session for session in stored}
        for session in self._sessions.values():
            other = known.get(session.instance)
            if session.connected or other is None or other.session == session.session:
                known[session.instance] = session
        return tuple(sorted(known.values(), key=lambda row: (row.gateway, row.instance)))

    async def list_all(self) -> tuple[GatewaySession, ...]:
        """Return the sessions of all gateways, those of other control planes too."""
        merged = self.merge(await self.read_stored())
        now = self._clock()  # heartbeats keep those here connected
        return tuple(
            attrs.evolve(row, last_contact=now)
            if row.connected and row.session in self._sessions
            else row
            for row in merged
        )

    async def read_stored(self) -> tuple[GatewaySession, ...]:
        """Read the sessions in the store, again if one was forgotten here meanwhile."""
        while True:
            forgotten = self.forgotten
            rows = await self._store.list_gateways()
            if forgotten == self.forgotten:
                return rows

    # -- the tasks

    async def run_writer(self) -> None:
        """Write what has changed, until cancelled."""
        while True:
            await self._dirty.wait()
            await trio.sleep(self._gather)
            if not await self.flush():
                await trio.sleep(1.0)

    async def flush(self) -> bool:
        """Write unwritten sessions; return whether the store was available."""
        self._dirty = trio.Event()
        batch = [self._sessions[session] for session in self._unwritten]
        # An end goes first: it makes room for the session that follows it.
        batch.sort(key=lambda session: session.connected)
        try:
            await self._store.record_gateways(batch)
        except StoreUnavailableError:
            self._dirty.set()
            return False
        except Exception:  # a row that the store refuses must not block all others
            logger.exception("sessions of gateways not written", extra={"rows": len(batch)})
        for session in batch:
            if self._sessions.get(session.session) is session:
                self._unwritten.discard(session.session)
                if not session.connected:
                    del self._sessions[session.session]
                    self.forgotten += 1
                    self._changes.publish()
        return True

    async def run_heartbeat(self) -> None:
        """Keep the rows of open sessions from becoming stale, until cancelled."""
        while True:
            try:
                await self._touch()
            except StoreUnavailableError:
                pass  # the hub logs it once
            except Exception:
                logger.exception("heartbeat of gateway sessions not written")
            await trio.sleep(_TOUCH_EVERY)

    async def _touch(self) -> None:
        written = sum(
            session.connected and session.session not in self._unwritten
            for session in self._sessions.values()
        )
        touched = await self._store.touch_gateways(self._control_plane) if written else 0
        if touched < written:  # another control plane considered this one dead
            self._unwritten.update(self._sessions)
            self._dirty.set()
        await self._store.expire_gateways(GatewayExpiry())


def _plausible(report: KeyReport) -> KeyReport:
    """Return a report in bounds, fit for screens and every database."""
    keys = [
        attrs.evolve(
            key,
            provider=printable(key.provider, _NAME),
            fingerprint=printable(key.fingerprint, _FINGERPRINT),
            hint=printable(key.hint, _FINGERPRINT),
            in_flight=min(max(key.in_flight, 0), _MOST),
            unused_for=None if key.unused_for is None else _seconds(key.unused_for),
            cooling_for=_seconds(key.cooling_for),
        )
        for key in report.keys
    ]
    epoch = None if report.epoch is None else printable(report.epoch, _NAME)
    revision = None if report.revision is None else min(max(report.revision, 0), _MOST)
    return KeyReport(revision=revision, epoch=epoch, keys=tuple(keys))


def _seconds(value: int) -> int:
    return min(max(value, 0), _YEAR)
