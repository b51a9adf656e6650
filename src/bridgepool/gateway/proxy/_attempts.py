"""The attempts of one request at one provider: which key each uses, and when there is another.

Theory of operation. A request with one of the provider's own keys takes one, and the answer's
status moves that key's state (see `upstreams/_key_pool`). After a 429 or a 401 the next key is
tried at once, as long as nothing went to the client and the request can be sent again. What the
client gets when no key is left depends on all of them: if one is rate-limited, 429 with the time
until the first of those is free again; else the refusal for a refused key. A 429 reaches the client
as it came where there was nothing to choose: the provider has one key, or the request's body is
too long to be sent again; or the 429 says that the request alone exceeds a limit, which moves no
state: one client could stop all others with it.

A request with the client's own key, or without any, has one attempt, and moves no state.
"""

from __future__ import annotations

import logging
import time
from typing import Final

import attrs
import trio

from bridgepool.gateway.providers import ProviderType
from bridgepool.gateway.proxy._access_log import AccessRecord
from bridgepool.gateway.proxy._call import Call
from bridgepool.gateway.proxy._forward import (
    Accept,
    Attempt,
    ResponseWithheldError,
    forward,
)
from bridgepool.gateway.proxy._include_usage import receive_asking, wants_usage
from bridgepool.gateway.proxy._refusals import (
    PROVIDER_KEY_REFUSED,
    Refusal,
    Retry,
    provider_keys_exhausted,
)
from bridgepool.gateway.proxy._replay import KeptBody, ReadsBody, ReplayBudget
from bridgepool.gateway.proxy._request_body import BegunBody, begin_body
from bridgepool.gateway.upstreams._key_cooldown import cooldown
from bridgepool.gateway.upstreams._key_pool import KeyRing, KeyState, KeyUse
from bridgepool.gateway.usage._reader import decompress_beginning
from bridgepool.gateway.usage._request_reader import RequestReader
from bridgepool.http import Exchange, UpstreamResponse, get_header

logger = logging.getLogger("bridgepool.gateway")

_MAX_ERROR_BYTES: Final = 4096  # of the body of a 429 that are searched


class KeysOutError(ResponseWithheldError):
    """No key of the provider is left; nothing went to the client."""


class _KeyFailedError(Exception):
    """The provider did not take the key; nothing went to the client."""


@attrs.define(eq=False)
class RequestBodies:
    """The body of a request for all of its attempts."""

    _received: bytes | ReadsBody | None
    _kept: KeptBody | None = None
    asks_for_usage: bool = False
    """It asks for usage, and the client's did not."""
    _budget: ReplayBudget | None = None
    _held: int = 0  # bytes of the budget, beside those of `_kept`

    @property
    def can_be_sent(self) -> bool:
        """Whether there can be another attempt."""
        if self._received is None or isinstance(self._received, bytes):
            return True
        return self._kept is not None and self._kept.can_replay

    def attempt(self) -> bytes | ReadsBody | None:
        """Return the body for the next attempt."""
        return self._kept.attempt() if self._kept is not None else self._received

    def read_model(self) -> RequestReader | None:
        """Return what reads the model in it; None once it is being sent."""
        if isinstance(self._received, bytes):
            return RequestReader(self._received)
        if not isinstance(self._received, BegunBody):
            return None
        reader = RequestReader()
        reader.feed(self._received.beginning)
        return reader

    def forget(self) -> None:
        """Drop what was kept: there is no other attempt."""
        if self._kept is not None:
            self._kept.forget()
        if self._budget is not None:
            self._budget.release(self._held)
            self._held = 0


async def receive_body(
    call: Call, exchange: Exchange, record: AccessRecord, budget: ReplayBudget, *, keep: bool
) -> RequestBodies:
    """Receive the beginning of a request's body.

    Args:
        call: the request.
        exchange: the client's exchange.
        record: gets the bytes.
        budget: for bodies that are kept.
        keep: there may be another attempt, so it is kept if it may be.
    """
    received: bytes | ReadsBody | None
    received = call.use.body if call.use is not None else None
    if received is None:
        received = await begin_body(exchange, record)
    if received is not None and wants_usage(call, exchange):
        received, held, asks = await receive_asking(received, budget)
        if isinstance(received, bytes):
            return RequestBodies(received, None, asks, budget, held)
    if received is None or isinstance(received, bytes) or not keep:
        return RequestBodies(received)
    limit = call.runtime.provider.max_replay_bytes
    length = get_header(exchange.request.headers, b"content-length")
    if length is not None and int(length) > limit:
        return RequestBodies(received)
    return RequestBodies(received, KeptBody(received, limit, budget))


