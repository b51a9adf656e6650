"""The provider type `anthropic`: Anthropic's API.

Routes that belong to the account and not to one request are closed, as those of `openai` are.
"""

import re
from collections.abc import Mapping
from typing import Final

from bridgepool.gateway.providers._error_form import ErrorDetails, ErrorForm
from bridgepool.gateway.providers._provider_type import (
    Headers,
    ProviderType,
    ResetFields,
    UrlField,
)
from bridgepool.gateway.providers._rate_status import anthropic_rate_headers
from bridgepool.gateway.providers._routes import GET, POST, STORED, Route, methods
from bridgepool.gateway.providers._usage_fields import UsageFields

# https://docs.anthropic.com/en/api/errors; what is not listed is `api_error`.
_ERROR_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
}


def _error_document(error: ErrorDetails) -> Mapping[str, object]:
    kind = _ERROR_TYPES.get(error.status, "api_error")
    return {
        "type": "error",
        "error": {"type": kind, "message": error.message, "code": error.code},
        "request_id": error.request_id,
    }


def _is_recognised(path: bytes, headers: Headers) -> bool:
    return path.endswith((b"/v1/messages", b"/v1/messages/count_tokens")) or any(
        name == b"anthropic-version" for name, _value in headers
    )


# The first event has the message with the counts of its input, a later one the final counts.
_USAGE: Final = UsageFields(
    answers=re.compile(rb"/v1/(?:messages|complete)"),
    input=("usage.input_tokens", "message.usage.input_tokens"),
    output=("usage.output_tokens", "message.usage.output_tokens"),
    cached_read=("usage.cache_read_input_tokens", "message.usage.cache_read_input_tokens"),
    cached_write=("usage.cache_creation_input_tokens", "message.usage.cache_creation_input_tokens"),
    input_without_cached=True,
    model=("model", "message.model"),
    response_id=("id", "message.id"),
    finish=("stop_reason", "delta.stop_reason"),
    tools=("content.*.name", "content_block.name"),
)

_MODELS: Final = (("model",), ("tools", None, "model"))

ANTHROPIC: Final = ProviderType(
    name="anthropic",
    prefix=b"",
    key_header=b"x-api-key",
    key_prefix=b"",
    errors=ErrorForm(_error_document, request_id_header=b"request-id", event_name="error"),
    usage=_USAGE,
    recognises=_is_recognised,
    # https://docs.anthropic.com/en/api/rate-limits; dates of RFC 3339.
    reset_fields=tuple(
        ResetFields(
            b"anthropic-ratelimit-%s-remaining" % limit, b"anthropic-ratelimit-%s-reset" % limit
        )
        for limit in (b"requests", b"tokens", b"input-tokens", b"output-tokens")
    ),
    request_too_large=re.compile(
        rb'"message"\s*:\s*"Extra usage is required for long context requests'
    ),
    url_fields=(
        # Of a batch, alone or in a list; not in the results, which are long and hold any text.
        UrlField(
            "results_url",
            answers=re.compile(rb"/v1/messages/batches(?:/.*(?<!/results))?"),
            leads_to=re.compile(rb"/v1/messages/batches/[A-Za-z0-9_-]+/results"),
        ),
    ),
    models_path=b"/v1/models",
    rate_headers=anthropic_rate_headers,
    routes=(
        Route(b"/v1/messages", POST, route_class="generate", models=_MODELS),
        Route(b"/v1/messages/count_tokens", POST, route_class="count"),
        # The SDK pages through batches, so listing is open; who shares a key sees its batches.
        Route(
            b"/v1/messages/batches",
            methods("GET", "HEAD", "POST"),
            below=methods("GET", "HEAD", "POST", "DELETE"),
            route_class=STORED,
            models=tuple(("requests", None, "params", *path) for path in _MODELS),
        ),
        Route(b"/v1/models", GET, GET, route_class="models"),
        Route(b"/v1/complete", POST, route_class="generate"),
    ),
)
