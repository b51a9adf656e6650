"""The rules of a client, applied to its requests: rules and limits before, settlement after.

Theory of operation. Clients without rules never come here. For the others one `ClientUse`
accompanies the request: what may be used is judged first, then the body is read if there is a rule
on models, then the limits admit the request. At its end the tokens that it used are settled: those
that the answer told, else an estimate from the bytes.
"""

from __future__ import annotations

import logging
import math
from datetime import UTC, datetime
from typing import Final
from urllib.parse import unquote_to_bytes

import attrs
import trio

from bridgepool.gateway.limits._kinds import BUDGETS
from bridgepool.gateway.limits._limiter import (
    ONE_REQUEST,
    Costs,
    Exceeded,
    Grant,
    Limiter,
    Scope,
    SharedLimits,
    WholeScope,
    costs_of,
    wall_clock,
)
from bridgepool.gateway.limits._rules import Permissions, rules_of
from bridgepool.gateway.providers import Caller, ProviderType, RouteMatch
from bridgepool.gateway.providers._rate_status import RateStatus
from bridgepool.gateway.proxy import _refusals as refusals
from bridgepool.gateway.proxy._access_log import AccessRecord
from bridgepool.gateway.proxy._model_bodies import ReadBody, read_models
from bridgepool.gateway.proxy._permission_checks import judge_head, judge_model
from bridgepool.gateway.proxy._prices import Prices
from bridgepool.gateway.proxy._refusals import Refusal
from bridgepool.gateway.proxy._replay import ReplayBudget
from bridgepool.gateway.proxy._request_body import BegunBody, has_body
from bridgepool.gateway.usage._tokens import Usage
from bridgepool.http import (
    Exchange,
    Headers,
    RemoteProtocolError,
    get_header,
    is_websocket_handshake,
)

logger = logging.getLogger("bridgepool.gateway")

_MAX_READ_BODIES: Final = 256 * 1024 * 1024  # bytes of bodies that are held whole, in total
BYTES_PER_TOKEN: Final = 4.0
"""Of an input, and of an answer that is no stream."""
EVENT_BYTES_PER_TOKEN: Final = 150.0
"""An event of a stream, or a message of a websocket, holds about one token."""
_UNKNOWN_INPUT: Final = 1000.0  # tokens of a body of unknown length


@attrs.define(eq=False)
class ClientUse:
    """One request of a client with rules, from its admission to its end."""

    _uses: ClientUses
    _permissions: Permissions | None
    lists_models: bool = False
    """The answer is a list of models, of which the client sees those that it may use."""
    body: bytes | BegunBody | None = None
    """The request body, if it was read."""
    headers: Headers = ()
    """What is left of the client's rates, for the response."""
    runs_model: bool = True
    """It is no request for models, which limits of tokens and money are not about."""
    counts_tokens: bool = False
    """What the answer tells of tokens is wanted."""
    _read: ReadBody | None = None  # holds memory for `body`, until it is released
    _grant: Grant | None = None
    _input: float = 0.0  # tokens, estimated
    _answer_headers: Headers = ()

    def allow_provider(self, name: str) -> bool:
        """Return whether a provider may be used."""
        return self._permissions is None or self._permissions.allow_provider(name)

    def allow_model(self, name: str) -> bool:
        """Return whether a model may be used."""
        return self._permissions is None or self._permissions.allow_model(name)

    def note_response(self, headers: Headers) -> None:
        """Note the head of the answer."""
        self._release()  # there is no other attempt
        self._answer_headers = headers

    def end_handshake(self) -> None:
        """End the request that has become a websocket: the first response on it is that request."""
        grant, self._grant = self._grant, None
        if grant is not None:
            grant.end(costs_of())

    def end(self, record: AccessRecord) -> None:
        """Settle what the request used. May be called again."""
        self._release()
        grant, self._grant = self._grant, None
        if grant is not None:
            grant.end(self._used(record) if self.counts_tokens else None)

    def _release(self) -> None:
        if self._read is not None:
            self._read.release()
            self._read = self.body = None

    def _used(self, record: AccessRecord) -> Costs:
        unanswered = record.sent and not record.upstream_status  # the provider may have served it
        if not unanswered and not 200 <= record.upstream_status < 400:
            return costs_of()  # it did not reach the provider, or that refused it
        record.take_usage()
        received = record.bytes_received  # in chunks, their number was not known before
        estimated_input = received / BYTES_PER_TOKEN if received else self._input
        estimated = 0.0 if unanswered else self._estimate_output(record)
        return self._uses.costs_of_answer(
            record.usage, record.provider, record.model, estimated_input, estimated
        )

    def _estimate_output(self, record: AccessRecord) -> float:
        """Return the estimated tokens of the answer, if they were not read in it."""
        if record.usage.complete or self.lists_models:
            return 0.0
        headers = self._answer_headers
        kind = get_header(headers, b"content-type") or b""
        is_stream = kind.lower().startswith(b"text/event-stream")
        plain = get_header(headers, b"content-encoding") in (None, b"identity")
        bytes_per_token = EVENT_BYTES_PER_TOKEN if is_stream and plain else BYTES_PER_TOKEN
        return record.bytes_sent / bytes_per_token


