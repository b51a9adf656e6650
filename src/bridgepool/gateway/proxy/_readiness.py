"""Readiness: whether the gateway should get new work, and the document of `/readyz`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import attrs
import trio

from bridgepool import ReloadStatus
from bridgepool.gateway.proxy._runtimes import Runtimes


@attrs.frozen(kw_only=True)
class SourceReport:
    """What a source of providers reports for `/readyz`."""

    source: str
    """The origin of the snapshot in force: ``provider file``, ``control plane`` …"""
    connected: bool | None = None
    """Whether the source is connected; None if it has no connection."""
    unreadable: int | None = None
    """How many providers of a store cannot be decrypted; None if the source is another."""
    problem: str | None = None
    """Why the gateway is not ready, if so. Anyone may read it."""


@attrs.define(eq=False)
class Readiness:
    """The readiness of one gateway.

    Args:
        status: the status of the reloads.
        max_stale: age in seconds above which the snapshot in force is too old.
        first_age: the age of the first snapshot when the gateway was opened; None without one.
        report: returns the source's report.
        runtimes: have the providers in force.
        log_lines_dropped: returns how many lines the logs have lost.
        usage_full: returns whether requests are refused, since their usage cannot be recorded.
        usage_report: returns the state of the spool of usage records.
    """

    _status: ReloadStatus
    _max_stale: float
    _first_age: float | None
    _report: Callable[[], SourceReport] | None
    _runtimes: Runtimes
    _log_lines_dropped: Callable[[], int] | None
    _usage_full: Callable[[], bool] | None
    _usage_report: Callable[[], Mapping[str, object]] | None
    _opened: float = attrs.field(factory=trio.current_time, init=False)
    allow_empty: bool = attrs.field(default=False, init=False)
    """Whether the source states that it is intended if there are no providers."""
    draining: bool = attrs.field(default=False, init=False)
    """The gateway is shutting down."""

    @property
    def has_snapshot(self) -> bool:
        """Whether a snapshot is in force."""
        return self._first_age is not None or self._status.last_success is not None

    @property
    def staleness(self) -> float:
        """Seconds since the source confirmed the snapshot in force; `math.inf` if unknown."""
        if self._status.last_success is not None:
            return self._status.staleness
        if self._first_age is None:
            return math.inf
        return self._first_age + (trio.current_time() - self._opened)

    def why_not(self) -> str | None:
        """Return why the gateway is not ready; None if it is."""
        if self.draining:
            return "draining"
        problem = self._report().problem if self._report is not None else None
        if problem is not None:
            return problem
        if not self.has_snapshot:
            return "no snapshot of providers yet"
        if self.staleness > self._max_stale:
            return "the providers are too old"
        if self._usage_full is not None and self._usage_full():
            return "usage cannot be recorded"
        return self._why_nothing_is_served()

    def _why_nothing_is_served(self) -> str | None:
        table = self._runtimes.in_force
        providers = table.snapshot.providers
        if not providers:
            return None if self.allow_empty else "no providers"
        # That all are disabled is a decision; that those which are not cannot be used is a fault.
        enabled = sum(provider.enabled for provider in providers)
        if enabled and table.unusable() == enabled:
            return "no provider can be used"
        return None

    def document(self, generation: int, revision: int | None) -> dict[str, object]:
        """Return the document of `/readyz`."""
        reason = self.why_not()
        document: dict[str, object] = {"ready": reason is None}
        if reason is not None:
            document["reason"] = reason
        if self.has_snapshot:
            table = self._runtimes.in_force
            document["generation"] = generation
            if revision is not None:
                document["revision"] = revision
            document["providers"] = len(table.snapshot.providers)
            document["unusable"] = table.unusable()
            # JSON has no infinity.
            age = self.staleness
            document["age"] = round(age, 1) if math.isfinite(age) else None
        if self._report is not None:
            report = self._report()
            document["source"] = report.source
            if report.connected is not None:
                document["connected"] = report.connected
            if report.unreadable is not None:
                document["unreadable"] = report.unreadable
        document["failed_reloads"] = self._status.failures_in_a_row
        if self._log_lines_dropped is not None:
            document["log_lines_dropped"] = self._log_lines_dropped()
        if self._usage_report is not None:
            document["usage"] = self._usage_report()
        return document
