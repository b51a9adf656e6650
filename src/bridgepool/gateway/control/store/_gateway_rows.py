"""The rows of running gateways: what they serve by, and when they were heard of last.

Written in batches by control planes. No change here moves the revision.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import attrs

from bridgepool.gateway.control._records import GatewaySession
from bridgepool.gateway.control.store._transaction import StoreTransaction, to_text, to_time
from bridgepool.remote._messages import Rejection

_COLUMNS: Final = (
    "instance, gateway, key_id, session, control_plane, software, connected, since, "
    "last_contact, revision, rejected"
)
# One session follows another of the same instance, maybe at another control plane, which may
# tell of the end of the old one later than the other of the beginning of the new one.
_UPSERT: Final = f"""
    INSERT INTO gateways ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (instance) DO UPDATE SET
        gateway = excluded.gateway, key_id = excluded.key_id, session = excluded.session,
        control_plane = excluded.control_plane, software = excluded.software,
        connected = excluded.connected, since = excluded.since,
        last_contact = excluded.last_contact, revision = excluded.revision,
        rejected = excluded.rejected
    WHERE gateways.session = excluded.session OR (
        excluded.connected = 1
        AND (gateways.connected = 0 OR gateways.since <= excluded.since)
    )
"""  # noqa: S608 -- the columns above

_SELECT: Final = f"SELECT {_COLUMNS} FROM gateways ORDER BY gateway, instance"  # noqa: S608 -- ours


def record(tx: StoreTransaction, sessions: Iterable[GatewaySession]) -> None:
    """Keep what is known of sessions."""
    for session in sessions:
        rejected = [[row.name, row.reason] for row in session.rejected]
        tx.sql.execute(
            _UPSERT,
            session.instance,
            session.gateway,
            session.key_id,
            session.session,
            session.control_plane,
            session.software,
            int(session.connected),
            to_text(session.since),
            to_text(session.last_contact),
            session.revision,
            json.dumps(rejected),
        )


def list_all(tx: StoreTransaction) -> tuple[GatewaySession, ...]:
    """Return all, by name and instance."""
    rows = tx.sql.fetch_all(_SELECT)
    return tuple(
        GatewaySession(
            instance=instance,
            gateway=gateway,
            key_id=key_id,
            session=session,
            control_plane=control_plane,
            software=software,
            connected=bool(connected),
            since=to_time(since),
            last_contact=to_time(last_contact),
            revision=revision,
            rejected=tuple(Rejection(name, reason) for name, reason in json.loads(rejected)),
        )
        for (
            instance,
            gateway,
            key_id,
            session,
            control_plane,
            software,
            connected,
            since,
            last_contact,
            revision,
            rejected,
        ) in rows
    )


def touch(tx: StoreTransaction, control_plane: str) -> int:
    """Note that the gateways of a control plane are still connected; return how many."""
    return tx.sql.execute(
        "UPDATE gateways SET last_contact = ? WHERE control_plane = ? AND connected = 1",
        tx.now,
        control_plane,
    )


@attrs.define(eq=False)
class Staleness:
    """Finds those that a dead control plane has left, though no clock of a machine is right.

    Stale is whose last contact has stayed the same for so long, by a clock that nobody sets.
    Only the first look has nothing but the dates to go by.
    """

    # session and last contact -> when it was first seen so
    _seen: Mapping[tuple[str, str], float] | None = attrs.field(default=None, init=False)

    def expire(
        self,
        tx: StoreTransaction,
        seconds: float,
        stale_after: float,
        forget_after: float,
    ) -> int:
        """Note the stale as not connected, and forget the old; return how many that were.

        Args:
            tx: The transaction.
            seconds: The time by the clock that nobody sets.
            stale_after: See `Store.expire_gateways`.
            forget_after: See there.
        """
        seen: dict[tuple[str, str], float] = {}
        changed = 0
        limit = to_text(_before(tx.now, stale_after))
        for session, contact in tx.sql.fetch_all(
            "SELECT session, last_contact FROM gateways WHERE connected = 1"
        ):
            first = (self._seen or {}).get((session, contact), seconds)
            if seconds - first >= stale_after or (self._seen is None and contact < limit):
                changed += tx.sql.execute(
                    "UPDATE gateways SET connected = 0 WHERE session = ? AND last_contact = ?",
                    session,
                    contact,
                )
            else:
                seen[session, contact] = first
        self._seen = seen
        return changed + tx.sql.execute(
            "DELETE FROM gateways WHERE connected = 0 AND last_contact < ?",
            to_text(_before(tx.now, forget_after)),
        )


def _before(now: str, seconds: float) -> datetime:
    try:
        return to_time(now) - timedelta(seconds=seconds)
    except OverflowError:  # for ever
        return datetime.min.replace(tzinfo=UTC)
