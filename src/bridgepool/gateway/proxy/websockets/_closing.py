"""Where a websocket is cut that is to be closed soon: between two responses.

Theory of operation. There is a reason to close it once the end of its time is near, or the gateway
shuts down. Then it is closed in one of two places. Where a response has ended, after its last
message; on routes whose responses have trailing messages, once the provider has been silent for a
moment, or the client asks for the next response, which does not reach the provider. Or, on an idle
websocket, when its turn has come.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Final

import attrs
import trio

from bridgepool.gateway.proxy.websockets._lifetime import Lifetime
from bridgepool.gateway.proxy.websockets._responses import SocketResponses
from bridgepool.http import DataPiece

_MAX_TRAIL: Final = 5.0  # seconds for messages after the end of a response
_INTERVAL: Final = 0.5  # seconds between two looks where it may be closed any moment


@attrs.define(eq=False)
class SocketClosing:
    """Decides when one websocket is closed between two responses."""

    _lifetime: Lifetime
    _responses: SocketResponses
    _trails: bool
    _generation: int
    reason: str = ""
    """Why it is to be closed soon; empty if it is not."""
    _ended: float = inf  # when the last response ended, where it may be closed since then

    @property
    def begun(self) -> trio.Event:
        """Set when all websockets are to be closed."""
        return self._lifetime.shutdown.begun

    def note_client(self, pieces: Iterable[DataPiece]) -> bool:
        """Note pieces of the client's messages, before they go on.

        Returns:
            Whether the websocket is closed in their place.
        """
        return self._responses.note_client(pieces) and self._ended < inf

    def note_provider(self, pieces: Iterable[DataPiece]) -> bool:
        """Note pieces of the provider's messages, which have gone on.

        Returns:
            Whether the websocket is closed after the message that has begun last.
        """
        ended = self._responses.note_provider(pieces)
        if not self.reason:
            return False
        if ended:
            self._ended = trio.current_time()
        elif self._responses.under_way:  # the provider has begun one by itself
            self._ended = inf
        return ended and not self._trails

    def look(self, now: float, *, busy: bool) -> bool:
        """Look at the time; return whether the websocket is closed now.

        Args:
            now: The time.
            busy: Whether a message is under way.
        """
        self.reason = self._lifetime.why_close(now, self._generation)
        if not self.reason or busy or self._responses.under_way:
            return False
        if now - self._ended >= _MAX_TRAIL:
            return True
        its_turn = self._ended < inf or now >= self._lifetime.turn
        return its_turn and self._responses.none_running(now)

    def pause(self, now: float) -> float:
        """Return the seconds until the next look."""
        soon = self.begun.is_set() or self._ended < inf
        return min(_INTERVAL if soon else inf, self._lifetime.pause(now))
