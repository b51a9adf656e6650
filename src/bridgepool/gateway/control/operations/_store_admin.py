"""Operations on a store that this process has opened itself."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, ParamSpec, TypeVar

import attrs
import trio

from bridgepool.gateway.control._applied import AppliedReport, Expected, applied_report, as_of
from bridgepool.gateway.control._errors import NotFoundError
from bridgepool.gateway.control._gateway_session import GatewaySession
from bridgepool.gateway.control._records import Actor
from bridgepool.gateway.control.operations import Context, Operation
from bridgepool.gateway.control.store import Store

P = ParamSpec("P")
T = TypeVar("T")

_POLL_INTERVAL: Final = 0.2  # receipts come into the store without a notice


@attrs.frozen
class StoreAdmin:
    """An `Admin` on a store, and what the store knows of `Gateways`."""

    _store: Store
    _actor: Actor

    async def do(self, operation: Operation[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """See `Admin`."""
        return await operation.carry_out(Context(self._store, self, self._actor), *args, **kwargs)

    async def gateways(self) -> tuple[GatewaySession, ...]:
        """See `Gateways`."""
        now = datetime.now(UTC)
        return tuple(as_of(session, now) for session in await self._store.list_gateways())

    async def wait_applied(self, revision: int, wait: float, expected: Expected) -> AppliedReport:
        """See `Gateways`."""
        deadline = trio.current_time() + wait
        while True:
            latest = await self._store.revisions()
            if revision > latest.revision:
                raise NotFoundError("revision", str(revision))
            report = applied_report(revision, await self.gateways(), latest, expected)
            if report.complete or trio.current_time() >= deadline:
                return report
            await trio.sleep(min(_POLL_INTERVAL, max(0.0, deadline - trio.current_time())))