@attrs.define(eq=False)
class ClientUses:
    """What clients have used of a gateway; it survives every change of providers and clients."""

    prices: Prices = attrs.field(factory=Prices)
    """For budgets of money."""
    shared: SharedLimits | None = None
    """The limits, if they are shared with other gateways."""
    limiter: Limiter[Scope] = attrs.field(init=False)
    bodies: ReplayBudget = attrs.field(factory=lambda: ReplayBudget(_MAX_READ_BODIES))
    """Bodies that are held because of rules on models."""
    _no_prices_logged: bool = False
    _memory_logged: bool = False

    @limiter.default
    def _make_limiter(self) -> Limiter[Scope]:
        if self.shared is not None:
            return self.shared.limiter
        return Limiter(trio.current_time, wall_clock, WholeScope)

    async def admit(
        self,
        caller: Caller,
        kind: ProviderType,
        match: RouteMatch,
        exchange: Exchange,
        record: AccessRecord,
    ) -> ClientUse | Refusal:
        """Admit a request of a client that has rules.

        A checkpoint if a body is awaited. `ClientUse.end` must be called, whatever comes of it.

        Args:
            caller: the client.
            kind: the type of the provider, whose name the record has.
            match: the route.
            exchange: the client's exchange; no response has begun.
            record: gets the model.
        """
        rules = rules_of(caller)
        judged = rules.permissions
        use = ClientUse(self, judged)
        use.runs_model = kind.models_path is None or match.route.path != kind.models_path
        refusal: Refusal | None = None
        try:
            if judged is not None:
                refusal = await self._judge(use, judged, kind, match, exchange, record)
            if refusal is None and rules.limited:
                use.counts_tokens = bool(rules.counted) and use.runs_model
                refusal = await self._grant(use, caller, kind, exchange, record)
        except BaseException:
            use.end(record)
            raise
        if refusal is not None:
            use.end(record)
            return refusal
        return use

    async def _judge(
        self,
        use: ClientUse,
        judged: Permissions,
        kind: ProviderType,
        match: RouteMatch,
        exchange: Exchange,
        record: AccessRecord,
    ) -> Refusal | None:
        request = exchange.request
        is_socket = is_websocket_handshake(request)
        refusal = judge_head(judged, match, request.target, record, is_socket=is_socket)
        if refusal is not None or is_socket or not judged.restrict_models:
            return refusal
        if kind.models_path is not None and not use.runs_model:
            model = _text(match.path[len(kind.models_path) + 1 :])
            use.lists_models = not model
            return judge_model(judged, model, record) if model else None
        if not has_body(request.headers):
            asks = request.method == b"POST" and match.names_model
            return refusals.MODEL_MISSING if asks else None
        try:
            read = await read_models(match, exchange, record, self.bodies)
        except RemoteProtocolError as error:
            return refusals.bad_body(error)
        if isinstance(read, Refusal):
            return read
        use.body, use._read = read.body, read
        if not read.models and match.names_model:
            return refusals.MODEL_MISSING
        for name in read.models:
            refusal = judge_model(judged, name, record)
            if refusal is not None:
                return refusal
        return None

    async def _grant(
        self,
        use: ClientUse,
        caller: Caller,
        kind: ProviderType,
        exchange: Exchange,
        record: AccessRecord,
    ) -> Refusal | None:
        costs = ONE_REQUEST
        if use.counts_tokens:
            use._input = self._estimate(exchange, record)
            tokens = round(use._input)
            money = self.prices.cost(record.provider, record.model, tokens, 0)
            costs = costs_of(tokens, money)
        grant = await self.take(caller, kind, costs)
        if isinstance(grant, Refusal):
            return grant
        use._grant = grant
        use.headers = _rate_headers(kind, grant.rates)
        return None

    async def take(self, caller: Caller, kind: ProviderType, costs: Costs) -> Grant | Refusal:
        """Take what a request is estimated to use. Not a checkpoint if no limit is shared.

        Args:
            caller: The client.
            kind: The type of the provider.
            costs: The estimate.
        """
        rules = rules_of(caller)
        if self.prices.table is None and "money" in rules.counted:
            if not self._no_prices_logged:
                self._no_prices_logged = True
                logger.error("no price table: clients with a budget of money are refused")
            return refusals.NO_PRICE_TABLE
        if self.shared is not None:
            await self.shared.prepare(caller, costs)
        elif not self._memory_logged and rules.has_budget:
            self._memory_logged = True
            logger.warning("budgets of clients are in memory; a restart begins them anew")
        grant = self.limiter.admit(caller, costs)
        refused = isinstance(grant, Exceeded) and not grant.is_budget
        if refused and self.shared is not None and await self.shared.refresh(caller):
            grant = self.limiter.admit(caller, costs)
        if isinstance(grant, Exceeded):
            return exceeded(grant, _rate_headers(kind, grant.rates))
        return grant

    def _estimate(self, exchange: Exchange, record: AccessRecord) -> float:
        """Return the estimated tokens of the input."""
        headers = exchange.request.headers
        size = record.bytes_received or int(get_header(headers, b"content-length") or 0)
        if not size:
            return _UNKNOWN_INPUT if has_body(headers) else 0.0
        return size / BYTES_PER_TOKEN

    def costs_of_answer(
        self, usage: Usage, provider: str, model: str, estimated_input: float, estimated: float
    ) -> Costs:
        """Return what a request has taken of limits, by its answer.

        Args:
            usage: What it told.
            provider: Who answered.
            model: That was asked for; empty if it is not known.
            estimated_input: Tokens of the input, if it did not tell them.
            estimated: Tokens of the output, if it did not.
        """
        tokens = usage.tokens
        count_input = tokens.input if tokens.input is not None else round(estimated_input)
        count_output = tokens.output
        if count_output is None or not usage.complete:
            known = count_output or 0
            told = tokens.input is not None and usage.complete
            count_output = known if told else max(known, round(estimated))
        model = usage.model or model
        if usage.complete or usage.model:
            self.prices.note_answer(provider, model)
        cached = (tokens.cached_read or 0, tokens.cached_write or 0)
        money = self.prices.cost(provider, model, count_input, count_output, *cached)
        return costs_of(count_input + count_output, money)


def exceeded(found: Exceeded, headers: Headers) -> Refusal:
    """Refuse a request that would exceed a limit."""
    words = found.rule.replace("_", " ")
    if found.is_budget and not found.limit:
        return refusals.no_budget(words, headers)
    if found.is_budget:
        at = datetime.fromtimestamp(round(wall_clock() + found.retry_after), UTC)
        return refusals.budget_exceeded(words, f"{at:%Y-%m-%dT%H:%M:%SZ}", headers)
    refuse = refusals.no_share if found.rule in BUDGETS else refusals.rate_limited
    return refuse(words, max(1, math.ceil(found.retry_after)), headers)


def _rate_headers(kind: ProviderType, rates: RateStatus) -> Headers:
    if kind.rate_headers is None or (rates.requests is None and rates.tokens is None):
        return ()
    return kind.rate_headers(rates, wall_clock())


def _text(segment: bytes) -> str:
    return unquote_to_bytes(segment).decode("utf-8", "replace")
