"""The gateway as a handler of exchanges: who asks, for what, by which bridge; then `forward`.

Theory of operation. A request passes through these steps, each of which may refuse it: a
snapshot is in force; the client is known; its bridge is leased (built, if it has none of this
generation); the bridge has that provider; the provider opens that route. The lease is held
until the answer has ended, so the bridge and its upstream connections stay as they are for as
long as the stream runs, whatever is replaced meanwhile. Every request makes one access record.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import attrs
import trio

from bridgepool import BuildError, CachedBridgePool, PoolClosedError, ReloadStatus
from bridgepool.gateway.providers import ErrorForm, Provider, ProviderType, split_target
from bridgepool.gateway.proxy import _refusals as refusals
from bridgepool.gateway.proxy._access_log import AccessLog, AccessRecord, Outcome
from bridgepool.gateway.proxy._auth import Authorizer, Identity, identify
from bridgepool.gateway.proxy._bridge import Bridge, BridgeKey
from bridgepool.gateway.proxy._forward import (
    Call,
    ResponseCutError,
    ResponseWithheldError,
    forward,
    refusal_for,
)
from bridgepool.gateway.proxy._readiness import Readiness
from bridgepool.gateway.proxy._redaction import PathRedactor, redact_method
from bridgepool.gateway.proxy._refusals import Refusal, find_error_form, render
from bridgepool.gateway.proxy._runtimes import Runtimes, UnavailableProvider
from bridgepool.http import Exchange, Headers, RemoteProtocolError, UpstreamError, UpstreamLimits

logger = logging.getLogger("bridgepool.gateway")

_REFUSAL_SEND_TIMEOUT: Final = 1.0  # seconds for a client to take the answer that its time is over
_JSON: Final = ((b"content-type", b"application/json"),)


@attrs.frozen(kw_only=True)
class GatewaySettings:
    """The gateway's policy. Durations are in seconds, `math.inf` for none."""

    allow_anonymous: bool = False
    """Serve local programs without a key while no clients are configured. For listeners on
    loopback addresses only."""
    expose_route_headers: bool = False
    """Say in `x-bridgepool-provider` and `x-bridgepool-generation` who served an answer."""
    max_stale: float = math.inf
    """How long after its last successful reload the gateway still calls itself ready."""
    max_bridges: int = 5000
    """Most client keys that have a bridge at the same time."""
    bridge_ttl: float = 900.0
    """How long a bridge is used before it is built anew."""
    drain_timeout: float = 600.0
    """How long a request may go on after its provider was replaced, or the gateway was left."""
    poll_interval: float = 300.0
    """Between two reloads without a notice."""
    min_reload_interval: float = 0.1
    """Between two reloads that notices cause."""
    upstream_limits: UpstreamLimits = attrs.field(factory=UpstreamLimits)
    """How many connections each provider gets, and how long they may be silent."""


@attrs.frozen
class GatewayStatistics:
    """A look at a gateway. Counts only ever grow."""

    requests: int
    """Requests that are being served now."""
    ended: Mapping[Outcome, int]
    """Requests that have ended, by how."""
    runtimes: int
    """Provider runtimes that are open."""


