"""What the gateway answers itself, without a key: health, preflights of browsers, probes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from bridgepool.gateway.providers._fields import NAME_PATTERN
from bridgepool.gateway.proxy._access_log import AccessRecord
from bridgepool.gateway.proxy._cors import is_preflight, preflight_headers
from bridgepool.gateway.proxy._request_id import return_request_id
from bridgepool.http import Exchange, Headers, Request

_JSON: Final = ((b"content-type", b"application/json"),)
_PROBED: Final = re.compile(rb"/%b(?:/|/api/hello)?(?:\?.*)?" % NAME_PATTERN.encode("ascii"))
_LISTENING: Final = b'{"status": "listening"}\n'


async def answer_health(
    exchange: Exchange, readiness: Callable[[], tuple[int, Mapping[str, object]]]
) -> bool:
    """Answer a request for `/healthz` or `/readyz`; return whether it is one.

    Args:
        exchange: The client's exchange; no response has begun.
        readiness: Returns status and document of `/readyz`.
    """
    path = exchange.request.target.partition(b"?")[0]
    if path == b"/healthz":
        await exchange.answer(200, _JSON, _LISTENING)
    elif path == b"/readyz":
        status, document = readiness()
        await exchange.answer(status, _JSON, msgspec.json.encode(document) + b"\n")
    else:
        return False
    return True


async def answer_without_key(exchange: Exchange, record: AccessRecord, *, preflight: bool) -> bool:
    """Answer a request that needs no key; return whether it is one. A checkpoint if it is.

    Args:
        exchange: The client's exchange; no response has begun.
        record: Gets the status and the bytes.
        preflight: Whether pages of the request's origin may call the gateway.
    """
    request = exchange.request
    if preflight and is_preflight(request):
        await _answer(exchange, record, 204, preflight_headers(request))
    elif _is_probe(request):
        await _answer(exchange, record, 200, _JSON, _LISTENING)
    else:
        return False
    return True


def _is_probe(request: Request) -> bool:
    """Return whether a request only asks whether something answers at a provider's name.

    Clients send it at their start, without a key: for the name alone, or as Claude Code since
    2.1.332 for `/api/hello` below it. It is answered whatever the name is, so the answer tells
    strangers nothing.
    """
    # What is not a name, such as a key, is refused with the reason.
    return request.method in (b"GET", b"HEAD") and _PROBED.fullmatch(request.target) is not None


async def _answer(
    exchange: Exchange, record: AccessRecord, status: int, headers: Headers, body: bytes = b""
) -> None:
    record.status, record.bytes_sent = status, len(body)
    await exchange.answer(status, return_request_id(headers, record.request_id), body)
    record.first_byte = time.perf_counter()
