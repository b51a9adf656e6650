"""What the failure of an upstream is to its client, and what the log says of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from bridgepool.gateway.proxy._access_log import AccessRecord
from bridgepool.gateway.proxy._refusals import (
    CLIENT_SHARE_EXCEEDED,
    PROVIDER_KEY_REFUSED,
    PROVIDER_KEYS_EXHAUSTED,
    PROVIDER_OVERLOADED,
    UPSTREAM_BAD_ANSWER,
    UPSTREAM_BUSY,
    UPSTREAM_CUT,
    UPSTREAM_TIMEOUT,
    UPSTREAM_UNREACHABLE,
    UPSTREAM_WITHOUT_WEBSOCKETS,
    Refusal,
    circuit_open,
)
from bridgepool.http import (
    ConnectFailed,
    PoolFull,
    ShareExceeded,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeout,
)

logger = logging.getLogger("bridgepool.gateway")

# What the gateway itself refuses, with the level of its line: a warning if an operator can help,
# by a higher limit or by another key.
_OWN_REFUSALS: Final[Mapping[str, int]] = {
    PROVIDER_OVERLOADED.code: logging.WARNING,
    UPSTREAM_BUSY.code: logging.WARNING,
    PROVIDER_KEYS_EXHAUSTED.code: logging.WARNING,
    PROVIDER_KEY_REFUSED.code: logging.WARNING,
    circuit_open(1).code: logging.INFO,  # "breaker opened" was the warning
    CLIENT_SHARE_EXCEEDED.code: logging.INFO,
    UPSTREAM_WITHOUT_WEBSOCKETS.code: logging.INFO,
}


def refusal_for(error: UpstreamError) -> Refusal:
    """Return the refusal for an upstream's failure."""
    if isinstance(error, ConnectFailed):
        return UPSTREAM_UNREACHABLE
    if isinstance(error, UpstreamTimeout):
        return UPSTREAM_TIMEOUT
    if isinstance(error, ShareExceeded):
        return CLIENT_SHARE_EXCEEDED
    if isinstance(error, PoolFull):
        return UPSTREAM_BUSY
    if isinstance(error, UpstreamProtocolError):
        return UPSTREAM_BAD_ANSWER
    return UPSTREAM_CUT


def log_unserved(record: AccessRecord, refusal: Refusal, error: object) -> None:
    """Log why a request to a provider is answered with a refusal."""
    level = _OWN_REFUSALS.get(refusal.code)
    if level is None:
        log_upstream_failure(record, error)
        return
    fields = {**_fields(record), "code": refusal.code, "reason": str(error)}
    logger.log(level, "request to a provider refused", extra=fields)


def log_upstream_failure(record: AccessRecord, error: object) -> None:
    """Log that a provider failed a request."""
    logger.warning("upstream request failed", extra={**_fields(record), "error": str(error)})


def _fields(record: AccessRecord) -> Mapping[str, object]:
    return {"request_id": record.request_id, "provider": record.provider}
