"""The metrics of a control plane: counted as requests and receipts come, or read from its state."""

from __future__ import annotations

from collections import Counter as CountBy
from collections.abc import Iterator
from typing import Final

import attrs
import trio

from bridgepool.gateway.control._errors import StoreError
from bridgepool.gateway.control._gateway_session import GatewaySession
from bridgepool.gateway.control._hub import Hub
from bridgepool.gateway.control.api import ApiRecord
from bridgepool.gateway.metrics import _declarations as names
from bridgepool.gateway.metrics._cells import Counters, Histograms
from bridgepool.gateway.metrics._exposition import CONTENT_TYPE, family, write
from bridgepool.gateway.metrics._program import ProgramMetrics
from bridgepool.gateway.serving._refused_keys import RefusedKeys
from bridgepool.http import Headers

_MAX_ROLLOUTS: Final = 100  # revisions that gateways have still to confirm
_STATES: Final = ("connected", "reconnecting", "disconnected")


@attrs.define(eq=False)
class ControlPlaneMetrics:
    """Counts and writes the metrics of a control plane."""

    _hub: Hub
    _program: ProgramMetrics
    _refused_keys: RefusedKeys
    _drift: int | None
    _api: Counters = attrs.field(factory=lambda: Counters(names.API_REQUESTS), init=False)
    _rollouts: Histograms = attrs.field(factory=lambda: Histograms(names.ROLLOUT), init=False)
    # revision that a gateway has still to confirm -> when it began to be served
    _begun: dict[int, float] = attrs.field(factory=dict, init=False)

    def observe_api(self, request: ApiRecord) -> None:
        """Count an ended request of the API."""
        status = f"{request.status // 100}xx" if request.status else ""
        self._api.child(request.method, request.pattern, status).value += 1

    async def watch_rollouts(self) -> None:
        """Measure how long revisions take until all gateways have them, until cancelled."""
        changes, sessions = self._hub.subscribe(), self._hub.subscribe_sessions()
        async with changes, sessions, trio.open_nursery() as nursery:
            nursery.start_soon(self._note_revisions, changes)
            nursery.start_soon(self._note_receipts, sessions)

    async def _note_revisions(self, changes: trio.abc.ReceiveChannel[object]) -> None:
        async for _ in changes:
            if self._hub.status().connected:
                self._begun.setdefault(self._hub.revisions.revision, trio.current_time())
                if len(self._begun) > _MAX_ROLLOUTS:
                    del self._begun[next(iter(self._begun))]
            self._settle()  # the last receipt may have been faster than the notice

    async def _note_receipts(self, sessions: trio.abc.ReceiveChannel[object]) -> None:
        async for _ in sessions:
            self._settle()

    def _settle(self) -> None:
        for revision in list(self._begun):
            if not self._hub.is_pending(revision):
                seconds = trio.current_time() - self._begun.pop(revision)
                self._rollouts.child().observe(seconds)

    async def page(self) -> tuple[int, Headers, bytes]:
        """Return status, headers and body of `/metrics`. Reads the store, if that is there."""
        try:
            gateways = await self._hub.gateways()
        except StoreError:  # the hub logs it
            gateways = None
        return 200, (CONTENT_TYPE,), await write(self._lines(gateways))

    def _lines(self, gateways: tuple[GatewaySession, ...] | None) -> Iterator[str]:
        status = self._hub.status()
        reads, writes = status.read_problem is None, status.write_problem is None
        ready = reads and writes and not status.ending
        yield from self._program.lines(ready=ready, revision=status.revisions.revision)
        yield from family(names.STORE_AVAILABLE, [(("read",), reads), (("write",), writes)])
        yield from family(names.UNREADABLE, [((), status.unreadable)])
        if self._drift is not None:
            yield from family(names.DRIFT, [((), self._drift)])
        refused = {"admin": self._refused_keys.count, "gateway": self._hub.refused}
        yield from family(names.REFUSED_KEYS, (((kind,), n) for kind, n in refused.items()))
        yield from self._api.lines()
        self._rollouts.child()
        yield from self._rollouts.lines()
        if gateways is not None:
            yield from self._gateway_lines(gateways)

    def _gateway_lines(self, gateways: tuple[GatewaySession, ...]) -> Iterator[str]:
        now = self._hub.revisions
        connected = [one for one in gateways if one.connected]
        states = CountBy(map(_state, gateways))
        yield from family(names.GATEWAYS, (((state,), states[state]) for state in _STATES))
        behind = sum((one.revision, one.epoch) != (now.revision, now.epoch) for one in connected)
        yield from family(names.GATEWAYS_BEHIND, [((), behind)])
        rejected = sum(len(one.rejected) for one in connected)
        yield from family(names.REJECTED, [((), rejected)])


def _state(gateway: GatewaySession) -> str:
    if gateway.connected:
        return "connected"
    return "reconnecting" if gateway.reconnecting else "disconnected"
