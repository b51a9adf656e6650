"""What a client may, applied to its requests: rules and limits before, settlement after.

Theory of operation. Clients without rules never come here. For the others one `ClientUse`
accompanies the request: what may be used is judged first, then the body is read if there is a rule
on models, then the limits admit the request. At its end the tokens that it used are settled: those
that the answer told, else an estimate from the bytes.
"""

from __future__ import annotations

import logging
import math
from datetime import UTC, datetime
from typing import Final, Protocol
from urllib.parse import unquote_to_bytes

import attrs
import trio

from bridgepool.gateway.limits._limiter import (
    Amounts,
    Exceeded,
    Grant,
    Limiter,
    counts,
    has_limits,
    wall_clock,
)
from bridgepool.gateway.limits._prices import PriceTable
from bridgepool.gateway.limits._rules import Permissions, permissions
from bridgepool.gateway.providers import Caller, ProviderType, RouteMatch
from bridgepool.gateway.providers._rate_status import RateStatus
from bridgepool.gateway.proxy import _refusals as refusals
from bridgepool.gateway.proxy._access_log import AccessRecord
from bridgepool.gateway.proxy._model_bodies import read_models
from bridgepool.gateway.proxy._refusals import Refusal
from bridgepool.gateway.proxy._replay import ReplayBudget
from bridgepool.gateway.proxy._request_body import BegunBody, has_body
from bridgepool.http import Exchange, Headers, RemoteProtocolError, get_header

logger = logging.getLogger("bridgepool.gateway")

_MAX_READ_BODIES: Final = 256 * 1024 * 1024  # bytes of bodies that are held whole, in total
_BYTES_PER_TOKEN: Final = 4.0
_STREAM_BYTES_PER_TOKEN: Final = 150.0  # an event holds about one token
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
    counts_tokens: bool = False
    """What the answer tells of tokens is wanted."""
    _held: int = 0  # bytes of the body
    _grant: Grant | None = None
    _input: float = 0.0  # tokens, estimated
    _bytes_per_token: float = _BYTES_PER_TOKEN

    def allow_provider(self, name: str) -> bool:
        """Return whether a provider may be used."""
        return self._permissions is None or self._permissions.allow_provider(name)

    def allow_model(self, name: str) -> bool:
        """Return whether a model may be used."""
        return self._permissions is None or self._permissions.allow_model(name)

    def note_response(self, headers: Headers) -> None:
        """Note the head of the answer."""
        self._release()  # there is no other attempt
        kind = get_header(headers, b"content-type") or b""
        if kind.lower().startswith(b"text/event-stream"):
            self._bytes_per_token = _STREAM_BYTES_PER_TOKEN

    def end(self, record: AccessRecord) -> None:
        """Settle what the request used. May be called again."""
        self._release()
        grant, self._grant = self._grant, None
        if grant is not None:
            grant.end(self._used(record) if self.counts_tokens else None)

    def _release(self) -> None:
        self._uses.bodies.release(self._held)
        self._held, self.body = 0, None

    def _used(self, record: AccessRecord) -> Amounts:
        if not 200 <= record.upstream_status < 400:
            return Amounts()  # it was not sent, or the provider refused it
        record.take_usage()
        tokens = record.usage.tokens
        count_input = tokens.input if tokens.input is not None else round(self._input)
        count_output = tokens.output
        if count_output is None or not record.usage.complete:
            estimated = 0 if self.lists_models else record.bytes_sent / self._bytes_per_token
            known = count_output or 0
            told = tokens.input is not None and record.usage.complete
            count_output = known if told else max(known, round(estimated))
        return self._uses.amounts(record, count_input, count_output)


class SharedLimits(Protocol):
    """The limits of clients, shared with other gateways; `ControlPlane.limits` is one."""

    @property
    def limiter(self) -> Limiter:
        """What clients have used of this gateway's shares."""
        ...

    async def prepare(self, caller: Caller) -> None:
        """Wait a moment for shares of limits that this gateway has none of yet."""
        ...

    async def refresh(self, caller: Caller) -> bool:
        """Wait a moment for larger shares; return whether there may be."""
        ...


