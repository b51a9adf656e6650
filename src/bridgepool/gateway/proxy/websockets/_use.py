"""The rules of a client on a websocket: its messages are judged before they are passed on.

Theory of operation. Only for clients with limits or with a rule on models. A message of such a
client is held until it is complete, and read: whether it asks for a response, and which models it
names. So what it names is allowed, and a response that it asks for has its place within the limits,
before the provider gets it. What is held counts with the bodies of requests.

Each response is a request for the limits: it takes what its message is estimated to use, and is
settled by the usage that its last message tells. A response that nobody asked for, as the Realtime
API begins one when somebody stops speaking, cannot be refused before: when there is no room for it,
the websocket ends.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import attrs

from bridgepool.gateway.limits._limiter import Costs, Grant, costs_of
from bridgepool.gateway.limits._model_reader import (
    AmbiguousBodyError,
    ModelPath,
    ModelReader,
    read_whole,
)
from bridgepool.gateway.limits._rules import rules_of
from bridgepool.gateway.providers import Caller, ProviderType, RouteMatch, WebSocketMessages
from bridgepool.gateway.proxy import _refusals as refusals
from bridgepool.gateway.proxy._access_log import AccessRecord
from bridgepool.gateway.proxy._client_use import (
    BYTES_PER_TOKEN,
    EVENT_BYTES_PER_TOKEN,
    ClientUses,
)
from bridgepool.gateway.proxy._model_bodies import MAX_BODY_BYTES, feed_models
from bridgepool.gateway.proxy._refusals import Refusal
from bridgepool.gateway.usage._socket_reader import SocketEvent
from bridgepool.gateway.usage._tokens import Usage
from bridgepool.http import DataPiece

_TYPE: Final[tuple[ModelPath, ...]] = (("type",),)
_MAX_ASKED: Final = 100  # responses that were asked for and have not begun
_MAX_RUNNING: Final = 100  # that have begun and not ended; the oldest are settled by estimate
_PIECE_BYTES: Final = 200  # that a piece takes beside its content


def is_limited(caller: Caller) -> bool:
    """Return whether each response of a client is judged."""
    rules = rules_of(caller)
    judged = rules.permissions
    return bool(rules.limited) or (judged is not None and judged.restrict_models)


def can_be_judged(kind: ProviderType, match: RouteMatch) -> bool:
    """Return whether responses on a websocket of a route can be judged."""
    return match.route.messages is not None and kind.usage is not None


@attrs.define(eq=False)
class _Held:
    """A message of the client that is not complete."""

    pieces: list[DataPiece] = attrs.field(factory=list)
    size: int = 0
    reserved: int = 0  # of the memory for bodies
    refusal: Refusal | None = None
    # of its type and its models, if it comes in parts; or why one cannot be read
    readers: list[ModelReader | str] = attrs.field(factory=list)

    async def feed(self, data: bytes) -> None:
        """Read the next part."""
        for place, reader in enumerate(self.readers):
            if isinstance(reader, ModelReader):
                try:
                    await feed_models(reader, data)
                except AmbiguousBodyError as error:
                    self.readers[place] = str(error)

    def read(
        self, payload: bytes, messages: WebSocketMessages
    ) -> tuple[str, tuple[str, ...], str | None]:
        """Read the whole message, whose last part is `payload`.

        Returns:
            Its type, the models that it names, and why they are not certain.
        """
        kind, models = "", tuple[str, ...]()
        try:
            if not self.pieces[0].is_text:
                raise AmbiguousBodyError("it is binary")
            if self.readers:
                kind, models = "".join(_finish(self.readers[0])), _finish(self.readers[1])
            else:
                kind = "".join(read_whole(payload, _TYPE))
                models = read_whole(payload, messages.models)
        except AmbiguousBodyError as error:
            return kind, (), str(error)
        return kind, models, None


def _finish(reader: ModelReader | str) -> tuple[str, ...]:
    if isinstance(reader, str):
        raise AmbiguousBodyError(reader)
    return reader.finish()


@attrs.define(eq=False)
class _Response:
    """A response that was asked for, or has begun."""

    grant: Grant | None
    model: str
    input: float  # tokens, estimated
    begun_at: int = 0  # bytes that had been sent to the client


@attrs.define(eq=False)
class SocketUse:
    """The use that a client with rules makes of one websocket."""

    caller: Caller
    """The client, with the rules in force."""
    _uses: ClientUses
    _kind: ProviderType
    _messages: WebSocketMessages
    _record: AccessRecord
    _is_first: bool  # the next response is the request that the handshake was
    holds_message: bool = attrs.field(default=False, init=False)
    """Whether a message of the client has begun, and has neither gone on nor been refused whole."""
    _held: _Held = attrs.field(factory=_Held)
    _asked: deque[_Response] = attrs.field(factory=deque)
    _running: deque[_Response] = attrs.field(factory=deque)

    # -- messages of the client

    async def take(self, piece: DataPiece) -> tuple[DataPiece, ...] | Refusal:
        """Take a piece of a message; return what goes on, or why the message does not.

        Nothing goes on before the message is complete. Of one that is refused, only the last piece
        returns the refusal.
        """
        self.holds_message = True  # before any checkpoint: the rules may go meanwhile
        held = self._held
        if piece.begins:
            self._release()
            held = self._held = _Held()
        payload = piece.payload
        if not (piece.begins and piece.ends):
            await self._keep(held, payload)
        if held.refusal is None:
            held.size += len(payload)
            held.pieces.append(piece)
        if not piece.ends:
            return ()
        refusal = held.refusal or await self._judge(held, payload)
        pieces = tuple(held.pieces)
        self._release()
        self.holds_message = False
        return refusal or pieces

    async def _keep(self, held: _Held, payload: bytes) -> None:
        """Keep a part of a message that is not complete, if there is room for it."""
        if held.refusal is not None:
            return
        if not held.readers:
            held.readers = [ModelReader(_TYPE), ModelReader(self._messages.models)]
        size = len(payload) + _PIECE_BYTES
        if held.size + len(payload) > MAX_BODY_BYTES:
            held.refusal = refusals.model_not_readable("it is larger than 32 MiB", status=413)
        elif held.reserved + size > MAX_BODY_BYTES:
            held.refusal = refusals.model_not_readable("it has too many frames", status=413)
        elif not self._uses.bodies.reserve_for(self.caller.client_id, size):
            held.refusal = refusals.TOO_MANY_BODIES
        if held.refusal is not None:
            self._release()
            return
        held.reserved += size
        await held.feed(payload)

    def _release(self) -> None:
        held = self._held
        self._uses.bodies.release_for(self.caller.client_id, held.reserved)
        held.reserved, held.pieces = 0, []

    async def _judge(self, held: _Held, payload: bytes) -> Refusal | None:
        """Judge a message that is complete."""
        judged = rules_of(self.caller).permissions
        kind, models, problem = held.read(payload, self._messages)
        asks = kind == self._messages.asks
        if judged is not None and judged.restrict_models:
            if problem is not None:
                return refusals.model_not_readable(problem)
            for name in models:
                if not judged.allow_model(name):
                    return refusals.model_not_allowed(name)
            if asks and not models and not self._messages.model_parameter:
                return refusals.MODEL_MISSING
        if models:
            self._record.model = self._record.model or models[0]
        return await self._ask(self._model or "".join(models[:1]), held) if asks else None

    @property
    def _model(self) -> str:
        """That of all responses, by the query; empty if each names its own."""
        return self._record.model if self._messages.model_parameter else ""

    async def _ask(self, model: str, held: _Held) -> Refusal | None:
        """Find room for a response that a message asks for."""
        if len(self._asked) >= _MAX_ASKED:
            return refusals.rate_limited("responses at a time", 1, ())
        response = _Response(None, model, held.size / BYTES_PER_TOKEN)
        if self._is_limited():
            costs = self._costs(response, Usage(), 0.0)
            costs["requests_per_minute"] = float(not self._is_first)
            found = await self._uses.take(self.caller, self._kind, costs)
            if isinstance(found, Refusal):
                return found
            response.grant = found
        self._is_first = False
        self._asked.append(response)
        return None

    def _is_limited(self) -> bool:
        return bool(rules_of(self.caller).limited)

    def _costs(self, response: _Response, usage: Usage, estimated: float) -> Costs:
        if not rules_of(self.caller).counted:
            return costs_of()
        record, model = self._record, response.model
        return self._uses.costs_of_answer(usage, record.provider, model, response.input, estimated)

    # -- messages of the provider

    async def note(self, event: SocketEvent) -> Refusal | None:
        """Note a message of the provider that has gone to the client.

        A checkpoint only if a response begins unasked, and a limit is shared with other gateways.

        Returns:
            Why the websocket ends: there is no room for a response that has begun unasked.
        """
        if event.type == self._messages.begins:
            return await self._begin()
        if event.ended is not None:
            waiting = self._running or self._asked
            if waiting:
                self._end(waiting.popleft(), event.ended)
        elif event.type == self._messages.fails and self._asked:
            response = self._asked.popleft()
            if response.grant is not None:
                response.grant.end(costs_of())
        return None

    async def _begin(self) -> Refusal | None:
        if self._asked:
            response = self._asked.popleft()
        else:
            response = _Response(None, self._model, 0.0)
            if self._is_limited():
                costs = costs_of(requests=float(not self._is_first))
                found = await self._uses.take(self.caller, self._kind, costs)
                if isinstance(found, Refusal):
                    return found
                response.grant = found
            self._is_first = False
        response.begun_at = self._record.bytes_sent
        if len(self._running) >= _MAX_RUNNING:
            self._end(self._running.popleft(), Usage())
        self._running.append(response)
        return None

    def _end(self, response: _Response, usage: Usage) -> None:
        if response.grant is not None:
            sent = self._record.bytes_sent - response.begun_at
            response.grant.end(self._costs(response, usage, sent / EVENT_BYTES_PER_TOKEN))

    def end(self) -> None:
        """Settle what has not ended, by estimate: the websocket is over."""
        self._release()
        for response in self._running:
            self._end(response, Usage())
        for response in self._asked:
            if response.grant is not None:
                response.grant.end(None)  # the provider may have begun it
        self._running.clear()
        self._asked.clear()
