"""The rows of running gateways: what they serve by, and when each was last in contact.

Written in batches by control planes. No change here moves the revision.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import attrs
import msgspec

from bridgepool.gateway.control._applied import STALE_AFTER
from bridgepool.gateway.control._errors import InvalidChangeError, NotFoundError
from bridgepool.gateway.control._gateway_session import GatewaySession
from bridgepool.gateway.control.database import Codec, Table, time_to_text
from bridgepool.gateway.control.store import _audit_rows as audit_rows
from bridgepool.gateway.control.store._transaction import StoreTransaction
from bridgepool.gateway.providers._key_status import KeyReport
from bridgepool.remote import RejectedRow

KEY_REPORT: Final = Codec(
    lambda report: None if report is None else msgspec.json.encode(report).decode(),
    lambda text: None if text is None else msgspec.json.decode(text, type=KeyReport),
)
GATEWAYS: Final = Table(
    "gateways",
    GatewaySession,
    key="instance",
    codecs={
        "rejected": Codec(
            lambda rejected: json.dumps([[row.name, row.reason] for row in rejected]),
            lambda text: tuple(RejectedRow(name, reason) for name, reason in json.loads(text)),
        ),
        "provider_keys": KEY_REPORT,
    },
)
# One session follows another of the same instance, maybe at another control plane, which may
# record the end of the old one later than the other the beginning of the new one.
_IF_NEWER: Final = """gateways.session = excluded.session OR (
    excluded.connected = 1
    AND (gateways.connected = 0 OR gateways.since <= excluded.since)
)"""


def record(tx: StoreTransaction, sessions: Iterable[GatewaySession]) -> None:
    """Keep what is known of sessions."""
    for session in sessions:
        GATEWAYS.upsert(tx.sql, session, condition=_IF_NEWER)


def list_all(tx: StoreTransaction) -> tuple[GatewaySession, ...]:
    """Return all, by name and instance."""
    return tuple(GATEWAYS.select(tx.sql, "ORDER BY gateway, instance"))


def forget(tx: StoreTransaction, name: str) -> int:
    """Forget the processes of a gateway, or one by its instance, that are offline; return how many.

    Raises:
        NotFoundError: No gateway of that name is known.
        InvalidChangeError: It is connected, or was a moment ago.
    """
    rows = tuple(GATEWAYS.select(tx.sql, "WHERE gateway = ? OR instance = ?", name, name))
    offline = [row for row in rows if not row.connected and not row.reconnecting]
    if not rows:
        raise NotFoundError("gateway", name)
    if not offline:
        raise InvalidChangeError(f"gateway {name}: is not offline; stop it first")
    for row in offline:
        tx.sql.execute("DELETE FROM gateways WHERE instance = ?", row.instance)
        before = {"gateway": row.gateway, "last_contact": time_to_text(row.last_contact)}
        audit_rows.record(tx, "gateway.forget", row.instance, row.gateway, before, None)
    return len(offline)


def touch(tx: StoreTransaction, control_plane: str) -> int:
    """Note that the gateways of a control plane are still connected; return how many."""
    return tx.sql.execute(
        "UPDATE gateways SET last_contact = ? WHERE control_plane = ? AND connected = 1",
        time_to_text(tx.now),
        control_plane,
    )


@attrs.frozen(kw_only=True)
class GatewayExpiry:
    """How long gateways that are silent count as what they were; in seconds."""

    stale_after: float = STALE_AFTER
    """Since the last contact of one that is marked as connected: then it is reconnecting."""
    reconnect_within: float = 20.0
    """Then one that is reconnecting is offline: the longest back-off, and as much again."""
    forget_replaced_after: float = 600.0
    """Since the last contact of one that is offline, if a process of its name connected later."""
    forget_stopped_after: float = 86400.0
    """Since the last contact of one that has stopped."""
    forget_after: float = 7 * 86400.0
    """Since the last contact of another that is offline."""


@attrs.define(eq=False)
class Staleness:
    """Finds the gateways that a dead control plane has left, independently of the clocks.

    Stale is one whose last contact has stayed the same for so long, by a monotonic clock. Only
    the first look has nothing but the dates to go by.
    """

    # session, last contact and whether it is reconnecting -> when it was first seen so
    _seen: Mapping[tuple[str, datetime, bool], float] | None = attrs.field(default=None, init=False)

    def expire(self, tx: StoreTransaction, seconds: float, expiry: GatewayExpiry) -> int:
        """Note the stale as reconnecting, then as offline; forget the old; return how many.

        Args:
            tx: The transaction.
            seconds: The time by a monotonic clock.
            expiry: How long they have.
        """
        seen: dict[tuple[str, datetime, bool], float] = {}
        changed = 0
        limit = _before(tx.now, expiry.stale_after)
        for row in GATEWAYS.select(tx.sql, "WHERE connected = 1 OR reconnecting = 1"):
            contact = row.session, row.last_contact, row.reconnecting
            first = (self._seen or {}).get(contact, seconds)
            longest = expiry.reconnect_within if row.reconnecting else expiry.stale_after
            over = seconds - first >= longest
            # One that is reconnecting has its time from the first look on: before that there may
            # have been nobody to connect to.
            dated = self._seen is None and row.last_contact < limit and not row.reconnecting
            if over or dated:
                later = attrs.evolve(row, connected=False, reconnecting=not row.reconnecting)
                GATEWAYS.update(tx.sql, later)
                changed += 1
                if later.reconnecting:
                    seen[row.session, row.last_contact, True] = seconds
            else:
                seen[contact] = first
        self._seen = seen
        return changed + tx.sql.execute(
            "DELETE FROM gateways WHERE connected = 0 AND reconnecting = 0 "
            "AND (last_contact < CASE WHEN stopped = 1 THEN ? ELSE ? END "
            "OR (last_contact < ? AND EXISTS (SELECT 1 FROM gateways AS later "
            "WHERE later.gateway = gateways.gateway AND later.connected = 1 "
            "AND later.since > gateways.last_contact)))",
            time_to_text(_before(tx.now, expiry.forget_stopped_after)),
            time_to_text(_before(tx.now, expiry.forget_after)),
            time_to_text(_before(tx.now, expiry.forget_replaced_after)),
        )


def _before(now: datetime, seconds: float) -> datetime:
    try:
        return now - timedelta(seconds=seconds)
    except OverflowError:  # for ever
        return datetime.min.replace(tzinfo=UTC)