@attrs.define(eq=False)
class ClientUses:
    """What clients have used of a gateway; it survives every change of providers and clients."""

    prices: PriceTable | None = None
    """For budgets of money."""
    shared: SharedLimits | None = None
    """The limits, if they are shared with other gateways."""
    limiter: Limiter = attrs.field(init=False)
    bodies: ReplayBudget = attrs.field(factory=lambda: ReplayBudget(_MAX_READ_BODIES))
    """Bodies that are held because of rules on models."""
    _reported: bool = False  # that there is no price table

    @limiter.default
    def _make_limiter(self) -> Limiter:
        if self.shared is not None:
            return self.shared.limiter
        return Limiter(trio.current_time, wall_clock)

    async def admit(
        self,
        caller: Caller,
        kind: ProviderType,
        match: RouteMatch,
        exchange: Exchange,
        record: AccessRecord,
    ) -> ClientUse | Refusal:
        """Admit a request of a client that has rules.

        A checkpoint if the body is read. `ClientUse.end` must be called, whatever comes of it.

        Args:
            caller: the client.
            kind: the type of the provider, whose name the record has.
            match: the route.
            exchange: the client's exchange; no response has begun.
            record: gets the model.
        """
        judged = permissions(caller.rules, caller.key_rules)
        use = ClientUse(self, judged)
        refusal: Refusal | None = None
        try:
            if judged is not None:
                refusal = await self._judge(use, judged, kind, match, exchange, record)
            if refusal is None and (has_limits(caller.rules) or has_limits(caller.key_rules)):
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
        if not judged.allow_provider(record.provider):
            return refusals.provider_not_allowed(record.provider)
        if not judged.allow_route(match.pattern):
            return refusals.route_not_allowed(match.pattern)
        if not judged.restrict_models:
            return None
        request = exchange.request
        if kind.models_path is not None and match.route.path == kind.models_path:
            model = _text(match.path[len(kind.models_path) + 1 :])
            use.lists_models = not model
            return self._judge_model(judged, model, record) if model else None
        if not has_body(request.headers):
            return None
        try:
            read = await read_models(match, exchange, record, self.bodies)
        except RemoteProtocolError as error:
            return refusals.bad_body(error)
        if isinstance(read, Refusal):
            return read
        use.body, use._held = read.body, read.size
        if not read.models and match.names_model:
            return refusals.MODEL_MISSING
        for name in read.models:
            refusal = self._judge_model(judged, name, record)
            if refusal is not None:
                return refusal
        return None

    def _judge_model(self, judged: Permissions, name: str, record: AccessRecord) -> Refusal | None:
        record.model = record.model or name
        return None if judged.allow_model(name) else refusals.model_not_allowed(name)

    async def _grant(
        self,
        use: ClientUse,
        caller: Caller,
        kind: ProviderType,
        exchange: Exchange,
        record: AccessRecord,
    ) -> Refusal | None:
        both = (caller.rules, caller.key_rules)
        money = any(counts(rules, "money") for rules in both)
        if money and self.prices is None:
            if not self._reported:
                self._reported = True
                logger.error("no price table: clients with a budget of money are refused")
            return refusals.NO_PRICE_TABLE
        use.counts_tokens = money or any(counts(rules, "tokens") for rules in both)
        use._input = self._estimate(exchange, record) if use.counts_tokens else 0.0
        cost = self.amounts(record, round(use._input), 0) if use.counts_tokens else Amounts()
        if self.shared is not None:
            await self.shared.prepare(caller)
        grant = self.limiter.admit(caller, cost)
        refused = isinstance(grant, Exceeded) and not grant.is_budget
        if refused and self.shared is not None and await self.shared.refresh(caller):
            grant = self.limiter.admit(caller, cost)
        if isinstance(grant, Exceeded):
            return exceeded(grant, _rate_headers(kind, grant.rates))
        use._grant = grant
        use.headers = _rate_headers(kind, grant.rates)
        return None

    def _estimate(self, exchange: Exchange, record: AccessRecord) -> float:
        """Return the estimated tokens of the input."""
        headers = exchange.request.headers
        if not has_body(headers):
            return 0.0
        length = get_header(headers, b"content-length")
        size = record.bytes_received or (int(length) if length is not None else 0)
        return size / _BYTES_PER_TOKEN if size else _UNKNOWN_INPUT

    def amounts(self, record: AccessRecord, count_input: int, count_output: int) -> Amounts:
        """Return what tokens are, in the units of limits."""
        money = 0.0
        if self.prices is not None:
            tokens = record.usage.tokens
            cached = (tokens.cached_read or 0, tokens.cached_write or 0)
            model = record.usage.model or record.model
            money = self.prices.cost(record.provider, model, count_input, count_output, *cached)
        return Amounts(float(count_input + count_output), money)


def exceeded(found: Exceeded, headers: Headers) -> Refusal:
    """Refuse a request that would exceed a limit."""
    words = found.rule.replace("_", " ")
    wait = max(1, math.ceil(found.retry_after))
    if found.is_budget:
        return refusals.budget_exceeded(words, wait, headers)
    return refusals.rate_limited(words, wait, headers)


def _rate_headers(kind: ProviderType, rates: RateStatus) -> Headers:
    if kind.rate_headers is None or rates == RateStatus():
        return ()
    return kind.rate_headers(rates, datetime.now(UTC))


def _text(segment: bytes) -> str:
    return unquote_to_bytes(segment).decode("utf-8", "replace")
