"""Usage in the events of a websocket, one message each; over all responses on it. Pure."""

from __future__ import annotations

import attrs

from bridgepool.gateway.providers import UsageFields
from bridgepool.gateway.usage._event_reader import EventReader
from bridgepool.gateway.usage._tokens import MAX_TOOLS, Findings, Tokens, Usage


@attrs.frozen
class SocketEvent:
    """What one message of the provider says."""

    type: str
    """Its `type`; empty if it has none."""
    ended: Usage | None
    """What the response has used that it ends; None if it ends none."""


@attrs.define(eq=False)
class SocketReader:
    """Reads the messages of one websocket; a `UsageReader` whose bytes are those of messages."""

    _fields: UsageFields
    _findings: Findings = attrs.field(init=False)
    _reader: EventReader = attrs.field(init=False)
    _total: Usage = attrs.field(factory=lambda: Usage(complete=True))
    _responses: int = 0

    def __attrs_post_init__(self) -> None:
        """Begin the first response."""
        self._begin()

    def _begin(self) -> None:
        self._findings = Findings(self._fields)
        self._reader = EventReader(self._findings)
        self._reader.feed(b"data:")

    def feed(self, data: bytes) -> None:
        """Take the next piece of a message."""
        if b"\r" in data:
            data = data.replace(b"\r", b" ")
        self._reader.feed(data.replace(b"\n", b" "))

    def end_message(self) -> SocketEvent:
        """Take the end of a message."""
        self._reader.feed(b"\n")
        event = self._findings.take_event()
        if not self._findings.ended:
            self._reader.feed(b"data:")
            return SocketEvent(event, None)
        ended = self._findings.result()
        self._total = _sum(self._total, ended)
        self._responses += 1
        self._begin()
        return SocketEvent(event, ended)

    def result(self) -> Usage:
        """Return what all responses have used; incomplete if one has not ended."""
        last = self.unfinished()
        if last is not None:
            return _sum(self._total, last)
        return self._total if self._responses else Usage()

    def unfinished(self) -> Usage | None:
        """Return what the response told that has not ended; None if there is none."""
        last = self._findings.result()
        return last if last.response_id or last.tokens != Tokens() else None


def _sum(first: Usage, second: Usage) -> Usage:
    return Usage(
        Tokens(*map(_add, first.tokens, second.tokens)),
        first.complete and second.complete,
        second.model or first.model,
        second.response_id or first.response_id,
        second.finish or first.finish,
        tuple(dict.fromkeys(first.tools + second.tools))[:MAX_TOOLS],
    )


def _add(first: int | None, second: int | None) -> int | None:
    return first if second is None else second if first is None else first + second
