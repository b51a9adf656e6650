"""Whether a change is live: what each gateway made of a revision. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

import attrs

from bridgepool.gateway.control._records import GatewaySession
from bridgepool.remote import RejectedRow

AppliedState: TypeAlias = Literal["applied", "rejected", "pending", "offline"]


@attrs.frozen(kw_only=True)
class GatewayApplied:
    """What one gateway made of a revision."""

    gateway: str
    instance: str
    state: AppliedState
    """``applied``: it serves by this revision or a later one; ``rejected``: but for some
    providers; ``pending``: it is connected and has not said so yet, or it is at a revision that
    the store has not, since a backup was put back; ``offline``."""
    revision: int | None
    """The last that it told of; None before its first receipt."""
    rejected: tuple[RejectedRow, ...] = ()


@attrs.frozen(kw_only=True)
class AppliedReport:
    """What all gateways made of a revision; made by `applied_report`."""

    revision: int
    complete: bool
    """No connected gateway is pending."""
    applied: bool
    """Every connected gateway serves by it, nothing rejected."""
    gateways: tuple[GatewayApplied, ...]


def applied_report(revision: int, sessions: Iterable[GatewaySession], latest: int) -> AppliedReport:
    """Report what each gateway made of a revision, from what is known of their sessions.

    Args:
        revision: Which.
        sessions: Those of all gateways.
        latest: The revision that the store is at. A gateway that is beyond it serves what a
            backup, which was put back since, does not have: it has not applied anything here.
    """
    gateways = tuple(_judge(revision, row, latest) for row in sessions)
    return AppliedReport(
        revision=revision,
        complete=all(one.state != "pending" for one in gateways),
        applied=all(one.state in ("applied", "offline") for one in gateways),
        gateways=gateways,
    )


def has_told(revision: int, session: GatewaySession, latest: int) -> bool:
    """Tell whether a gateway has said what it made of a revision; see `applied_report`."""
    return session.revision is not None and revision <= session.revision <= latest


def _judge(revision: int, session: GatewaySession, latest: int) -> GatewayApplied:
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