async def forward_with_keys(
    call: Call,
    body: RequestBodies,
    exchange: Exchange,
    record: AccessRecord,
    accept: Accept | None = None,
) -> None:
    """Forward a request and its response, with as many keys of its provider as it takes.

    Args:
        call: the request as it goes to its provider.
        body: its body.
        exchange: the client's exchange; no response has begun.
        record: gets what `forward` notes, and the key.
        accept: awaited with a response that no other key would change; None if all pass.

    Raises:
        KeysOutError: no key of the provider is left.
        Exception: see `forward`.
    """
    ring = call.runtime._keys
    if ring is None or call.own_key:

        async def judge(response: UpstreamResponse, beginning: bytes) -> None:
            if accept is not None:
                await accept(response, beginning)
            body.forget()

        attempt = Attempt(None, body.attempt(), judge, body.asks_for_usage)
        await _send(call, attempt, exchange, record)
        return
    await _try_keys(call, ring, body, exchange, record, accept)


async def _send(call: Call, attempt: Attempt, exchange: Exchange, record: AccessRecord) -> None:
    """Do `forward`, as an attempt of the request's trace."""
    if record.trace is None:
        await forward(call, attempt, exchange, record)
        return
    with record.trace._attempt(call.runtime.provider, record):
        await forward(call, attempt, exchange, record)


async def _try_keys(
    call: Call,
    ring: KeyRing,
    body: RequestBodies,
    exchange: Exchange,
    record: AccessRecord,
    accept: Accept | None,
) -> None:
    used: tuple[KeyState, ...] = ()
    while True:
        now = trio.current_time()
        use = ring.take(now, used)
        if use is None:
            raise KeysOutError(_no_key(ring, now))
        record.upstream_key = use.key.state.fingerprint
        judge = _Judge(call, ring, use, body, accept, record)
        attempt = Attempt(use.secret, body.attempt(), judge, body.asks_for_usage)
        try:
            await _send(call, attempt, exchange, record)
            return
        except _KeyFailedError:
            used += (use.key.state,)
        finally:
            use.end()


@attrs.define(eq=False)
class _Judge:
    """Moves the state of a key by the status of an answer; decides whether that passes."""

    _call: Call
    _ring: KeyRing
    _use: KeyUse
    _body: RequestBodies
    _accept: Accept | None
    _record: AccessRecord

    async def __call__(self, response: UpstreamResponse, beginning: bytes) -> None:
        status = response.status
        if status == 429 and not _is_too_large(self._call.runtime.kind, response, beginning):
            fields = self._call.runtime.kind.reset_fields
            seconds = cooldown(response.headers, fields, time.time())
            self._use.rate_limited(trio.current_time(), seconds)
            if len(self._ring.keys) > 1 and self._body.can_be_sent:
                raise _KeyFailedError
        elif status == 401:
            if self._use.refused(trio.current_time()):
                _log_refused_key(self._call, self._use.key.state, self._record)
            if self._body.can_be_sent:
                raise _KeyFailedError
            raise ResponseWithheldError(_REFUSED_ONCE)
        else:
            self._use.accepted()
        if self._accept is not None:
            await self._accept(response, beginning)
        self._body.forget()


def _is_too_large(kind: ProviderType, response: UpstreamResponse, beginning: bytes) -> bool:
    """Return whether a 429 says that the request alone exceeds a limit."""
    if kind.request_too_large is None:
        return False
    if get_header(response.headers, b"content-encoding") is not None:
        beginning = decompress_beginning(beginning, _MAX_ERROR_BYTES)
    return kind.request_too_large.search(beginning, 0, _MAX_ERROR_BYTES) is not None


def _log_refused_key(call: Call, key: KeyState, record: AccessRecord) -> None:
    fields = {
        "request_id": record.request_id,
        "provider": call.runtime.provider.name,
        "key": key.fingerprint,
        "hint": key.hint,
        "refusals": key.refusals,
    }
    logger.warning("provider refused a key", extra=fields)


# Another key may be good, but the body cannot be sent again: a retry of the client finds it.
_REFUSED_ONCE = attrs.evolve(PROVIDER_KEY_REFUSED, retry=Retry.CLIENT_DECIDES)


def _no_key(ring: KeyRing, now: float) -> Refusal:
    """Return the refusal of a request for which no key is left."""
    seconds = ring.rate_limited_for(now)
    return PROVIDER_KEY_REFUSED if seconds is None else provider_keys_exhausted(seconds)
