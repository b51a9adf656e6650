"""Whether the client of an open websocket may still use it, and which of its messages go on.

A request is judged once, a websocket lives for an hour: meanwhile its key may expire or be revoked,
and the rules of its client may change. So the client is identified and judged again every few
seconds, by the key that it sent at the beginning.

A provider that was disabled meanwhile gets no new message: what is under way goes on, and the
client gets an error in place of a new response.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import attrs
import trio

from bridgepool.gateway.providers import Caller, ProviderType, RouteMatch, WebSocketMessages
from bridgepool.gateway.proxy._access_log import AccessRecord
from bridgepool.gateway.proxy._permission_checks import judge_socket
from bridgepool.gateway.proxy._refusals import (
    AUTHORIZATION_UNAVAILABLE,
    USAGE_UNAVAILABLE,
    WEBSOCKET_NOT_SUPPORTED,
    WRONG_CLIENT_KEY,
    Refusal,
)
from bridgepool.gateway.proxy.websockets._handshake import WebSocketCall
from bridgepool.gateway.proxy.websockets._log import SocketLog, model_of_query
from bridgepool.gateway.proxy.websockets._use import SocketUse, is_limited
from bridgepool.gateway.usage._socket_reader import SocketReader
from bridgepool.http import DataPiece

CHECK_INTERVAL: Final = 5.0
"""Seconds after which a client is judged again."""
_CHECK_TIMEOUT: Final = 5.0  # seconds for the answer of who has the key
_ASKS_RESPONSE: Final = re.compile(rb'"type"\s*:\s*"response\.create"')


@attrs.define(eq=False)
class SocketGuard:
    """Judges the client of one websocket."""

    call: WebSocketCall
    _kind: ProviderType
    _match: RouteMatch
    _target: bytes
    _record: AccessRecord
    use: SocketUse | None = None
    """Judges its messages and responses, if the client has rules that need it."""
    _refusal: Refusal | None = None
    _reader: SocketReader | None = None  # of what the provider says of its responses
    _log: SocketLog | None = None
    # Of the current message of the client: why it goes nowhere; what judges it; and, if it does
    # not simply pass, whether it asks for a response.
    _message_refusal: Refusal | None = None
    _message_use: SocketUse | None = None
    _asks: bool = False
    _told: Refusal | None = None  # the client was told so

    def begin(self, *, reads_usage: bool) -> None:
        """Begin to read what somebody wants to know; judge the client.

        Args:
            reads_usage: Somebody wants to know the usage.
        """
        record, fields = self._record, self._kind.usage
        if reads_usage or record.wants_responses:
            record.model = record.model or model_of_query(self._match, self._target)
        if record.wants_responses:
            self._log = SocketLog(record, self.messages)
        if fields is not None and (reads_usage or self._log is not None):
            self._reader = SocketReader(fields)
            record.usage_reader = self._reader if reads_usage else None
        self.judge(self.call.identity.ruled, opened=True)

    @property
    def messages(self) -> WebSocketMessages | None:
        """What its messages say; None if that is not known."""
        return self._match.route.messages

    async def check(self) -> Refusal | None:
        """Judge the client again; return why the websocket ends, or None."""
        with trio.move_on_after(_CHECK_TIMEOUT):
            found = await self.call.identify()
            if isinstance(found, Refusal):
                self._refusal = found
                # Who cannot be asked about begins nothing, but need not end.
                return None if found.code == AUTHORIZATION_UNAVAILABLE.code else found
            if found.key != self.call.identity.key:
                self._refusal = WRONG_CLIENT_KEY
                return WRONG_CLIENT_KEY
            self._refusal = self.judge(found.ruled)
        return self._refusal

    def judge(self, caller: Caller | None, *, opened: bool = False) -> Refusal | None:
        """Put the rules of the client in force; return why it may not use the websocket.

        Args:
            caller: The client, if it has rules.
            opened: The handshake was judged just now, and counted as a request.
        """
        if caller is None:
            if self.use is not None and not self.use.holds_message:
                self.use.end()
                self.use = None
            return None
        refusal = judge_socket(caller, self._match, self._target, self._record)
        if refusal is not None:
            return refusal
        if self.use is not None:
            self.use.caller = caller
        elif is_limited(caller):
            messages, fields = self.messages, self._kind.usage
            if messages is None or fields is None:
                return WEBSOCKET_NOT_SUPPORTED
            self._reader = self._reader or SocketReader(fields)
            uses, kind = self.call.uses, self._kind
            self.use = SocketUse(caller, uses, kind, messages, self._record, is_first=opened)
        return None

    def passes(self, piece: DataPiece) -> bool:
        """Return whether a piece of the client's goes on as it came; else `take` it."""
        if piece.begins:
            self._message_refusal = self._refusal or self.call.refuse_now()
            self._message_use = self.use
            if self._message_refusal is None:
                self._told = None
        return self._message_refusal is None and self._message_use is None

    async def take(self, piece: DataPiece) -> tuple[DataPiece, ...] | Refusal:
        """Take a piece that does not pass; return what goes on, or an error for the client."""
        found: tuple[DataPiece, ...] | Refusal | None = self._message_refusal
        if piece.begins:
            self._asks = _ASKS_RESPONSE.search(piece.payload) is not None
        if found is not None:
            if not piece.begins or (found == self._told and not self._asks):
                return ()
            self._told = self._message_refusal
        elif self._message_use is None:
            raise AssertionError("the piece passes")
        else:
            found = await self._message_use.take(piece)
        if isinstance(found, Refusal):
            found = self.call.fit(found)
            if self._asks and self._log is not None:
                self._log.note_refused(found)
        return found

    def note_client(self, pieces: Iterable[DataPiece]) -> None:
        """Note pieces of the client's messages, before they go on."""
        if self._log is not None:
            self._log.note_client(pieces)

    def read_client(self) -> None:
        """Read the client's messages that have gone on."""
        if self._log is not None:
            self._log.read_client()

    async def note_provider(self, pieces: Iterable[DataPiece]) -> Refusal | None:
        """Note pieces of the provider's messages, which have gone to the client.

        Returns:
            Why the websocket ends: a response has begun unasked, and there is no room for it, or
            for its usage record; see `SocketUse.note`.
        """
        reader, log, refusal = self._reader, self._log, None
        if reader is None and log is None:
            return None
        for piece in pieces:
            if log is not None:
                log.keep(piece)
            if reader is None or not piece.is_text:
                continue
            reader.feed(piece.payload)
            if piece.ends:
                event = reader.end_message()
                if log is not None and log.note_provider(event, piece):
                    refusal = self._refuse_unasked() or refusal
                if self.use is not None:
                    refusal = await self.use.note(event) or refusal
        return refusal

    def _refuse_unasked(self) -> Refusal | None:
        refusal = self.call.refuse_now()
        return refusal if refusal is USAGE_UNAVAILABLE else None

    def end(self) -> None:
        """Settle what the client has used, and report what has not ended."""
        if self.use is not None:
            self.use.end()
        if self._log is not None:
            self._log.end(None if self._reader is None else self._reader.unfinished())
