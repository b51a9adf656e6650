"""The usage of a request: which answers are read, who asked, and the record at its end.

Nothing of this runs unless somebody wants usage.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import attrs

from bridgepool.gateway.limits._prices import PriceTable
from bridgepool.gateway.providers import Headers, ProviderType
from bridgepool.gateway.providers._access_keys import holds_access_key
from bridgepool.gateway.proxy._access_log import AccessRecord, times_of
from bridgepool.gateway.proxy._prices import Prices
from bridgepool.gateway.proxy._refusals import (
    CLIENT_SHARE_EXCEEDED,
    UPSTREAM_BUSY,
    UPSTREAM_UNREACHABLE,
)
from bridgepool.gateway.usage._reader import UsageReader, make_usage_reader
from bridgepool.gateway.usage._records import UsageRecord

OnUsage = Callable[[UsageRecord], None]
"""Called once for every request to a provider, after its end. Must not block or raise."""

SESSION_HEADERS: Final = (
    b"x-claude-code-session-id",
    b"session-id",
    b"session_id",
    b"x-session-id",
)
"""Where clients name their session: Claude Code; Codex, also in its older spelling; opencode."""
_SESSION_FORM: Final = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
# What a User-Agent begins with, or holds -> the kind. Programs come before the SDKs they use.
CLIENT_KINDS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"claude-cli", "claude-code"),
    (b"codex", "codex"),
    (b"opencode", "opencode"),
    (b"qwencode", "qwen-code"),
    (b"aider", "aider"),
    (b"litellm", "litellm"),
    (b"langchain", "langchain"),
    (b"ai-sdk/", "ai-sdk"),
    (b"openai/python", "openai-python"),
    (b"openai/js", "openai-node"),
    (b"anthropic/python", "anthropic-python"),
    (b"anthropic/js", "anthropic-node"),
    (b"curl/", "curl"),
    (b"mozilla/", "browser"),
)
"""Words of a User-Agent, in lower case, and what the client is called."""
_UNSENT: Final = frozenset(  # codes of requests that got no connection to their provider
    refusal.code for refusal in (UPSTREAM_UNREACHABLE, UPSTREAM_BUSY, CLIENT_SHARE_EXCEEDED)
)
_METHODS_WITHOUT_MODEL: Final = frozenset(("GET", "HEAD", "DELETE"))


def note_client(record: AccessRecord, headers: Headers) -> None:
    """Note what a request's headers tell of the client's program and session."""
    for name, value in headers:
        if name == b"user-agent":
            agent = value[:256].lower()
            for word, kind in CLIENT_KINDS:
                if word in agent:
                    record.client_kind = kind
                    break
        elif name in SESSION_HEADERS and not record.session and _SESSION_FORM.fullmatch(value):
            record.session = "" if holds_access_key(value) else value.decode("ascii")


def reads_answer(kind: ProviderType, method: bytes, target: bytes) -> bool:
    """Return whether the answer to a request tells usage."""
    if kind.usage is None or method != b"POST":
        return False
    return kind.usage.answers.fullmatch(target.partition(b"?")[0]) is not None


def reader_for(kind: ProviderType, status: int, headers: Headers) -> UsageReader | None:
    """Return a reader for an answer with this head, if it can tell usage."""
    if kind.usage is None or not 200 <= status < 300:
        return None
    return make_usage_reader(kind.usage, headers)


@attrs.frozen
class UsageReporter:
    """Makes the usage record of each request to a provider, and of each response on a websocket."""

    _on_usage: OnUsage
    _prices: Prices

    def observe(self, record: AccessRecord) -> None:
        """Report a request that has ended; a `RequestObserver`."""
        if record.provider != "-" and not record.has_responses:  # with records of their own
            self.report(record)

    def report(self, record: AccessRecord) -> None:
        """Report one record; a `RequestObserver`."""
        made = usage_record(record, self._prices.table)
        if made.priced_as_unknown:
            self._prices.note_answer(made.provider, made.answered_model or made.model)
        self._on_usage(made)


def cost_of(record: AccessRecord, prices: PriceTable) -> float | None:
    """Return what the tokens of a request cost; None if that is not known.

    It is known if the counts are final. What reached no provider, or was refused by one, costs
    nothing, and neither does what runs no model.
    """
    runs_model = record.websocket or record.method not in _METHODS_WITHOUT_MODEL
    was_sent = record.attempts and record.code not in _UNSENT
    if not was_sent or not runs_model or record.upstream_status >= 400:
        return 0.0
    usage = record.usage
    if not usage.complete:
        return None
    tokens, model = usage.tokens, usage.model or record.model
    cached = (tokens.cached_read or 0, tokens.cached_write or 0)
    cost = prices.cost(record.provider, model, tokens.input or 0, tokens.output or 0, *cached)
    return round(cost, 9)


def usage_record(record: AccessRecord, prices: PriceTable | None = None) -> UsageRecord:
    """Return what a request has used, at its end."""
    time, first, duration = times_of(record)
    usage = record.usage
    tokens = usage.tokens
    cost, as_unknown = None, False
    if prices is not None:
        cost = cost_of(record, prices)
        if usage.complete:
            price = prices.price_of(record.provider, usage.model or record.model)
            as_unknown = price is prices.unknown
    return UsageRecord(
        time=time,
        request_id=record.request_id,
        client=record.client,
        key=record.key,
        provider=record.provider,
        fallback_from=record.fallback_from,
        upstream_key=record.upstream_key,
        generation=record.generation,
        route=record.route,
        model=record.model,
        answered_model=usage.model,
        session=record.session,
        client_kind=record.client_kind,
        status=record.status,
        outcome=record.outcome.value,
        code=record.code,
        input_tokens=tokens.input,
        output_tokens=tokens.output,
        cached_read_tokens=tokens.cached_read,
        cached_write_tokens=tokens.cached_write,
        reasoning_tokens=tokens.reasoning,
        cost=cost,
        currency="" if cost is None or prices is None else prices.currency,
        priced_as_unknown=as_unknown,
        complete=usage.complete,
        tools=usage.tools,
        finish=usage.finish,
        response_id=usage.response_id,
        first_byte_ms=first,
        duration_ms=duration,
        attempts=record.attempts,
    )
