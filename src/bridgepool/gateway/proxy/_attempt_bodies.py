"""The body of a request for all of its attempts."""

from __future__ import annotations

import attrs

from bridgepool.gateway.proxy._call import Call
from bridgepool.gateway.proxy._include_usage import receive_asking, wants_usage
from bridgepool.gateway.proxy._replay import KeptBody, ReadsBody, ReplayBudget
from bridgepool.gateway.proxy._request_body import BegunBody, begin_body
from bridgepool.gateway.usage._request_reader import RequestReader
from bridgepool.http import get_header


@attrs.define(eq=False)
class RequestBodies:
    """The body of a request for all of its attempts."""

    _received: bytes | ReadsBody | None
    _kept: KeptBody | None = None
    asks_for_usage: bool = False
    """It asks for usage and the client's did not, so the client does not get it."""
    _budget: ReplayBudget | None = None
    _held: int = 0  # bytes of the budget, beside those of `_kept`

    @property
    def can_be_sent(self) -> bool:
        """Whether there can be another attempt."""
        if self._received is None or isinstance(self._received, bytes):
            return True
        return self._kept is not None and self._kept.can_replay

    def attempt(self) -> bytes | ReadsBody | None:
        """Return the body for the next attempt, from its beginning."""
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


async def receive_body(call: Call, budget: ReplayBudget, *, keep: bool) -> RequestBodies:
    """Receive the beginning of a request's body.

    Args:
        call: the request.
        budget: for bodies that are kept.
        keep: there may be another attempt, so it is kept if it may be.
    """
    received: bytes | ReadsBody | None
    received = call.use.body if call.use is not None else None
    if received is None:
        received = await begin_body(call.exchange, call.record)
    if received is not None and wants_usage(call):
        received, held, asks = await receive_asking(received, budget)
        if isinstance(received, bytes):
            return RequestBodies(received, None, asks, budget, held)
    if received is None or isinstance(received, bytes) or not keep:
        return RequestBodies(received)
    limit = call.runtime.provider.max_replay_bytes
    length = get_header(call.exchange.request.headers, b"content-length")
    if length is not None and int(length) > limit:
        return RequestBodies(received)
    return RequestBodies(received, KeptBody(received, limit, budget))
