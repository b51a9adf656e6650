"""Whether the client of an open websocket may still use it.

A request is judged once, a websocket lives for an hour: meanwhile its key may expire or be revoked,
and the rules of its client may change. So the client is identified and judged again every few
seconds, by the key that it sent at the beginning.
"""

from __future__ import annotations

import time
from typing import Final

import attrs
import trio

from bridgepool.gateway.providers import Caller, ProviderType, RouteMatch, WebSocketMessages
from bridgepool.gateway.proxy._access_log import AccessRecord
from bridgepool.gateway.proxy._refusals import (
    AUTHORIZATION_UNAVAILABLE,
    WEBSOCKET_NOT_SUPPORTED,
    WRONG_CLIENT_KEY,
    Refusal,
)
from bridgepool.gateway.proxy._socket_use import SocketUse, is_limited
from bridgepool.gateway.proxy._usage import response_record
from bridgepool.gateway.proxy._websocket import WebSocketCall
from bridgepool.gateway.usage._socket_reader import SocketEvent, SocketReader

CHECK_INTERVAL: Final = 5.0
"""Seconds after which a client is judged again."""
_CHECK_TIMEOUT: Final = 5.0  # seconds for the answer of who has the key


@attrs.define(eq=False)
class SocketGuard:
    """Judges the client of one websocket."""

    call: WebSocketCall
    _kind: ProviderType
    _match: RouteMatch
    _target: bytes
    _record: AccessRecord
    reader: SocketReader | None
    """Reads what the provider says of its responses."""
    use: SocketUse | None = None
    """Judges its messages and responses, if the client has rules that need it."""
    _refusal: Refusal | None = None
    _begun: float = attrs.field(factory=time.perf_counter)  # the response that runs, if one does

    @property
    def messages(self) -> WebSocketMessages | None:
        """What its messages say; None if that is not known."""
        return self._match.route.messages

    def refuse_now(self) -> Refusal | None:
        """Return why no message of the client goes on now; None if they may."""
        return self._refusal or self.call.refuse_now()

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
            if self.use is not None:
                self.use.end()
            self.use = None
            return None
        refusal = self.call.uses.judge_socket(caller, self._match, self._target, self._record)
        if refusal is not None:
            return refusal
        if self.use is not None:
            self.use.caller = caller
        elif is_limited(caller):
            messages, fields = self.messages, self._kind.usage
            if messages is None or fields is None:
                return WEBSOCKET_NOT_SUPPORTED
            self.reader = self.reader or SocketReader(fields)
            uses, kind = self.call.uses, self._kind
            self.use = SocketUse(caller, uses, kind, messages, self._record, is_first=opened)
        return None

    async def note(self, event: SocketEvent) -> Refusal | None:
        """Note a message of the provider that has gone to the client.

        Returns:
            Why the websocket ends; see `SocketUse.note`.
        """
        record, messages = self._record, self.messages
        if messages is not None and event.type == messages.begins:
            self._begun = time.perf_counter()
        if event.ended is not None and record.on_response is not None:
            record.responses += 1
            record.on_response(response_record(record, event.ended, self._begun))
            self._begun = time.perf_counter()
        return await self.use.note(event) if self.use is not None else None

    def end(self) -> None:
        """Settle what the client has used."""
        if self.use is not None:
            self.use.end()
        if self.reader is not None:
            self._record.unfinished = self.reader.unfinished()
