"""The provider type `openai`: OpenAI's API, and the many that are compatible with it.

Routes are closed on purpose, since the central key is shared by all clients: whatever lists,
reads or deletes what belongs to the account and not to one request (files, fine-tunes,
fine-tuned models, the list of stored completions, administration).
"""

import re
from collections.abc import Mapping
from typing import Final

from bridgepool.gateway.providers._error_form import ErrorDetails, ErrorForm
from bridgepool.gateway.providers._provider_type import ProviderType, ResetFields
from bridgepool.gateway.providers._rate_status import openai_rate_headers
from bridgepool.gateway.providers._routes import (
    GET,
    POST,
    STORED,
    Route,
    WebSocketMessages,
    methods,
)
from bridgepool.gateway.providers._usage_fields import UsageFields

_STORED: Final = methods("GET", "HEAD", "POST", "DELETE")


def _error_document(error: ErrorDetails) -> Mapping[str, object]:
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    if error.status == 429:
        kind = "rate_limit_error"
    return {
        "error": {"message": error.message, "type": kind, "param": None, "code": error.code},
        "request_id": error.request_id,
    }


def _responses_event(error: ErrorDetails) -> Mapping[str, object]:
    document = _error_document(error)
    return {
        "type": "error",
        "sequence_number": error.sequence_number,
        "code": error.code,
        "message": error.message,
        "param": None,
        **document,
    }


_ERRORS: Final = ErrorForm(_error_document)
# https://platform.openai.com/docs/api-reference/responses-streaming/error; and with the object of
# an error, which other SDKs look for.
_RESPONSES_ERRORS: Final = ErrorForm(
    _error_document, event_name="error", event_document=_responses_event
)

# Completions name their counts one way, all that is newer another; the events of `responses` have
# the whole answer below "response".
_USAGE: Final = UsageFields(
    # Not below these paths, where a stored answer is returned once more; only /compact makes one.
    answers=re.compile(
        rb"/(?:(?:chat/)?completions|responses(?:/compact)?|embeddings|moderations|rerank"
        rb"|audio/(?:speech|transcriptions|translations)|images/(?:generations|edits|variations))"
    ),
    stream_option=re.compile(rb"/(?:chat/)?completions"),
    input=("usage.prompt_tokens", "usage.input_tokens", "response.usage.input_tokens"),
    output=("usage.completion_tokens", "usage.output_tokens", "response.usage.output_tokens"),
    total=("usage.total_tokens",),
    cached_read=(
        "usage.prompt_tokens_details.cached_tokens",
        "usage.input_tokens_details.cached_tokens",
        "response.usage.input_tokens_details.cached_tokens",
    ),
    cached_write=(  # of compatible endpoints that write caches on demand
        "usage.prompt_tokens_details.cache_write_tokens",
        "usage.input_tokens_details.cache_write_tokens",
        "response.usage.input_tokens_details.cache_write_tokens",
    ),
    reasoning=(
        "usage.completion_tokens_details.reasoning_tokens",
        "usage.output_tokens_details.reasoning_tokens",
        "response.usage.output_tokens_details.reasoning_tokens",
    ),
    model=("model", "response.model"),
    response_id=("id", "response.id"),
    finish=("choices.*.finish_reason", "status", "response.status"),
    unfinished=frozenset({"in_progress", "queued"}),
    tools=(
        "choices.*.message.tool_calls.*.function.name",
        "choices.*.delta.tool_calls.*.function.name",
        "output.*.name",
        "item.name",
    ),
    event=("type",),
    final_events=frozenset(
        {
            "image_edit.completed",
            "image_generation.completed",
            "speech.audio.done",
            "transcript.text.done",
            *WebSocketMessages().ends,  # some compatible endpoints tell no status
        }
    ),
)

# Besides the plain field: fallbacks that some compatible endpoints take, and models of tools.
_MODELS: Final = (("model",), ("models", None), ("tools", None, "model"))

# Each `response.create` has the body of a request.
_RESPONSES_MESSAGES: Final = WebSocketMessages(
    models=(*_MODELS, *(("response", *path) for path in _MODELS))
)
# A session has the model of the query; and others for the text of what was said, and in tools.
_REALTIME_MESSAGES: Final = WebSocketMessages(
    model_parameter="model",
    trails=True,
    models=(
        ("model",),
        *(
            (part, *path)
            for part in ("session", "response")
            for path in (
                *_MODELS,
                ("input_audio_transcription", "model"),
                ("audio", "input", "transcription", "model"),
            )
        ),
    ),
)

OPENAI: Final = ProviderType(
    name="openai",
    prefix=b"/v1",
    key_header=b"authorization",
    key_prefix=b"Bearer ",
    errors=_ERRORS,
    usage=_USAGE,
    # https://platform.openai.com/docs/guides/rate-limits; durations such as 6m0s.
    reset_fields=(
        ResetFields(b"x-ratelimit-remaining-requests", b"x-ratelimit-reset-requests"),
        ResetFields(b"x-ratelimit-remaining-tokens", b"x-ratelimit-reset-tokens"),
    ),
    # "Request too large for MODEL in organization … on tokens per min (TPM): …"
    request_too_large=re.compile(rb'"message"\s*:\s*"Request too large for '),
    models_path=b"/models",
    rate_headers=openai_rate_headers,
    routes=(
        # Stored completions can be used by who knows their id, but not be listed.
        Route(
            b"/chat/completions",
            POST,
            _STORED,
            route_class="generate",
            below_class=STORED,
            models=_MODELS,
        ),
        Route(
            b"/responses",
            POST,
            _STORED,
            errors=_RESPONSES_ERRORS,
            websocket=True,
            messages=_RESPONSES_MESSAGES,
            route_class="generate",
            below_class=STORED,
            models=_MODELS,
        ),
        Route(b"/conversations", POST, _STORED, route_class=STORED, names_model=False),
        Route(b"/models", GET, GET, route_class="models"),
        Route(b"/completions", POST, route_class="generate"),
        Route(b"/embeddings", POST, route_class="embed"),
        Route(b"/moderations", POST, route_class="embed"),
        Route(b"/audio/speech", POST, route_class="media"),
        Route(b"/audio/transcriptions", POST, route_class="media"),
        Route(b"/audio/translations", POST, route_class="media"),
        Route(b"/images/generations", POST, route_class="media"),
        Route(b"/images/edits", POST, route_class="media"),
        Route(b"/images/variations", POST, route_class="media"),
        # A websocket only.
        Route(
            b"/realtime",
            frozenset(),
            errors=_RESPONSES_ERRORS,
            route_class="generate",
            websocket=True,
            messages=_REALTIME_MESSAGES,
        ),
        # Served by many compatible endpoints, though not by OpenAI itself.
        Route(b"/rerank", POST, route_class="embed"),
    ),
)
