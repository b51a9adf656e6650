"""Whether a change is live: the state of a revision on each gateway. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final, Literal, TypeAlias

import attrs

from bridgepool.gateway.control._gateway_session import GatewaySession
from bridgepool.gateway.control._revisions import Revisions
from bridgepool.remote import RejectedRow

AppliedState: TypeAlias = Literal[
    "applied", "rejected", "pending", "reconnecting", "offline", "stopped"
]


STALE_AFTER: Final = 35.0
"""Seconds after which the gateways of a silent control plane count as reconnecting."""


@attrs.frozen(kw_only=True)
class GatewayApplied:
    """The state of a revision on one gateway."""

    gateway: str
    instance: str
    state: AppliedState
    """``applied``: it serves this revision or a later one; ``rejected``: the same, except for some
    providers; ``pending``: it is connected and has not acknowledged it yet; ``reconnecting``: it
    lost its connection, and is expected back; ``offline``: not connected; ``stopped``: it
    ended its session itself."""
    revision: int | None
    """The last one that it acknowledged; None before its first receipt."""
    rejected: tuple[RejectedRow, ...] = ()


@attrs.frozen
class Expected:
    """The gateways on which a change must be live before a wait for it is over."""

    names: tuple[str, ...] = ()
    """The names of gateways of which at least one process must serve it."""
    minimum: int = 0
    """How many gateway processes must serve it."""


NOBODY_EXPECTED = Expected()


@attrs.frozen(kw_only=True)
class AppliedReport:
    """The state of a revision on all gateways; made by `applied_report`."""

    revision: int
    complete: bool
    """No gateway is pending or reconnecting, and those that were expected serve it."""
    applied: bool
    """It is complete, and every connected gateway, at least one, serves it with nothing
    rejected."""
    connected: int
    """How many gateway processes are connected."""
    missing: tuple[str, ...] = ()
    """The expected names of which no process serves it."""
    gateways: tuple[GatewayApplied, ...]


def applied_report(
    revision: int,
    sessions: Iterable[GatewaySession],
    latest: Revisions,
    expected: Expected = NOBODY_EXPECTED,
) -> AppliedReport:
    """Return the state of a revision on each gateway.

    Args:
        revision: The revision.
        sessions: The sessions of all gateways.
        latest: Where the store is. A gateway that acknowledged a revision of another epoch serves
            what the store had before it went back, so it has not applied this one.
        expected: What must be there besides for it to be complete.
    """
    gateways = tuple(_judge(revision, row, latest) for row in sessions)
    serving = [one for one in gateways if one.state in ("applied", "rejected")]
    names = {one.gateway for one in serving}
    missing = tuple(name for name in expected.names if name not in names)
    is_awaited = any(one.state in ("pending", "reconnecting") for one in gateways)
    complete = not is_awaited and not missing and len(serving) >= expected.minimum
    return AppliedReport(
        revision=revision,
        complete=complete,
        applied=complete and bool(serving) and all(one.state == "applied" for one in serving),
        connected=len(serving) + sum(one.state == "pending" for one in gateways),
        missing=missing,
        gateways=gateways,
    )


def has_told(revision: int, session: GatewaySession, latest: Revisions) -> bool:
    """Return whether a gateway has acknowledged a revision; see `applied_report`."""
    if session.revision is None or session.epoch != latest.epoch:
        return False
    return revision <= session.revision <= latest.revision


def as_of(session: GatewaySession, now: datetime) -> GatewaySession:
    """Return what a stored session means at a time, for who cannot watch it for a while.

    One that is marked as connected, and was last in contact too long ago, lost a control plane that
    was killed.
    """
    age = (now - session.last_contact).total_seconds()
    if not session.connected or age < STALE_AFTER:
        return session
    return attrs.evolve(session, connected=False, reconnecting=True)


def _judge(revision: int, session: GatewaySession, latest: Revisions) -> GatewayApplied:
    state: AppliedState = "stopped" if session.stopped else "offline"
    if session.reconnecting:
        state = "reconnecting"
    rejected: tuple[RejectedRow, ...] = ()
    if session.connected:
        state = "pending"
        if has_told(revision, session, latest):
            rejected = session.rejected
            state = "rejected" if rejected else "applied"
    return GatewayApplied(
        gateway=session.gateway,
        instance=session.instance,
        state=state,
        revision=session.revision,
        rejected=rejected,
    )
