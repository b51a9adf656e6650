"""The attempts of one request at one provider: when there is one, with which key, and what of it.

Theory of operation. At a provider these steps follow:

* its `max_concurrent` admits the request, at once or after a short wait;
* its breaker for the class of routes admits the attempt, or refuses it;
* it is sent with one of the provider's keys, and the answer's status moves that key's state (see
  `upstreams/_key_pool`). After a 429 or a 401 the next key is tried at once;
* what comes back settles the permit of the breaker. A failure that the provider lists in `retry_on`
  is tried again after a random delay, as far as its number of retries and its retry budget allow.

All of this happens before anything of a response went to the client, and only while the request's
body can be sent again. Whether a failing response goes to the client is decided when its head
comes: not if there is another attempt, or another provider that would take the request now. An
upstream says by `x-should-retry: false`, or by a long `Retry-After`, that it wants no retry.

What the client gets when no key is left depends on all of them: if one is rate-limited, 429 with
the time until the first of those is free again; else the refusal for a refused key. A 429 reaches
the client as it came where there was nothing to choose: the provider has one key, or the request's
body is too long to be sent again; or the 429 says that the request alone exceeds a limit, which
moves no state: one client could stop all others with it. Neither does a request with the client's
own key, or without any.
"""

from __future__ import annotations

import logging
import time
from typing import Final

import attrs
import trio