@attrs.define(eq=False)
class Gateway:
    """A running gateway: give `handle` to whatever serves HTTP. Made by `open_gateway`."""

    pool: CachedBridgePool[BridgeKey, Provider, Bridge]
    """The pool of its bridges."""
    reload_status: ReloadStatus
    """How the reloads of the providers go."""
    _runtimes: Runtimes
    _settings: GatewaySettings
    _authorizer: Authorizer
    _readiness: Readiness
    _access_log: AccessLog | None
    _types: tuple[ProviderType, ...]
    _redactor: PathRedactor = attrs.field(init=False)
    _requests: int = 0
    _ended: dict[Outcome, int] = attrs.field(factory=lambda: dict.fromkeys(Outcome, 0))

    def __attrs_post_init__(self) -> None:
        self._redactor = PathRedactor(self._types)

    async def handle(self, exchange: Exchange) -> None:
        """Serve one request; a `bridgepool.http.Handler`.

        Never raises for what clients and upstreams do. Cancelling it ends the request.
        """
        request = exchange.request
        path = request.target.partition(b"?")[0]
        if path == b"/healthz":
            await exchange.answer(200, _JSON, b'{"status": "listening"}\n')
            return
        if path == b"/readyz":
            await self._answer_ready(exchange)
            return
        record = AccessRecord(redact_method(request.method))
        self._requests += 1
        try:
            await self._serve(exchange, record)
        except trio.Cancelled:
            if record.outcome is Outcome.COMPLETE:
                record.outcome = Outcome.CLIENT_GONE
            raise
        except Exception:
            # Whatever failed here is a bug of ours; it may cost this request and no more.
            logger.exception("a request failed")
            record.outcome, record.code = Outcome.FAILED, refusals.INTERNAL.code
            if exchange.response_started:
                raise
            await _refuse(exchange, refusals.INTERNAL, self._error_form(exchange), record)
            record.outcome = Outcome.FAILED
        finally:
            self._requests -= 1
            self._ended[record.outcome] += 1
            record.ended = time.perf_counter()
            if self._access_log is not None:
                record.path = self._redactor.redact(path, record.provider)
                self._access_log(record)

    def statistics(self) -> GatewayStatistics:
        """Take stock; cheap, resets nothing. The pool has its own."""
        return GatewayStatistics(
            self._requests, MappingProxyType(dict(self._ended)), self._runtimes.open_count
        )

    def start_draining(self) -> None:
        """Say at `/readyz` that no new work is wanted; what comes is served all the same."""
        self._readiness.draining = True

    @property
    def staleness(self) -> float:
        """Seconds since the source confirmed what is in force, from before this start if a
        snapshot file knows; `math.inf` if it never has."""
        return self._readiness.staleness

    def why_not_ready(self) -> str | None:
        """Return why new work should go elsewhere; None if the gateway is ready."""
        return self._readiness.why_not()

    def _error_form(self, exchange: Exchange, type: str | None = None) -> ErrorForm:
        """Return how the client reads errors: by a provider's type, else by the request."""
        for kind in self._types:
            if kind.name == type:
                return kind.errors
        request = exchange.request
        return find_error_form(self._types, request.target.partition(b"?")[0], request.headers)

    async def _answer_ready(self, exchange: Exchange) -> None:
        document = self._readiness.document(self.pool.generation, self.pool.snapshot.revision)
        status = 200 if document["ready"] else 503
        await exchange.answer(status, _JSON, json.dumps(document).encode() + b"\n")

    async def _serve(self, exchange: Exchange, record: AccessRecord) -> None:
        """Take a request as far as its bridge."""
        if not self._readiness.has_snapshot:
            await _refuse(exchange, refusals.NOT_READY, self._error_form(exchange), record)
            return
        identity = await identify(
            exchange.request.headers,
            self._authorizer,
            allow_anonymous=self._settings.allow_anonymous,
        )
        if isinstance(identity, Refusal):
            await _refuse(exchange, identity, self._error_form(exchange), record)
            return
        record.client, record.key = identity.key.client_id, identity.key.key_id
        lease = self.pool.acquire(identity.key)
        try:
            async with lease as bridge:
                record.generation = lease.generation
                await self._serve_on(bridge, identity, exchange, record)
        except PoolClosedError:
            await _refuse(exchange, refusals.SHUTTING_DOWN, self._error_form(exchange), record)
        except BuildError:
            logger.exception("no bridge for client %s", identity.key.client_id)
            await _refuse(exchange, refusals.BRIDGE_FAILED, self._error_form(exchange), record)

    async def _serve_on(
        self, bridge: Bridge, identity: Identity, exchange: Exchange, record: AccessRecord
    ) -> None:
        """Find what the request is for, and pass it on if that is open."""
        request = exchange.request
        target = split_target(request.target)
        found = await bridge.route(target.provider) if target is not None else None
        if target is None or found is None:
            form = self._error_form(exchange)
            await _refuse(exchange, refusals.UNKNOWN_PROVIDER, form, record)
            return
        provider = found.provider
        record.provider = provider.name
        if isinstance(found, UnavailableProvider):
            form = self._error_form(exchange, provider.type)
            await _refuse(exchange, found.refusal, form, record)
            return
        form = found.kind.errors
        match = found.kind.match(request.method, target.path)
        if match is None:
            path = self._redactor.redact(target.path)
            refusal = refusals.unknown_route(provider.name, record.method, path)
            await _refuse(exchange, refusal, form, record)
            return
        if provider.client_keys and not identity.own_key:
            await _refuse(exchange, refusals.OWN_KEY_MISSING, form, record)
            return
        upstream_target = match.path if target.query is None else match.path + b"?" + target.query
        extra = _route_headers(record) if self._settings.expose_route_headers else ()
        call = Call(found, upstream_target, identity.own_key, extra)
        await _forward_on(bridge, call, exchange, record)


def _route_headers(record: AccessRecord) -> Headers:
    return (
        (b"x-bridgepool-provider", record.provider.encode("ascii")),
        (b"x-bridgepool-generation", b"%d" % record.generation),
    )


async def _forward_on(bridge: Bridge, call: Call, exchange: Exchange, record: AccessRecord) -> None:
    """Forward, known to the bridge so that it can end it; answer for what goes wrong."""
    bridge.enter(exchange)
    try:
        await forward(call, exchange, record)
        return
    except trio.Cancelled:
        if bridge.closing:
            await _end_by_deadline(call, exchange, record)  # noqa: ASYNC102 -- it shields itself
        raise
    except UpstreamError as error:
        logger.warning("provider %s: %s", record.provider, error)
        refusal = refusal_for(error)
    except ResponseWithheldError as error:
        logger.warning("provider %s: %s", record.provider, error.refusal.message)
        refusal = error.refusal
    except ResponseCutError as error:
        logger.warning("provider %s: %s", record.provider, error.__cause__)
        return
    except RemoteProtocolError as error:
        refusal = refusals.bad_body(error)
        if exchange.response_started:  # its answer had begun before it sent the rest
            record.outcome, record.code = Outcome.CLIENT_GONE, refusal.code
            return
    finally:
        bridge.leave(exchange)
    await _refuse(exchange, refusal, call.runtime.kind.errors, record)


async def _end_by_deadline(call: Call, exchange: Exchange, record: AccessRecord) -> None:
    """Say why it ends, if there is still a way to."""
    if not exchange.response_started:
        with trio.move_on_after(_REFUSAL_SEND_TIMEOUT, shield=True):
            await _refuse(exchange, refusals.DRAIN_DEADLINE, call.runtime.kind.errors, record)
    record.outcome, record.code = Outcome.DRAIN_DEADLINE, refusals.DRAIN_DEADLINE.code


async def _refuse(
    exchange: Exchange, refusal: Refusal, form: ErrorForm, record: AccessRecord
) -> None:
    """Answer in the upstream's place."""
    headers, body = render(refusal, form)
    record.outcome, record.code = Outcome.REFUSED, refusal.code
    record.status, record.bytes_sent = refusal.status, len(body)
    await exchange.answer(refusal.status, headers, body)
    record.first_byte = time.perf_counter()
