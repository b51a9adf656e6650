"""The usage of a request: which answers are read, who asked, and the record at its end.

Nothing of this runs unless somebody wants usage.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from bridgepool.gateway.providers import Headers, ProviderType
from bridgepool.gateway.providers._access_keys import holds_access_key
from bridgepool.gateway.proxy._access_log import AccessRecord, RequestObserver, milliseconds
from bridgepool.gateway.serving._access_log import timestamp
from bridgepool.gateway.usage._reader import UsageReader, make_usage_reader
from bridgepool.gateway.usage._records import UsageRecord

OnUsage = Callable[[UsageRecord], None]
"""Called once for every request to a provider, after its end. Must not block or raise."""

SESSION_HEADERS: Final = (b"x-claude-code-session-id", b"session-id", b"session_id")
"""Where clients name their session: Claude Code; Codex, also in its older spelling."""
_SESSION_FORM: Final = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
# What a User-Agent begins with, or holds -> the kind. Programs come before the SDKs they use.
CLIENT_KINDS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"claude-cli", "claude-code"),
    (b"codex", "codex"),
    (b"opencode", "opencode"),
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


def report_usage(on_usage: OnUsage) -> RequestObserver:
    """Return an observer that makes the usage record of each request to a provider."""

    def observe(record: AccessRecord) -> None:
        if record.provider != "-":
            on_usage(usage_record(record))

    return observe


def usage_record(record: AccessRecord) -> UsageRecord:
    """Return what a request has used, at its end."""
    first, duration = milliseconds(record)
    usage = record.usage
    tokens = usage.tokens
    return UsageRecord(
        time=timestamp(),
        request_id=record.request_id,
        client=record.client,
        key=record.key,
        provider=record.provider,
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
        complete=usage.complete,
        tools=usage.tools,
        finish=usage.finish,
        response_id=usage.response_id,
        first_byte_ms=first,
        duration_ms=duration,
        attempts=record.attempts,
    )
