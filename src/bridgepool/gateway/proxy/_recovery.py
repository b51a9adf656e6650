"""What happens to a request whose provider fails: breakers, retries, and other providers.

Theory of operation. A request is tried at its provider, and then at the providers of its
`fallback`, in order, until one of them serves it. At each provider these steps follow:

* its breaker for the class of routes admits the request, or refuses it;
* its `max_concurrent` admits it, at once or after a short wait;
* it is sent, with as many keys as it takes (see `_attempts`). What comes back settles the permit
  of the breaker. A failure that the provider lists in `retry_on` is tried again after a random
  delay, as far as its number of retries and its retry budget allow.

All of this happens before anything of a response went to the client, and only while the request's
body can be sent again. Whether a failing response goes to the client is decided when its head
comes: not if there is another attempt, or another provider that would take the request now. An
upstream says by `x-should-retry: false`, or by a long `Retry-After`, that it wants no retry.

A provider that stands in has the rules of its own for keys, breakers, retries and running requests;
its own `fallback` is not followed. It never gets a key that the client brought for another.

A provider that asks for none of this has one attempt per key, and nothing here costs it anything.
"""

from __future__ import annotations

import logging
import time
from typing import Final

import attrs
import trio

from bridgepool._backoff import Backoff
from bridgepool.gateway.proxy._access_log import AccessRecord
from bridgepool.gateway.proxy._attempts import (
    KeysOutError,
    RequestBodies,
    forward_with_keys,
    receive_body,
)
from bridgepool.gateway.proxy._call import Call
from bridgepool.gateway.proxy._forward import ResponseWithheldError
from bridgepool.gateway.proxy._refusals import PROVIDER_OVERLOADED, UPSTREAM_FAILED, circuit_open
from bridgepool.gateway.proxy._replay import ReplayBudget
from bridgepool.gateway.proxy._stand_ins import FindRuntime, StandIns, call_on
from bridgepool.gateway.proxy._usage import reads_answer
from bridgepool.gateway.upstreams._admission import Admission, OverloadedError
from bridgepool.gateway.upstreams._breaker import Breaker, BreakerState, Permit
from bridgepool.gateway.upstreams._key_cooldown import retry_after
from bridgepool.gateway.upstreams._resilience import Resilience
from bridgepool.gateway.usage._request_reader import is_plain_json
from bridgepool.http import (
    ConnectFailed,
    Exchange,
    PoolFull,
    ShareExceeded,
    UpstreamError,
    UpstreamResponse,
    UpstreamTimeout,
    get_header,
)

logger = logging.getLogger("bridgepool.gateway")

FAILING_STATUSES: Final = frozenset({502, 503, 504, 529})
"""The statuses that count as a failure of the provider."""
_FIRST_DELAY: Final = 0.25  # seconds; the limit of the first delay, doubled each time
_LONGEST_DELAY: Final = 2.0
_LONGEST_RETRY_AFTER: Final = 5.0  # seconds that an upstream may ask for


class _AgainError(Exception):
    """The response does not pass: there is another attempt at this provider."""


class _UnservedError(Exception):
    """This provider does not serve the request; `failure` says why. Nothing went to the client."""

    def __init__(self, failure: UpstreamError | ResponseWithheldError) -> None:
        super().__init__(failure)
        self.failure = failure


