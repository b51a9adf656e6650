"""Whether a change is live: the state of a revision on each gateway. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

import attrs

from bridgepool.gateway.control._records import GatewaySession, Revisions
from bridgepool.remote import RejectedRow

AppliedState: TypeAlias = Literal["applied", "rejected", "pending", "offline"]


@attrs.frozen(kw_only=True)
class GatewayApplied:
    """The state of a revision on one gateway."""

    gateway: str
    instance: str
    state: AppliedState
    """``applied``: it serves this revision or a later one; ``rejected``: the same, except for some
    providers; ``pending``: it is connected and has not acknowledged it yet; ``offline``: not
    connected."""
    revision: int | None
    """The last one that it acknowledged; None before its first receipt."""
    rejected: tuple[RejectedRow, ...] = ()


@attrs.frozen(kw_only=True)
class AppliedReport:
    """The state of a revision on all gateways; made by `applied_report`."""

    revision: int
    complete: bool
    """No connected gateway is pending."""
    applied: bool
    """Every connected gateway serves it, with nothing rejected."""
    gateways: tuple[GatewayApplied, ...]


def applied_report(
    revision: int, sessions: Iterable[GatewaySession], latest: Revisions
) -> AppliedReport:
    """Return the state of a revision on each gateway.

    Args:
        revision: The revision.
        sessions: The sessions of all gateways.
        latest: Where the store is. A gateway that acknowledged a revision of another epoch serves
            what the store had before it went back, so it has not applied this one.
    """
    gateways = tuple(_judge(revision, row, latest) for row in sessions)
    return AppliedReport(
        revision=revision,
        complete=all(one.state != "pending" for one in gateways),
        applied=all(one.state in ("applied", "offline") for one in gateways),
        gateways=gateways,
    )


def has_told(revision: int, session: GatewaySession, latest: Revisions) -> bool:
    """Return whether a gateway has acknowledged a revision; see `applied_report`."""
    if session.revision is None or session.epoch != latest.epoch:
        return False
    return revision <= session.revision <= latest.revision


def _judge(revision: int, session: GatewaySession, latest: Revisions) -> GatewayApplied:
    state: AppliedState = "offline"
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
