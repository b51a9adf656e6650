"""Is the gateway well: what `/readyz` says, and why."""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs
import trio

from bridgepool import ReloadStatus


@attrs.frozen(kw_only=True)
class SourceReport:
    """What a source of providers says of itself, for `/readyz`."""

    source: str
    """Where what is in force came from: ``provider file``, ``control plane`` …"""
    connected: bool | None = None
    """Whether it can be reached; None where there is no connection to speak of."""
    trouble: str | None = None
    """Why new work should go elsewhere, if it should. Anyone may read it."""


@attrs.define(eq=False)
class Readiness:
    """Whether new work is welcome.

    Args:
        status: how the reloads go.
        max_stale: seconds after which what is in force is too old.
        first_age: how old the first snapshot was when the gateway was opened; None if it had
            none.
        report: what the source says of itself.
    """

    _status: ReloadStatus
    _max_stale: float
    _first_age: float | None
    _report: Callable[[], SourceReport] | None
    _opened: float = attrs.field(factory=trio.current_time, init=False)
    draining: bool = attrs.field(default=False, init=False)
    """The gateway is about to stop."""

    @property
    def has_snapshot(self) -> bool:
        """Whether any snapshot is in force."""
        return self._first_age is not None or self._status.last_success is not None

    @property
    def staleness(self) -> float:
        """Seconds since the source confirmed what is in force; `math.inf` if it never has."""
        if self._status.last_success is not None:
            return self._status.staleness
        if self._first_age is None:
            return math.inf
        return self._first_age + (trio.current_time() - self._opened)

    def why_not(self) -> str | None:
        """Return why new work should go elsewhere; None if it is welcome."""
        if self.draining:
            return "draining"
        trouble = self._report().trouble if self._report is not None else None
        if trouble is not None:
            return trouble
        if not self.has_snapshot:
            return "no snapshot of providers yet"
        if self.staleness > self._max_stale:
            return "the providers are too old"
        return None

    def document(self, generation: int, revision: int | None) -> dict[str, object]:
        """Return what `/readyz` says."""
        reason = self.why_not()
        document: dict[str, object] = {"ready": reason is None}
        if reason is not None:
            document["reason"] = reason
        if self.has_snapshot:
            document["generation"] = generation
            if revision is not None:
                document["revision"] = revision
            # Strict JSON has no number for "nobody knows".
            age = self.staleness
            document["age"] = round(age, 1) if math.isfinite(age) else None
        if self._report is not None:
            report = self._report()
            document["source"] = report.source
            if report.connected is not None:
                document["connected"] = report.connected
        return document
