"""Operations on gateways and revisions: who follows, and whether a change is live."""

from __future__ import annotations

from typing import Annotated, Final

import attrs
from msgspec import Meta

from bridgepool.gateway.control._applied import AppliedReport, Expected
from bridgepool.gateway.control._gateway_session import GatewaySession
from bridgepool.gateway.control._records import EpochChange
from bridgepool.gateway.control._revisions import Revisions
from bridgepool.gateway.control.operations._operation import Admin, Context, operation
from bridgepool.gateway.control.operations._requests import (
    MAX_INTEGER,
    MAX_TEXT,
    Number,
    PathName,
)
from bridgepool.remote import RejectedRow

MAX_WAIT: Final = 60.0
"""Seconds for which one request may wait."""


@attrs.frozen
class GatewayList:
    """All gateways."""

    revision: int
    """The current one."""
    epoch: str
    """Its epoch: revisions of two epochs do not compare."""
    unreadable: tuple[RejectedRow, ...]
    """The providers that cannot be decrypted with the encryption keys in use, and why."""
    gateways: tuple[GatewaySession, ...]


@operation("GET", "/gateways")
async def list_gateways(context: Context) -> GatewayList:
    """List the gateways that are known, whichever control plane they are connected to."""
    now = await context.store.revisions()
    unreadable = await context.store.unreadable()
    sessions = await context.gateways.gateways()
    return GatewayList(now.revision, now.epoch, unreadable, sessions)


@attrs.frozen
class ForgottenGateways:
    """What was forgotten."""

    forgotten: int
    """How many processes."""


@operation("DELETE", "/gateways/{gateway}")
async def forget_gateway(context: Context, gateway: PathName) -> ForgottenGateways:
    """Forget the processes of a gateway that are offline; one by its instance, or all by name."""
    return ForgottenGateways(await context.store.forget_gateway(context.actor, gateway))


@operation("GET", "/revision")
async def get_revision(context: Context) -> Revisions:
    """Return the current revisions."""
    return await context.store.revisions()


@operation("POST", "/store/restored")
async def store_restored(context: Context) -> EpochChange:
    """Begin a new epoch, because a backup was restored: all gateways ask for everything anew."""
    return await context.store.renew_epoch(context.actor)


@operation("GET", "/revisions/{revision}/applied")
async def wait_applied(
    context: Context,
    revision: Number,
    wait: Annotated[
        float,
        Meta(ge=0, le=MAX_WAIT, description="Seconds to wait until it is complete."),
    ] = 0.0,
    expect: Annotated[
        str, Meta(max_length=MAX_TEXT, description="Names of gateways, separated by commas.")
    ] = "",
    minimum: Annotated[
        int, Meta(ge=0, le=MAX_INTEGER, description="How many gateway processes must serve it.")
    ] = 0,
) -> AppliedReport:
    """Return the state of a revision on each gateway."""
    expected = Expected(tuple(filter(None, expect.split(","))), minimum)
    return await context.gateways.wait_applied(revision, wait, expected)


async def wait_long(
    admin: Admin, revision: int, wait: float, expect: str = "", minimum: int = 0
) -> AppliedReport:
    """Do `wait_applied` for longer than one request may take."""
    while True:
        part = min(wait, MAX_WAIT)
        report = await admin.do(wait_applied, revision, part, expect, minimum)
        wait -= part
        if report.complete or wait <= 0:
            return report
