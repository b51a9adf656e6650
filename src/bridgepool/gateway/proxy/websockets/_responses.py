"""Whether a response is under way on a websocket, as far as the types of its messages show.

Theory of operation. The APIs write the type of a message at its beginning, so only that is read:
of every websocket, also where nobody wants usage. A response is under way from the message that
asks for it, or that begins it unasked, to its last one. Where a type is not found so, or the route
does not declare its messages, only a longer silence of both sides shows that none is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

import attrs
import trio

from bridgepool.gateway.providers import WebSocketMessages
from bridgepool.http import DataPiece

_HEAD: Final = 256  # bytes of a message that are read
_PAUSE: Final = 1.0  # seconds after a message of the provider: more of them may come
_SILENCE: Final = 10.0  # seconds of both sides, where types are not known
_type = re.compile(rb'\s*\{\s*(?:"event_id"\s*:\s*"[^"\\]*"\s*,\s*)?"type"\s*:\s*"([^"\\]*)"')


def type_of(piece: DataPiece) -> str | None:
    """Return the type of a message by its first piece; None if it is not found."""
    found = _type.match(piece.head(_HEAD))
    return None if found is None else found[1].decode("utf-8", "replace")


@attrs.define(eq=False)
class SocketResponses:
    """The responses that are under way on one websocket."""

    _messages: WebSocketMessages | None
    _heard: float = attrs.field(factory=trio.current_time)  # from either side
    _answered: float = attrs.field(factory=trio.current_time)  # from the provider
    _asked: bool = False  # and no response has begun since
    _running: int = 0
    _unknown: bool = attrs.field(init=False)  # the types are not known

    def __attrs_post_init__(self) -> None:
        """Begin without a response."""
        self._unknown = self._messages is None

    @property
    def under_way(self) -> bool:
        """Whether one has been asked for or has begun, and has not ended."""
        return self._asked or self._running > 0

    def note_client(self, pieces: Iterable[DataPiece]) -> bool:
        """Note pieces of the client's messages, before they go on.

        Returns:
            Whether one asks for a response.
        """
        self._heard = trio.current_time()
        messages, asks = self._messages, False
        if messages is not None:
            for kind in self._types_of(pieces):
                asks = asks or kind == messages.asks
            self._asked = self._asked or asks
        return asks

    def note_provider(self, pieces: Iterable[DataPiece]) -> bool:
        """Note pieces of the provider's messages, which have gone on.

        Returns:
            Whether no response is under way after the message that has begun last, which ends one.
        """
        self._heard = self._answered = trio.current_time()
        messages, ended = self._messages, False
        if messages is None:
            return False
        for kind in self._types_of(pieces):
            ended = kind in messages.ends
            if ended:
                self._running = max(0, self._running - 1)
            elif kind == messages.begins:
                self._asked, self._running = False, self._running + 1
            elif kind == messages.fails:
                self._asked = False
        return ended and not self._running and not self._asked

    def _types_of(self, pieces: Iterable[DataPiece]) -> Iterator[str]:
        """Return the types of the messages that begin."""
        for piece in pieces:
            if piece.begins:
                kind = type_of(piece)
                if kind is None:
                    self._unknown = True
                else:
                    yield kind

    def none_running(self, now: float) -> bool:
        """Return whether no response is under way, as far as that shows."""
        if self.under_way:
            return False
        if self._unknown:
            return now - self._heard >= _SILENCE
        return now - self._answered >= _PAUSE