from bridgepool._backoff import Backoff
from bridgepool.gateway.providers import ProviderType
from bridgepool.gateway.proxy._attempt_bodies import RequestBodies
from bridgepool.gateway.proxy._call import Call
from bridgepool.gateway.proxy._forward import ResponseWithheldError, forward
from bridgepool.gateway.proxy._refusals import (
    PROVIDER_KEY_REFUSED,
    PROVIDER_OVERLOADED,
    UPSTREAM_FAILED,
    Refusal,
    Retry,
    circuit_open,
    provider_keys_exhausted,
)
from bridgepool.gateway.proxy._stand_ins import StandIns
from bridgepool.gateway.upstreams._admission import Admission, OverloadedError
from bridgepool.gateway.upstreams._breaker import Breaker, BreakerState, Permit
from bridgepool.gateway.upstreams._key_cooldown import cooldown, retry_after
from bridgepool.gateway.upstreams._key_pool import KeyRing, KeyState, KeyUse
from bridgepool.gateway.upstreams._resilience import Resilience
from bridgepool.gateway.usage._reader import decompress_beginning
from bridgepool.http import (
    ConnectFailed,
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
_MAX_ERROR_BYTES: Final = 4096  # of the body of a 429 that are searched
# Another key may be good, but the body cannot be sent again: a retry of the client finds it.
_REFUSED_ONCE: Final = attrs.evolve(PROVIDER_KEY_REFUSED, retry=Retry.CLIENT_DECIDES)


class _AgainError(Exception):
    """The response does not pass: there is another attempt at this provider."""


class UnservedError(Exception):
    """This provider does not serve the request; `failure` says why. Nothing went to the client."""

    def __init__(self, failure: UpstreamError | ResponseWithheldError) -> None:
        super().__init__(failure)
        self.failure = failure


@attrs.define(eq=False)
class Attempts:
    """The attempts of a request at one provider."""

    call: Call
    body: RequestBodies
    others: StandIns | None
    """The providers that may stand in for this one, if there are any."""
    _resilience: Resilience
    _breaker: Breaker | None = None
    _permit: Permit | None = None  # of the breaker, until it is settled
    _use: KeyUse | None = None  # of a key, by the current attempt; None if it has none
    _tried: tuple[KeyState, ...] = ()  # keys that it did not take
    _retries: int = 0  # so far
    _delays: Backoff | None = None  # since the first retry
    _delay: float = 0.0  # seconds until the next attempt

    async def serve(self) -> None:
        """Serve the request.

        Raises:
            UnservedError: this provider does not serve it.
            Exception: see `forward`.
        """
        call, resilience = self.call, self._resilience
        ring = call.runtime._keys if not call.own_key else None
        admission = resilience.state.admission if resilience.admission_rules is not None else None
        self._breaker = resilience.breaker(call.match.route_class)
        if admission is not None:
            try:
                admission.enter_nowait()
            except trio.WouldBlock:
                await self._wait_for_turn(admission)
        try:
            if resilience.retries:
                resilience.state.budget.count_request(trio.current_time())
            while True:
                self._get_permit()
                use = self._use = self._take_key(ring) if ring is not None else None
                try:
                    key = use.secret if use is not None else None
                    await forward(call, self.body, key, self._judge)
                    return
                except _AgainError:
                    pass
                except ShareExceeded:
                    raise  # the client has its share: another provider would not change it
                except UpstreamError as error:
                    self._fail(error)
                finally:
                    if use is not None:
                        use.end()
                if self._delay:
                    await trio.sleep(self._delay)
                    self._delay = 0.0
        finally:
            self._release_permit()
            if admission is not None:
                admission.leave()

    async def _wait_for_turn(self, admission: Admission) -> None:
        """Wait until the provider may run another request; raises `UnservedError`."""
        breaker = self._breaker
        if breaker is not None and not self._admits():
            raise _refused_by(breaker)  # it would wait in vain
        try:
            await admission.enter()
        except OverloadedError:
            raise UnservedError(ResponseWithheldError(PROVIDER_OVERLOADED)) from None

    def _get_permit(self) -> None:
        """Get the breaker's permit, if there is none; raises `UnservedError`."""
        breaker, rules = self._breaker, self._resilience.breaker_rules
        if breaker is not None and rules is not None and self._permit is None:
            self._permit = breaker.admit(rules, trio.current_time())
            if self._permit is None:
                raise _refused_by(breaker)

    def _admits(self) -> bool:
        """Return whether the breaker would admit a request now."""
        return self._resilience.admits(self.call.match.route_class, trio.current_time())

    def _release_permit(self) -> None:
        """Release the permit, if nothing came back that says anything about the upstream."""
        if self._breaker is not None and self._permit is not None:
            self._breaker.release(self._permit)
            self._permit = None

    def _take_key(self, ring: KeyRing) -> KeyUse:
        """Take a key that was not tried yet; raises `UnservedError`."""
        now = trio.current_time()
        use = ring.take(now, self._tried)
        if use is None:
            raise UnservedError(ResponseWithheldError(_no_key(ring, now)))
        self.call.record.upstream_key = use.key.state.fingerprint
        return use

    async def _judge(self, response: UpstreamResponse, beginning: bytes) -> None:
        """Judge a response whose head has come; raises if it does not go to the client."""
        if self._use is not None:
            self._judge_key(self._use, response, beginning)
        if self._resilience.in_use:
            await self._judge_provider(response)
        self.body.forget()

    def _judge_key(self, use: KeyUse, response: UpstreamResponse, beginning: bytes) -> None:
        """Move the state of the key; raises if there is to be another one."""
        runtime, status = self.call.runtime, response.status
        if status == 429 and not _is_too_large(runtime.kind, response, beginning):
            seconds = cooldown(response.headers, runtime.kind.reset_fields, time.time())
            use.rate_limited(trio.current_time(), seconds)
            can_choose = runtime._keys is not None and len(runtime._keys.keys) > 1
            if not can_choose or not self.body.can_be_sent:
                return
        elif status == 401:
            if use.refused(trio.current_time()):
                self._log_refused_key(use.key.state)
            if not self.body.can_be_sent:
                raise ResponseWithheldError(_REFUSED_ONCE)
        else:
            use.accepted()
            return
        self._tried += (use.key.state,)
        raise _AgainError

    def _log_refused_key(self, key: KeyState) -> None:
        fields = {
            "request_id": self.call.record.request_id,
            "provider": self.call.runtime.provider.name,
            "key": key.fingerprint,
            "hint": key.hint,
            "refusals": key.refusals,
        }
        logger.warning("provider refused a key", extra=fields)

    async def _judge_provider(self, response: UpstreamResponse) -> None:
        """Settle the permit; raises if there is another attempt, or another provider."""
        status = response.status
        failing = status in FAILING_STATUSES
        if status != 429:
            self._settle(good=not failing)
        failure = str(status)
        if self._may_retry(failure, response):
            raise _AgainError
        keys_out = status == 429 and self._use is not None
        unserved = failing or keys_out or failure in self._resilience.retry_on
        if unserved and await self._has_ready_other():
            raise UnservedError(ResponseWithheldError(UPSTREAM_FAILED))

    async def _has_ready_other(self) -> bool:
        """Return whether another provider would serve the request now."""
        if self.others is None or not self.body.can_be_sent:
            return False
        return await self.others.next_ready() is not None

    def _fail(self, error: UpstreamError) -> None:
        """Judge a failure without a response; returns if there is another attempt.

        Raises:
            UnservedError: there is none at this provider.
        """
        if not isinstance(error, PoolFull):
            self._settle(good=False)
            if self._may_retry(_failure_of(error), None):
                return
        raise UnservedError(error) from error

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
        """Decide whether there is another attempt after a delay; every key may be tried again."""
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
        self._tried = ()
        self._retries += 1
        self._delays = self._delays or Backoff(_FIRST_DELAY, _LONGEST_DELAY)
        self._delay = max(self._delays.next_delay(), asked)
        record = self.call.record
        fields = {
            "request_id": record.request_id,
            "provider": record.provider,
            "failure": failure,
            "retry_in": round(self._delay, 3),
        }
        logger.warning("upstream attempt failed", extra=fields)
        return True


def _is_too_large(kind: ProviderType, response: UpstreamResponse, beginning: bytes) -> bool:
    """Return whether a 429 says that the request alone exceeds a limit."""
    if kind.request_too_large is None:
        return False
    if get_header(response.headers, b"content-encoding") is not None:
        beginning = decompress_beginning(beginning, _MAX_ERROR_BYTES)
    return kind.request_too_large.search(beginning, 0, _MAX_ERROR_BYTES) is not None


def _no_key(ring: KeyRing, now: float) -> Refusal:
    """Return the refusal of a request for which no key is left."""
    seconds = ring.rate_limited_for(now)
    return PROVIDER_KEY_REFUSED if seconds is None else provider_keys_exhausted(seconds)


def _refused_by(breaker: Breaker) -> UnservedError:
    remaining = breaker.remaining(trio.current_time())
    return UnservedError(ResponseWithheldError(circuit_open(remaining)))


def _failure_of(error: UpstreamError) -> str:
    """Return the name of a failure, as in `retry_on`."""
    if isinstance(error, ConnectFailed):
        return "connect"
    return "timeout" if isinstance(error, UpstreamTimeout) else "cut"