async def forward_request(
    call: Call, exchange: Exchange, record: AccessRecord, budget: ReplayBudget, find: FindRuntime
) -> None:
    """Forward a request and its response, in as many attempts as it takes.

    Args:
        call: the request as it goes to its provider.
        exchange: the client's exchange; no response has begun.
        record: gets what `forward` notes, the key, and the provider that served.
        budget: for bodies that are kept.
        find: finds the providers that may stand in.

    Raises:
        Exception: see `forward`.
    """
    if exchange.body.error is not None:
        raise exchange.body.error  # before an upstream connection is taken
    runtime, resilience = call.runtime, call.runtime._resilience
    ring = runtime._keys
    keep = bool(resilience.retries or resilience.fallback)
    keep = keep or (ring is not None and len(ring.keys) > 1 and not call.own_key)
    body = await receive_body(call, exchange, record, budget, keep=keep)
    try:
        if not resilience.in_use:
            await forward_with_keys(call, body, exchange, record)
            return
        target, others = call, StandIns(call, find)
        while True:
            try:
                await _Run(target, others, body, exchange, record).serve()
                return
            except _UnservedError as unserved:
                failure = unserved.failure
            other = await others.take() if body.can_be_sent else None
            if other is None:
                raise failure
            target = call_on(target, other)
            _note_fallback(record, target, failure)
    finally:
        if not record.attempts and not record.model and _reads_model(call, exchange):
            record._request_reader = body.read_model()  # it was refused, but may be known
        body.forget()


def _reads_model(call: Call, exchange: Exchange) -> bool:
    request = exchange.request
    reads = call.tells_usage and reads_answer(call.runtime.kind, request.method, call.target)
    return reads and is_plain_json(request.headers)


def _note_fallback(record: AccessRecord, call: Call, failure: Exception) -> None:
    fields = {
        "request_id": record.request_id,
        "provider": record.provider,
        "fallback": call.runtime.provider.name,
        "error": str(failure),
    }
    logger.warning("request falls back", extra=fields)
    record.fallback_from = record.fallback_from or record.provider
    record.provider = call.runtime.provider.name
    record.provider_type = call.runtime.provider.type
    record.upstream_key = ""


