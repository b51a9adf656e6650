"""What happens to a request whose provider does not serve it: other providers.

Theory of operation. A request is tried at its provider (see `_attempts`), and then at the providers
of its `fallback`, in order, until one of them serves it. All of this happens before anything of a
response went to the client, and only while the request's body can be sent again.

A provider that stands in has the rules of its own for keys, breakers, retries and running requests;
its own `fallback` is not followed. It never gets a key that the client brought for another.
"""

from __future__ import annotations

import logging

from bridgepool.gateway.proxy._attempt_bodies import receive_body
from bridgepool.gateway.proxy._attempts import Attempts, UnservedError
from bridgepool.gateway.proxy._call import Call
from bridgepool.gateway.proxy._replay import ReplayBudget
from bridgepool.gateway.proxy._stand_ins import FindRuntime, StandIns, call_on
from bridgepool.gateway.proxy._usage import reads_answer
from bridgepool.gateway.usage._request_reader import is_plain_json

logger = logging.getLogger("bridgepool.gateway")


async def forward_request(call: Call, budget: ReplayBudget, find: FindRuntime) -> None:
    """Forward a request and its response, in as many attempts as it takes.

    Args:
        call: the request as it goes to its provider; no response has begun. Its record gets what
            `forward` notes, the key, and the provider that served.
        budget: for bodies that are kept.
        find: finds the providers that may stand in.

    Raises:
        Exception: see `forward`.
    """
    if call.exchange.body.error is not None:
        raise call.exchange.body.error  # before an upstream connection is taken
    record, resilience, ring = call.record, call.runtime._resilience, call.runtime._keys
    keep = bool(resilience.retries or resilience.fallback)
    keep = keep or (ring is not None and len(ring.keys) > 1 and not call.own_key)
    body = await receive_body(call, budget, keep=keep)
    others = StandIns(call, find) if resilience.fallback else None
    target = call
    try:
        while True:
            try:
                await Attempts(target, body, others, target.runtime._resilience).serve()
                return
            except UnservedError as unserved:
                failure = unserved.failure
            other = await others.take() if others is not None and body.can_be_sent else None
            if other is None:
                try:
                    raise failure
                finally:
                    del failure  # its traceback refers to this frame
            target = call_on(target, other)
            _note_fallback(target, failure)
    finally:
        if not record.attempts and not record.model and _reads_model(call):
            record._request_reader = body.read_model()  # it was refused, but may be known
        body.forget()


def _reads_model(call: Call) -> bool:
    request = call.exchange.request
    reads = call.tells_usage and reads_answer(call.runtime.kind, request.method, call.target)
    return reads and is_plain_json(request.headers)


def _note_fallback(call: Call, failure: Exception) -> None:
    record, provider = call.record, call.runtime.provider
    fields = {
        "request_id": record.request_id,
        "provider": record.provider,
        "fallback": provider.name,
        "error": str(failure),
    }
    logger.warning("request falls back", extra=fields)
    record.fallback_from = record.fallback_from or record.provider
    record.provider, record.upstream_key = provider.name, ""
