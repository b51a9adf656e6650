"""The responses on one websocket, each with a record of its own: for usage, bodies and traces.

Theory of operation. Only where somebody wants them. A response that the client asks for waits for
the provider to begin it; those that wait are begun in their order, and one that begins while none
waits was not asked for. Its record is made when it has ended, with the model that was asked for,
the times from then on, and the messages of both sides since the end of the response before. The end
of a response that was neither asked for nor begun makes none: a provider could make any number. An
error of the provider or the gateway in place of a response makes a record, too, as of a request
that was answered with that error.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import Final

import attrs

from bridgepool.gateway.limits._model_reader import AmbiguousBodyError, read_parameter
from bridgepool.gateway.providers import RouteMatch, WebSocketMessages
from bridgepool.gateway.proxy._access_log import AccessRecord, Outcome
from bridgepool.gateway.proxy._refusals import Refusal
from bridgepool.gateway.proxy.websockets._responses import type_of
from bridgepool.gateway.usage._bodies import KeptBody
from bridgepool.gateway.usage._request_reader import RequestReader
from bridgepool.gateway.usage._socket_reader import SocketEvent
from bridgepool.gateway.usage._tokens import Usage, kept_text
from bridgepool.http import DataPiece

_MAX_WAITING: Final = 100  # responses that were asked for and have not begun
_MAX_RUNNING: Final = 100  # that have begun and not ended; the oldest are forgotten
_MAX_ERROR_BYTES: Final = 4096  # of the beginning of an error in which its status is looked for
_STATUS: Final = re.compile(rb'"status(?:_code)?"\s*:\s*([45][0-9]{2})\b')
_INVALID: Final = b'"invalid_request_error"'


@attrs.define(eq=False)
class _Response:
    _model: str = ""  # if it is known without its message
    started: float = attrs.field(factory=time.perf_counter)
    begun: float = 0.0
    unread: list[DataPiece] = attrs.field(factory=list)  # of the message that asks for it
    _reader: RequestReader | None = None

    def read(self) -> None:
        """Read its message, as far as it has come."""
        pieces, self.unread = self.unread, []
        if pieces and self._reader is None:
            self._reader = RequestReader(in_message=True)
        if self._reader is not None:
            for piece in pieces:
                self._reader.feed(piece.payload)

    @property
    def model(self) -> str:
        """The model that it was asked of; empty if that is not known."""
        self.read()
        return self._model or ("" if self._reader is None else self._reader.result())


@attrs.define(eq=False)
class SocketLog:
    """Makes a record of each response on one websocket, and reports it."""

    _record: AccessRecord
    _messages: WebSocketMessages | None
    _asking: _Response | None = None  # whose message is under way
    _since: float = attrs.field(factory=time.perf_counter)  # the end of the last one
    _asked: list[_Response] = attrs.field(factory=list)
    _running: list[_Response] = attrs.field(factory=list)
    # the beginning of the provider's message that is under way, if it comes in pieces
    _beginning: bytearray = attrs.field(factory=bytearray)

    def note_client(self, pieces: Iterable[DataPiece]) -> None:
        """Note pieces of the client's messages, before they go on."""
        recording, messages = self._record._recording, self._messages
        for piece in pieces:
            if recording is not None:
                _keep(recording.request, piece)
            if messages is None:
                continue
            if piece.begins:
                self._asking = None
                if type_of(piece) == messages.asks and len(self._asked) < _MAX_WAITING:
                    self._asking = self._new_response()
                    self._asked.append(self._asking)
            if self._asking is not None:
                self._asking.unread.append(piece)

    def read_client(self) -> None:
        """Read the client's messages that have gone on."""
        if self._asking is not None:
            self._asking.read()

    def _new_response(self) -> _Response:
        messages = self._messages
        same = messages is not None and messages.model_parameter
        return _Response(self._record.model if same else "")

    def keep(self, piece: DataPiece) -> None:
        """Note a piece of the provider's messages, which has gone on."""
        recording = self._record._recording
        if recording is not None:
            _keep(recording.response, piece)
        if piece.begins and piece.ends:
            return
        if piece.begins:
            self._beginning.clear()
        if len(self._beginning) < _MAX_ERROR_BYTES:
            self._beginning += piece.head(_MAX_ERROR_BYTES - len(self._beginning))

    def note_provider(self, event: SocketEvent, last: DataPiece) -> bool:
        """Note what a message of the provider says that has gone on.

        Args:
            event: What it says.
            last: Its last piece, usually the only one.

        Returns:
            Whether it begins a response that nobody asked for.
        """
        messages, unasked = self._messages, not self._asked
        if event.ended is not None:
            if messages is None or self._running or self._asked:
                self._report(self._make(self._take_ended(), event.ended))
                self._since = time.perf_counter()
        elif messages is None:
            return False
        elif event.type == messages.begins:
            response = self._asked.pop(0) if self._asked else self._new_response()
            response.begun = time.perf_counter()
            self._record.model = response.model
            del self._running[: 1 - _MAX_RUNNING]
            self._running.append(response)
            return unasked
        elif event.type == messages.fails and self._asked:
            response = self._asked.pop(0)
            response.begun = time.perf_counter()
            made = self._make(response, Usage())
            message = last.payload if last.begins else bytes(self._beginning)
            made.status = made.upstream_status = _error_status(message)
            made.is_stream = False
            if self._running:  # the messages are those of another response
                made._recording = None
            self._report(made)
            self._since = time.perf_counter()
        return False

    def note_refused(self, refusal: Refusal) -> None:
        """Note that a message which asks for a response was refused, and did not go on."""
        made = self._make(self._new_response(), Usage())
        made.attempts, made.upstream_status, made._recording = 0, 0, None  # nothing was sent
        made.status, made.outcome, made.code = refusal.status, Outcome.REFUSED, refusal.code
        self._report(made)

    def _take_ended(self) -> _Response:
        waiting = self._running or self._asked
        if waiting:
            return waiting.pop(0)
        response = self._new_response()
        response.started = self._since
        return response

    def _report(self, made: AccessRecord) -> None:
        self._record.responses += 1
        if self._record.on_response is not None:
            self._record.on_response(made)

    def _make(self, response: _Response, usage: Usage) -> AccessRecord:
        record = self._record
        made = attrs.evolve(
            record,
            model=response.model,
            usage=usage,
            usage_reader=None,
            is_response=True,
            responses=0,
            unfinished=None,
            is_stream=True,
            started=response.started,
            first_byte=response.begun,
            ended=time.perf_counter(),
        )
        made._body_recorder, made._recording = record._body_recorder, record._recording
        return made

    def end(self, unfinished: Usage | None) -> None:
        """Note the end of the websocket.

        Args:
            unfinished: What a response told that has not ended; None if none told anything.
        """
        if unfinished is not None or self._running or self._asked:
            made = self._make(self._take_ended(), unfinished or Usage())
            self._record.unfinished = made


def _keep(body: KeptBody, piece: DataPiece) -> None:
    body.feed(piece.payload)
    if piece.ends:
        body.feed(b"\n")


def _error_status(message: bytes) -> int:
    """Return the status of a provider's error; not all of them name one."""
    found = _STATUS.search(message)
    if found is not None:
        return int(found[1])
    return 400 if _INVALID in message else 500


def model_of_query(match: RouteMatch, target: bytes) -> str:
    """Return the model of all responses on a websocket, where its query names it; else nothing."""
    messages = match.route.messages
    if messages is None or not messages.model_parameter:
        return ""
    try:
        model = read_parameter(target.partition(b"?")[2], messages.model_parameter)
    except AmbiguousBodyError:
        return ""
    return kept_text(model or "")
