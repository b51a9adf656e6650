"""Receipts: reports to the source about the revision that is served.

Theory of operation. After each good reload a receipt is due. It is sent when the runtimes of the
snapshot in force have been checked, and only if no newer one was put in force meanwhile: receipts
are level-triggered, and one for a revision covers all earlier ones.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import attrs
import trio

from bridgepool.gateway.proxy._runtimes import Runtimes

logger = logging.getLogger("bridgepool.gateway")


@attrs.frozen
class FailedProvider:
    """A provider that cannot be served."""

    name: str
    reason: str
    """Why, for operators. Holds no secrets."""


@attrs.frozen
class Receipt:
    """The report about one revision."""

    revision: int | None
    """The source's revision, now in force; None where the source has none."""
    failed: tuple[FailedProvider, ...] = ()
    """Its providers whose runtime could not be built; without those that the source itself has
    rejected (`Provider.problem`)."""
    epoch: str | None = None
    """The epoch of the revision; None where the source has only one."""


OnApplied = Callable[[Receipt], None]
"""Called with each receipt. Must not block or raise."""


@attrs.define(eq=False)
class ReceiptReporter:
    """Sends receipts for the snapshot in force."""

    _runtimes: Runtimes
    _on_applied: OnApplied
    _due: trio.Event = attrs.field(factory=trio.Event, init=False)
    # of the receipt that is due
    _revision: int | None = attrs.field(default=None, init=False)
    _epoch: str | None = attrs.field(default=None, init=False)

    def note(self, revision: int | None, epoch: str | None) -> None:
        """Request a receipt: a reload was applied, or found nothing changed.

        Args:
            revision: the source's revision.
            epoch: the epoch of the revision.
        """
        self._revision, self._epoch = revision, epoch
        self._due.set()

    async def run(self) -> None:
        """Send the receipts that are due, until cancelled."""
        while True:
            await self._due.wait()
            self._due = trio.Event()
            await self._send()

    async def _send(self) -> None:
        revision, epoch = self._revision, self._epoch
        table = self._runtimes.take_in_force()
        try:
            await table.wait_opened()
            failed = tuple(
                FailedProvider(provider.provider.name, provider.reason)
                for provider in table.unavailable()
                if provider.reason and provider.provider.problem is None
            )
        finally:
            self._runtimes.release(table)
        if self._due.is_set():
            return  # a newer receipt is due
        try:
            self._on_applied(Receipt(revision, failed, epoch))
        except Exception:  # the embedder's code: a bug there must not end the gateway
            logger.exception("receipt callback failed")