@attrs.define(eq=False)
class _Run:
    """A request at one provider."""

    call: Call
    others: StandIns
    """The providers that may stand in for this one."""
    body: RequestBodies
    exchange: Exchange
    record: AccessRecord
    _resilience: Resilience = attrs.field(init=False)
    _breaker: Breaker | None = attrs.field(init=False)
    _permit: Permit | None = None  # of the current attempt, until it is settled
    _retries: int = 0  # so far
    _delays: Backoff | None = None  # since the first retry
    _delay: float = 0.0  # seconds until the next attempt

    @_resilience.default
    def _find_resilience(self) -> Resilience:
        return self.call.runtime._resilience

    @_breaker.default
    def _find_breaker(self) -> Breaker | None:
        return self._resilience.breaker(self.call.match.route_class)

    async def serve(self) -> None:
        """Serve the request.

        Raises:
            _UnservedError: this provider does not serve it.
            Exception: see `forward`.
        """
        resilience = self._resilience
        if resilience.admission_rules is None:
            await self._try()
            return
        admission = resilience.state.admission
        try:
            admission.enter_nowait()
        except trio.WouldBlock:
            await self._wait_for_turn(admission)
        try:
            await self._try()
        finally:
            admission.leave()

    async def _wait_for_turn(self, admission: Admission) -> None:
        """Wait until the provider may run another request; raises `_UnservedError`."""
        breaker = self._breaker
        if breaker is not None and not self._admits():
            raise _refused_by(breaker)  # it would wait in vain
        try:
            await admission.enter()
        except OverloadedError:
            raise _UnservedError(ResponseWithheldError(PROVIDER_OVERLOADED)) from None

    async def _try(self) -> None:
        """Send the request until it is served or there is no other attempt."""
        resilience, now = self._resilience, trio.current_time()
        if resilience.retries:
            resilience.state.budget.count_request(now)
        while True:
            self._get_permit(now)
            try:
                await forward_with_keys(
                    self.call, self.body, self.exchange, self.record, self._accept
                )
                return
            except _AgainError:
                pass
            except KeysOutError as error:
                raise _UnservedError(error) from error
            except UpstreamError as error:
                self._fail(error)
            finally:
                self._release_permit()
            await trio.sleep(self._delay)
            now = trio.current_time()

    def _get_permit(self, now: float) -> None:
        """Get the breaker's permit for an attempt; raises `_UnservedError`."""
        breaker, rules = self._breaker, self._resilience.breaker_rules
        if breaker is not None and rules is not None:
            self._permit = breaker.admit(rules, now)
            if self._permit is None:
                raise _refused_by(breaker)

    def _admits(self) -> bool:
        """Return whether the breaker would admit a request now."""
        return self._resilience.admits(self.call.match.route_class, trio.current_time())

    def _release_permit(self) -> None:
        """Release the permit, if nothing came back that says anything about the upstream."""
        if self._breaker is not None and self._permit is not None:
            self._breaker.release(self._permit)

    async def _accept(self, response: UpstreamResponse, _beginning: bytes) -> None:
        """Judge a response whose head has come; raises if it does not go to the client."""
        status, runtime = response.status, self.call.runtime
        failing = status in FAILING_STATUSES
        if status != 429:
            self._settle(good=not failing)
        failure = str(status)
        if self._may_retry(failure, response):
            raise _AgainError
        keys_out = status == 429 and runtime._keys is not None and not self.call.own_key
        unserved = failing or keys_out or failure in self._resilience.retry_on
        if unserved and await self._has_ready_other():
            raise _UnservedError(ResponseWithheldError(UPSTREAM_FAILED))

    async def _has_ready_other(self) -> bool:
        """Return whether another provider would serve the request now."""
        return self.body.can_be_sent and await self.others.next_ready() is not None

    def _fail(self, error: UpstreamError) -> None:
        """Judge a failure without a response; returns if there is another attempt.

        Raises:
            _UnservedError: there is none at this provider.
            UpstreamError: another provider would not change it.
        """
        if isinstance(error, ShareExceeded):
            raise error  # the client has its share
        if not isinstance(error, PoolFull):
            self._settle(good=False)
            if self._may_retry(_failure_of(error), None):
                return
        raise _UnservedError(error) from error

    def _settle(self, *, good: bool) -> None:
        breaker, permit = self._breaker, self._permit
        if breaker is None or permit is None:
            return
        self._permit = None
        now = trio.current_time()
        changed = breaker.succeed(permit, now) if good else breaker.fail(permit, now)
        if changed is None:
            return
        call = self.call
        fields = {
            "provider": call.runtime.provider.name,
            "route_class": call.match.route_class,
        }
        if changed is BreakerState.OPEN:
            seconds = round(breaker.remaining(now), 3)
            logger.warning("breaker opened", extra={**fields, "seconds": seconds})
        else:
            logger.info("breaker closed", extra=fields)

    def _may_retry(self, failure: str, response: UpstreamResponse | None) -> bool:
        """Decide whether there is another attempt, and when."""
        resilience = self._resilience
        if failure not in resilience.retry_on or self._retries >= resilience.retries:
            return False
        if not self.body.can_be_sent:
            return False
        if not self._admits():
            return False  # it has just opened
        asked = 0.0
        if response is not None:
            if get_header(response.headers, b"x-should-retry") == b"false":
                return False
            asked = retry_after(response.headers, time.time()) or 0.0
            if asked > _LONGEST_RETRY_AFTER:
                return False
        if not resilience.state.budget.take(resilience.retry_budget, trio.current_time()):
            return False
        self._retries += 1
        self._delays = self._delays or Backoff(_FIRST_DELAY, _LONGEST_DELAY)
        self._delay = max(self._delays.next_delay(), asked)
        record = self.record
        fields = {
            "request_id": record.request_id,
            "provider": record.provider,
            "failure": failure,
            "retry_in": round(self._delay, 3),
        }
        logger.warning("upstream attempt failed", extra=fields)
        return True


def _refused_by(breaker: Breaker) -> _UnservedError:
    remaining = breaker.remaining(trio.current_time())
    return _UnservedError(ResponseWithheldError(circuit_open(remaining)))


def _failure_of(error: UpstreamError) -> str:
    """Return the name of a failure, as in `retry_on`."""
    if isinstance(error, ConnectFailed):
        return "connect"
    return "timeout" if isinstance(error, UpstreamTimeout) else "cut"
