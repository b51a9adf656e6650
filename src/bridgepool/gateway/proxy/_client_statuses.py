"""Statuses of refusals that the client understands. Pure.

A refusal that a retry cannot help says so by `x-should-retry: false`. Some clients do not read
that, and ask again for seconds or for ever after a status that stands for trouble that passes;
Codex also after one that does not. Claude Code has words of its own for two: after 404 the model
does not exist, and after 403 its user should log in. These clients are known by a word in their
User-Agent, and get 400, after which each of them stops and shows the message. The page on clients
has the versions that this was measured with.
"""

from __future__ import annotations

import re
from typing import Final

import attrs

from bridgepool.gateway.proxy._refusals import Refusal, Retry
from bridgepool.http import Headers, get_header

_RETRIED: Final = frozenset((408, 409, 425, 429, *range(500, 600)))
_MISREAD_BY: Final = (  # words of a User-Agent, and the statuses that get 400 in their place
    # After 426 it uses HTTP in place of a websocket.
    (re.compile(rb"\bcodex", re.IGNORECASE), frozenset(range(401, 600)) - {426}),
    (re.compile(rb"\b(?:opencode|ai-sdk|qwencode)", re.IGNORECASE), _RETRIED),
    (re.compile(rb"\bclaude-cli", re.IGNORECASE), frozenset((403, 404))),
)


def with_status(refusal: Refusal, headers: Headers, no_retry_status: int | None) -> Refusal:
    """Return a refusal with the status that its client gets.

    Args:
        refusal: The refusal, with its own status.
        headers: The request's.
        no_retry_status: The status of refusals that a retry cannot help, for all clients; None for
            the status that each client understands.
    """
    if refusal.retry is not Retry.USELESS:
        return refusal
    if no_retry_status is not None and refusal.status in _RETRIED:
        return attrs.evolve(refusal, status=no_retry_status)
    agent = get_header(headers, b"user-agent") or b""
    for word, statuses in _MISREAD_BY:
        if refusal.status in statuses and word.search(agent) is not None:
            return attrs.evolve(refusal, status=400)
    return refusal
