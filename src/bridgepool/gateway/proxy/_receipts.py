"""ReceiptReporter: telling the source what came of a revision once it is served.

Theory of operation. After each good reload a receipt is due. It is given when the runtimes of
what is in force are found good or bad, and only if nothing newer was put in force meanwhile:
receipts are level-triggered, and one for a revision speaks for all before it.
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
    """What came of one revision."""

    revision: int | None
    """The source's revision, now in force; None where the source has none."""
    failed: tuple[FailedProvider, ...] = ()
    """Providers in it whose runtime could not be built: requests for them are refused."""


OnApplied = Callable[[Receipt], None]
"""What the gateway calls with each receipt. Must not block or raise."""


@attrs.define(eq=False)
class ReceiptReporter:
    """Gives a receipt for what is in force, as often as one is due."""

    _runtimes: Runtimes
    _on_applied: OnApplied
    _due: trio.Event = attrs.field(factory=trio.Event, init=False)
    _revision: int | None = attrs.field(default=None, init=False)  # what the receipt is for

    def note(self, revision: int | None) -> None:
        """Have a receipt given; to be called when a reload was applied or found unchanged.

        Args:
            revision: the revision that the source gave.
        """
        self._revision = revision
        self._due.set()

    async def run(self) -> None:
        """Give the receipts that are due, until cancelled."""
        while True:
            await self._due.wait()
            self._due = trio.Event()
            await self._give()

    async def _give(self) -> None:
        revision, table = self._revision, self._runtimes.take_in_force()
        try:
            await table.wait_opened()
            failed = tuple(
                FailedProvider(sentinel.provider.name, sentinel.reason)
                for sentinel in table.unavailable()
                if sentinel.reason
            )
        finally:
            self._runtimes.release(table)
        if self._due.is_set():
            return  # overtaken: its receipt is due already
        try:
            self._on_applied(Receipt(revision, failed))
        except Exception:  # their code: a bug there must not end the gateway
            logger.exception("a receipt could not be given")
