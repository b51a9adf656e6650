"""Refused keys in the audit: a bounded number of entries, however many keys are tried."""

from __future__ import annotations

import logging
from collections import deque
from typing import Final, Literal

import attrs
import trio

from bridgepool.gateway.control._errors import StoreError
from bridgepool.gateway.control.store import Store

logger = logging.getLogger("bridgepool.control")

_INTERVAL: Final = 60.0  # seconds, in which each address has one entry
_MAX_ENTRIES: Final = 10  # of all addresses in that time
_TIMEOUT: Final = 2.0  # seconds; whoever is refused does not wait for a database that is away


@attrs.define(eq=False)
class RefusalAudit:
    """Writes the entries about refused keys of one kind."""

    _store: Store
    _kind: Literal["admin", "gateway"]
    # when the entries of the last minute were written, and for which addresses
    _recent: deque[tuple[float, str]] = attrs.field(factory=deque, init=False)

    async def note(self, peer: str) -> None:
        """Write an entry about a refused key, unless there were enough. Fails never.

        Args:
            peer: Where it came from, as `host:port`.
        """
        host = peer.rpartition(":")[0].strip("[]") or peer
        if not self._is_due(host, trio.current_time()):
            await trio.lowlevel.checkpoint()
            return
        with trio.move_on_after(_TIMEOUT):
            try:
                await self._store.record_refused_key(self._kind, host)
            except StoreError as error:
                logger.warning("refused key not audited: %s", error)

    def _is_due(self, host: str, now: float) -> bool:
        while self._recent and self._recent[0][0] <= now - _INTERVAL:
            self._recent.popleft()
        known = any(host == other for _, other in self._recent)
        if known or len(self._recent) >= _MAX_ENTRIES:
            return False
        self._recent.append((now, host))
        return True
