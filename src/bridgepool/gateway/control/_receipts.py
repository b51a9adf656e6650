"""What gateways make of each revision: kept in memory, written to the store in batches.

Theory of operation. A session that begins, acknowledges or ends is noted at once, without an
await, and marked as unwritten. The writer gathers what is unwritten for a moment and records it
in one transaction; what cannot be written, since the store is away, stays marked. A session that
has ended is forgotten when its end is written. The sessions of other control planes are only in
the store. Of a gateway that both know, what is connected here is truer than what the store says.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final, Protocol

import attrs
import trio

from bridgepool._changes import ChangeBus, ChangeSubscription
from bridgepool.gateway.control._applied import has_told
from bridgepool.gateway.control._errors import StoreUnavailableError
from bridgepool.gateway.control._records import GatewaySession
from bridgepool.remote import Acknowledge, RejectedRow, SessionInfo

logger = logging.getLogger("bridgepool.control")

_NAME: Final = 200  # characters kept of what a gateway says of itself
_REASON: Final = 1000
_REJECTIONS: Final = 1000


class GatewayRecords(Protocol):
    """What is needed of the store."""

    async def record_gateways(self, sessions: Iterable[GatewaySession]) -> None:
        """Keep what is known of gateways."""
        ...

    async def touch_gateways(self, control_plane: str) -> int:
        """Note that those connected to a control plane still are."""
        ...

    async def list_gateways(self) -> tuple[GatewaySession, ...]:
        """Return what is known of gateways."""
        ...

    async def expire_gateways(self, *, stale_after: float, forget_after: float) -> int:
        """Note as not connected those that a dead control plane has left."""
        ...


@attrs.define(eq=False)
class Receipts:
    """The sessions of this control plane, and the writer that brings them into the store.

    Args:
        records: The store.
        control_plane: The name of this control plane in the rows.
        clock: Tells the time for people.
        gather: Seconds for which receipts are gathered into one transaction.
        touch_every: Seconds between two notes that the connected ones still are.
        stale_after: Seconds after which gateways of a control plane that is silent count as
            offline.
        forget_after: Seconds after which a gateway that is offline is forgotten.
    """

    _records: GatewayRecords
    _control_plane: str
    _clock: Callable[[], datetime]
    _gather: float = attrs.field(default=0.25, kw_only=True)
    _touch_every: float = attrs.field(default=10.0, kw_only=True)
    _stale_after: float = attrs.field(default=35.0, kw_only=True)
    _forget_after: float = attrs.field(default=7 * 86400.0, kw_only=True)
    dropped: int = attrs.field(default=0, init=False)
    """Batches that the store would not take, for a reason other than being away."""
    forgotten: int = attrs.field(default=0, init=False)
    """Sessions that have ended and are only in the store: one that was read before lacks them."""
    _sessions: dict[str, GatewaySession] = attrs.field(factory=dict, init=False)  # by session
    _unwritten: set[str] = attrs.field(factory=set, init=False)  # sessions
    _dirty: trio.Event = attrs.field(factory=trio.Event, init=False)
    _heard: ChangeBus = attrs.field(factory=ChangeBus, init=False)

    # -- heard from sessions; cheap, and never raising

    def opened(self, session: SessionInfo) -> None:
        """Note that a session began."""
        now = self._clock()
        self._note(
            GatewaySession(
                instance=_sound(session.instance, _NAME) or session.id,
                gateway=session.identity.name,
                key_id=session.identity.key_id,
                session=session.id,
                control_plane=self._control_plane,
                software=_sound(session.software, _NAME),
                connected=True,
                since=now,
                last_contact=now,
            )
        )

    def acknowledged(self, session_id: str, receipt: Acknowledge) -> None:
        """Note what a gateway made of a revision."""
        session = self._sessions.get(session_id)
        if session is not None:
            self._note(
                attrs.evolve(
                    session,
                    last_contact=self._clock(),
                    revision=min(max(receipt.revision, 0), (1 << 63) - 1),
                    rejected=tuple(
                        RejectedRow(_sound(row.name, _NAME), _sound(row.reason, _REASON))
                        for row in receipt.rejected[:_REJECTIONS]
                    ),
                )
            )

    def closed(self, session_id: str) -> None:
        """Note that a session ended."""
        session = self._sessions.get(session_id)
        if session is not None:
            self._note(attrs.evolve(session, connected=False, last_contact=self._clock()))

    def _note(self, session: GatewaySession) -> None:
        self._sessions[session.session] = session
        self._unwritten.add(session.session)
        self._dirty.set()
        self._heard.publish()

    # -- asked by people

    @property
    def connected(self) -> int:
        """How many sessions are open here."""
        return sum(session.connected for session in self._sessions.values())

    def subscribe(self) -> ChangeSubscription:
        """Open a channel of notices that something was heard here."""
        return self._heard.subscribe()

    def is_pending(self, revision: int, latest: int) -> bool:
        """Tell, cheaply, whether a gateway that is connected here has still to answer."""
        return any(
            session.connected and not has_told(revision, session, latest)
            for session in self._sessions.values()
        )

    def merged(self, stored: Iterable[GatewaySession]) -> tuple[GatewaySession, ...]:
        """Return what is known of all gateways, given what the store says; by name and instance."""
        known = {session.instance: session for session in stored}
        for session in self._sessions.values():
            other = known.get(session.instance)
            if session.connected or other is None or other.session == session.session:
                known[session.instance] = session
        return tuple(sorted(known.values(), key=lambda row: (row.gateway, row.instance)))

    async def everywhere(self) -> tuple[GatewaySession, ...]:
        """Return what is known of all gateways, those of other control planes too."""
        merged = self.merged(await self.stored())
        now = self._clock()  # heartbeats keep those here connected
        return tuple(
            attrs.evolve(row, last_contact=now)
            if row.connected and row.session in self._sessions
            else row
            for row in merged
        )

    async def stored(self) -> tuple[GatewaySession, ...]:
        """Return what the store says, and nothing was forgotten here since."""
        while True:
            forgotten = self.forgotten
            rows = await self._records.list_gateways()
            if forgotten == self.forgotten:
                return rows

    # -- the tasks

    async def write(self) -> None:
        """Write what is heard, until cancelled."""
        while True:
            await self._dirty.wait()
            await trio.sleep(self._gather)
            if not await self.flush():
                await trio.sleep(1.0)

    async def flush(self) -> bool:
        """Write what is unwritten; tell whether the store could be written to."""
        self._dirty = trio.Event()
        batch = [self._sessions[session] for session in self._unwritten]
        # An end goes first: it makes room for the session that follows it.
        batch.sort(key=lambda session: session.connected)
        try:
            await self._records.record_gateways(batch)
        except StoreUnavailableError:
            self._dirty.set()
            return False
        except Exception:  # a row that the store cannot hold must not keep all others out
            logger.exception("receipts of gateways were not kept", extra={"rows": len(batch)})
            self.dropped += 1
        for session in batch:
            if self._sessions.get(session.session) is session:
                self._unwritten.discard(session.session)
                if not session.connected:
                    del self._sessions[session.session]
                    self.forgotten += 1
                    self._heard.publish()
        return True

    async def keep(self) -> None:
        """Keep the rows of open sessions from growing stale, until cancelled."""
        while True:
            try:
                await self._touch()
            except StoreUnavailableError:
                pass  # the hub says so, once
            except Exception:
                logger.exception("the gateways' rows were not kept fresh")
            await trio.sleep(self._touch_every)

    async def _touch(self) -> None:
        written = sum(
            session.connected and session.session not in self._unwritten
            for session in self._sessions.values()
        )
        touched = await self._records.touch_gateways(self._control_plane) if written else 0
        if touched < written:  # another control plane took us for dead
            self._unwritten.update(self._sessions)
            self._dirty.set()
        await self._records.expire_gateways(
            stale_after=self._stale_after, forget_after=self._forget_after
        )


def _sound(text: str, most: int) -> str:
    """Make what a gateway said fit for logs, screens and every database."""
    cut = text[:most]
    return cut if cut.isprintable() else "".join(c if c.isprintable() else "?" for c in cut)
