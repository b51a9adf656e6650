"""The gateway as a request handler: authentication, bridge, route; then `forward`.

Theory of operation. A request passes these steps, each of which may refuse it: a snapshot is in
force; the client is authenticated; its bridge is leased (and built, if there is none of this
generation); the provider exists; the route is open. The lease is held until the response has
ended, so the bridge and its upstream connections stay open while the stream runs, whatever is
replaced meanwhile. Every request makes one access record.

A step returns why it refuses a request, and `_record` answers. The functions that wait for one
another while a request is served: `handle`, `_record`, `_serve` (which has asked `_admit` for the
call), `_forward`, `forward_request`, `Attempts.serve`, `forward`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Final

import attrs
import trio

from bridgepool import BuildError, CachedBridgePool, PoolClosedError, ReloadStatus
from bridgepool.gateway.limits._prices import PriceTable
from bridgepool.gateway.providers import Provider
from bridgepool.gateway.providers._key_status import KeyReport
from bridgepool.gateway.providers._routes import split_target
from bridgepool.gateway.proxy import _refusals as refusals
from bridgepool.gateway.proxy._access_log import AccessRecord, Outcome
from bridgepool.gateway.proxy._auth import Authorizer, Identity, identify
from bridgepool.gateway.proxy._bridge import Bridge, BridgeKey
from bridgepool.gateway.proxy._budget_status import budgets_document, find_nearly_spent
from bridgepool.gateway.proxy._call import Call, route_headers, upstream_target
from bridgepool.gateway.proxy._client_statuses import with_status
from bridgepool.gateway.proxy._client_use import ClientUses
from bridgepool.gateway.proxy._cors import Cors, is_preflight
from bridgepool.gateway.proxy._forward import ResponseCutError, ResponseWithheldError
from bridgepool.gateway.proxy._key_report import KeyReporter
from bridgepool.gateway.proxy._own_answers import answer_health, answer_without_key
from bridgepool.gateway.proxy._readiness import Readiness
from bridgepool.gateway.proxy._recorder import Recorder
from bridgepool.gateway.proxy._recovery import forward_request
from bridgepool.gateway.proxy._refusals import Refusal, render
from bridgepool.gateway.proxy._replay import ReplayBudget
from bridgepool.gateway.proxy._routing import find_route
from bridgepool.gateway.proxy._runtimes import Runtimes
from bridgepool.gateway.proxy._settings import GatewaySettings
from bridgepool.gateway.proxy._status import GatewayStatistics, status_document
from bridgepool.gateway.proxy._upstream_failures import (
    log_unserved,
    log_upstream_failure,
    refusal_for,
)
from bridgepool.gateway.proxy.websockets._handshake import WebSockets
from bridgepool.gateway.serving._refused_keys import RefusedKeys
from bridgepool.gateway.upstreams._admission import Admission, OverloadedError
from bridgepool.http import (
    Exchange,
    Headers,
    InvalidRequest,
    RemoteProtocolError,
    UpstreamError,
    is_websocket_handshake,
)

logger = logging.getLogger("bridgepool.gateway")

_REFUSAL_SEND_TIMEOUT: Final = 1.0  # seconds, for the refusal of a request that is cancelled


@attrs.define(eq=False)
class Gateway:
    """A running gateway: give `handle` to an HTTP server. Made by `open_gateway`."""

    pool: CachedBridgePool[BridgeKey, Provider, Bridge]
    """The pool of bridges."""
    reload_status: ReloadStatus
    """The status of the provider reloads."""
    _runtimes: Runtimes
    _settings: GatewaySettings
    _authorizer: Authorizer
    _readiness: Readiness
    _recorder: Recorder
    _replay_budget: ReplayBudget
    _keys: KeyReporter
    _uses: ClientUses
    _admission: Admission
    _usage_full: Callable[[], bool] | None  # usage cannot be recorded now
    _refused_keys: RefusedKeys = attrs.field(
        factory=lambda: RefusedKeys(logger, "client keys refused"), init=False
    )
    _sockets: WebSockets = attrs.field(init=False)
    _cors: Cors = attrs.field(
        default=attrs.Factory(lambda self: Cors(self._settings.cors_origins), takes_self=True),
        init=False,
    )

    @_sockets.default
    def _make_sockets(self) -> WebSockets:
        refuse, generation = self._runtimes.refuse_now, lambda: self.pool.generation
        return WebSockets(
            self._settings, self._uses, self._identify, refuse, generation, self._usage_full
        )

    async def handle(self, exchange: Exchange) -> None:
        """Serve one request; a `bridgepool.http.Handler`.

        Never raises for errors of clients and upstreams. Cancelling it ends the request.
        """
        if not await answer_health(exchange, self.readiness):
            await self._record(exchange, self._serve)

    async def handle_over_limit(self, exchange: Exchange) -> None:
        """Serve one request of a connection over a limit; an `over_limit` for `serve_http`.

        Health checks are answered, all others are refused.
        """
        if not await answer_health(exchange, self.readiness):
            await self._record(exchange, self._refuse_connection)

    def answer_invalid(self, invalid: InvalidRequest) -> tuple[Headers, bytes]:
        """Refuse and record an invalid request; an `answer_invalid` for `serve_http`."""
        headers, body = self._recorder.refuse_invalid(invalid)
        return headers + self._cors.headers_for(invalid.headers), body

    async def _refuse_connection(self, exchange: Exchange, record: AccessRecord) -> Refusal:
        return refusals.TOO_MANY_CONNECTIONS

    async def _record(
        self,
        exchange: Exchange,
        serve: Callable[[Exchange, AccessRecord], Awaitable[Refusal | None]],
    ) -> None:
        """Serve or refuse a request, and make its access record."""
        request = exchange.request
        exchange.response_headers = self._cors.headers_for(request.headers)
        record = self._recorder.begin(request.method, request.headers, exchange.client)
        try:
            refusal = await serve(exchange, record)
            if refusal is not None:
                await self._refuse(exchange, refusal, record)
        except trio.Cancelled:
            await self._end_cancelled(  # noqa: ASYNC102 -- it shields itself
                refusals.SHUTTING_DOWN, exchange, record
            )
            raise
        except Exception:
            # A bug of ours: it may fail this request and no other.
            exchange.log_fields = {"request_id": record.request_id}
            logger.exception("request failed", extra=exchange.log_fields)
            record.outcome, record.code = Outcome.FAILED, refusals.INTERNAL.code
            if exchange.response_started:
                raise
            await self._refuse(exchange, refusals.INTERNAL, record)
            record.outcome = Outcome.FAILED
        finally:
            self._recorder.end(record, request.target.partition(b"?")[0])

    def statistics(self) -> GatewayStatistics:
        """Return the current statistics; cheap. The pool has its own."""
        running, ended = len(self._recorder.running), dict(self._recorder.ended)
        return GatewayStatistics(running, MappingProxyType(ended), self._runtimes.open_count)

    def start_draining(self) -> None:
        """Report `draining` at `/readyz`; requests are still served."""
        self._readiness.draining = True

    def close_websockets(self) -> None:
        """Close each websocket with 1012, between two responses; many not all at once."""
        self._sockets.close_all()

    def replace_prices(self, table: PriceTable) -> None:
        """Put another price table in force: it prices each request that ends from now on.

        Raises:
            PriceTableError: It has another currency.
        """
        self._uses.prices.replace(table)

    @property
    def staleness(self) -> float:
        """Seconds since the source confirmed the snapshot in force; `math.inf` if unknown. A
        snapshot file carries the age over a restart."""
        return self._readiness.staleness

    def why_not_ready(self) -> str | None:
        """Return why the gateway is not ready; None if it is."""
        return self._readiness.why_not()

    def readiness(self) -> tuple[int, Mapping[str, object]]:
        """Return status and document of `/readyz`."""
        document = self._readiness.document(self.pool.generation, self.pool.snapshot.revision)
        return (200 if document["ready"] else 503), document

    def status(self) -> Mapping[str, object]:
        """Return what the gateway is doing, for operators: a document for JSON.

        It has the readiness, the pool, the reloads, the providers, the requests that are being
        served, and the models without a price. It shows keys masked, and no address of a provider.
        """
        return status_document(
            self.readiness()[1],
            self.pool,
            self.reload_status,
            self._runtimes.in_force.entries(),
            self._keys.statuses(),
            self._recorder.running,
            self._admission,
            self._uses.prices,
        )

    async def budgets(self) -> Mapping[str, object]:
        """Return which budgets of clients are spent, or nearly so: a document for JSON.

        A checkpoint.
        """
        found, shared = await find_nearly_spent(self._uses.limiter), self._uses.shared
        return budgets_document(found, in_memory=shared is None or shared.in_memory)

    def key_report(self) -> KeyReport:
        """Return what the gateway does with the keys of its providers; cheap."""
        return self._keys.report()

    async def _serve(self, exchange: Exchange, record: AccessRecord) -> Refusal | None:
        """Authenticate a request and lease its bridge; return why it is refused, if it is."""
        allowed = self._cors.allowed_origin(exchange.request.headers) is not None
        if await answer_without_key(exchange, record, preflight=allowed):
            return None
        if is_preflight(exchange.request):
            return refusals.ORIGIN_NOT_ALLOWED
        if not self._readiness.has_snapshot:
            return refusals.NOT_READY
        identity = await self._identify(exchange)
        if isinstance(identity, Refusal):
            if identity is refusals.WRONG_CLIENT_KEY:
                await trio.sleep(self._refused_keys.refuse(exchange.client, trio.current_time()))
            return identity
        exchange.authenticated()
        record.client, record.key = identity.key.client_id, identity.key.key_id
        is_limited = self._settings.max_concurrent > 0
        if is_limited:
            try:
                await self._admission.enter()
            except OverloadedError:
                return refusals.GATEWAY_OVERLOADED
        try:
            lease, begun = self.pool.acquire(identity.key), time.perf_counter()
            async with lease as bridge:
                record.generation = lease.generation
                if record.trace is not None:
                    record.trace.note_acquired(begun, bridge.built)
                call = await self._admit(bridge, identity, exchange, record)
                return call if isinstance(call, Refusal) else await self._forward(bridge, call)
        except PoolClosedError:
            return refusals.SHUTTING_DOWN
        except BuildError:
            fields = {"request_id": record.request_id, "client": record.client}
            logger.exception("bridge failed", extra=fields)
            return refusals.BRIDGE_FAILED
        finally:
            if is_limited:
                self._admission.leave()

    async def _identify(self, exchange: Exchange) -> Identity | Refusal:
        """Identify the client of a request; a websocket's again and again."""
        headers, anonymous = exchange.request.headers, self._settings.allow_anonymous
        allowed = self._cors.allowed_origin(headers) is not None
        return await identify(
            headers, self._authorizer, allow_anonymous=anonymous, allowed_origin=allowed
        )

    async def _admit(
        self, bridge: Bridge, identity: Identity, exchange: Exchange, record: AccessRecord
    ) -> Call | Refusal:
        """Find the provider and the route of a request, and judge it by the client's rules."""
        request, settings = exchange.request, self._settings
        target = split_target(request.target)
        found = await bridge.route(target.provider) if target is not None else None
        socket = use = None
        if is_websocket_handshake(request):
            judged = self._sockets.admit(target, found, identity, exchange)
            if isinstance(judged, Refusal):
                return judged
            socket = judged
        if target is None or found is None:
            return refusals.unknown_provider(identity.visible(bridge.provider_names))
        routed = find_route(found, target, identity, request, record, self._recorder.redactor)
        if isinstance(routed, Refusal):
            return routed
        runtime, match, own_key = routed
        errors = record._errors = match.route.errors or runtime.kind.errors
        if self._usage_full is not None and self._usage_full():
            return refusals.USAGE_UNAVAILABLE
        if identity.ruled is not None:
            admitted = await self._uses.admit(identity.ruled, runtime.kind, match, exchange, record)
            if isinstance(admitted, Refusal):
                return admitted
            use = admitted
        return Call(
            exchange,
            record,
            runtime,
            upstream_target(match, target.query, runtime.provider, own_key=own_key),
            match,
            target.query,
            identity.tenant(exchange.client),
            own_key,
            errors,
            bridge.why_cancelled,
            route_headers(record) if settings.expose_route_headers else (),
            settings.reads_usage,
            use,
            socket,
        )

    async def _forward(self, bridge: Bridge, call: Call) -> Refusal | None:
        """Forward a request, registered with its bridge; return the refusal if that failed."""
        exchange, record = call.exchange, call.record
        if call.socket is not None:
            full = self._sockets.enter(call.client)
            if full is not None:
                if call.use is not None:
                    call.use.end(record)
                return full
        bridge.enter(exchange)
        try:
            await forward_request(call, self._replay_budget, bridge.route)
        except trio.Cancelled:
            await self._end_cancelled(  # noqa: ASYNC102 -- it shields itself
                bridge.why_cancelled(), exchange, record
            )
            raise
        except UpstreamError as error:
            refusal = refusal_for(error)
            log_unserved(record, refusal, error)
            return refusal
        except ResponseWithheldError as error:
            log_unserved(record, error.refusal, error.refusal.message)
            return error.refusal
        except ResponseCutError as error:
            log_upstream_failure(record, error.__cause__)
        except RemoteProtocolError as error:
            refusal = refusals.bad_body(error)
            if not exchange.response_started:
                return refusal
            # The response had begun before the request was complete.
            record.outcome, record.code = Outcome.CLIENT_GONE, refusal.code
        finally:
            bridge.leave(exchange)
            if call.socket is not None:
                self._sockets.leave(call.client)
            if call.use is not None:
                call.use.end(record)
        return None

    async def _end_cancelled(
        self, refusal: Refusal, exchange: Exchange, record: AccessRecord
    ) -> None:
        """Record why a request was cancelled, and refuse it if its response has not begun."""
        if record.outcome is not Outcome.COMPLETE:
            return
        if exchange.disconnected:
            record.outcome = Outcome.CLIENT_GONE
            return
        if not exchange.response_started:
            with (
                trio.move_on_after(_REFUSAL_SEND_TIMEOUT, shield=True),
                suppress(trio.BrokenResourceError),
            ):
                await self._refuse(exchange, refusal, record)
        at_drain = refusal is refusals.DRAIN_DEADLINE
        record.outcome = Outcome.DRAIN_DEADLINE if at_drain else Outcome.SHUTDOWN
        record.code = refusal.code

    async def _refuse(self, exchange: Exchange, refusal: Refusal, record: AccessRecord) -> None:
        """Answer with a refusal."""
        refusal = with_status(refusal, exchange.request.headers, self._settings.no_retry_status)
        form = self._recorder.error_form(exchange.request, record)
        headers, body = render(refusal, form, record.request_id)
        record.outcome, record.code = Outcome.REFUSED, refusal.code
        record.status, record.bytes_sent = refusal.status, len(body)
        await exchange.answer(refusal.status, headers, body)
        record.first_byte = time.perf_counter()
