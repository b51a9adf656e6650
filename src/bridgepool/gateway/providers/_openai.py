"""The provider type `openai`: OpenAI's API, and the many that are compatible with it.

Routes are closed on purpose, since the central key is shared by all clients: whatever lists,
reads or deletes what belongs to the account and not to one request (files, fine-tunes,
fine-tuned models, the list of stored completions, administration).
"""

from collections.abc import Mapping
from typing import Final

from bridgepool.gateway.providers._provider_type import ErrorDetails, ErrorForm, ProviderType
from bridgepool.gateway.providers._routes import GET, POST, Route, methods

_STORED: Final = methods("GET", "HEAD", "POST", "DELETE")


def _error_document(error: ErrorDetails) -> Mapping[str, object]:
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    if error.status == 429:
        kind = "rate_limit_error"
    return {
        "error": {"message": error.message, "type": kind, "param": None, "code": error.code},
        "request_id": error.request_id,
    }


OPENAI: Final = ProviderType(
    name="openai",
    prefix=b"/v1",
    key_header=b"authorization",
    key_prefix=b"Bearer ",
    errors=ErrorForm(_error_document),
    routes=(
        # Stored completions can be used by who knows their id, but not be listed.
        Route(b"/chat/completions", POST, below=_STORED),
        Route(b"/responses", POST, below=_STORED),
        Route(b"/conversations", POST, below=_STORED),
        Route(b"/models", GET, below=GET),
        Route(b"/completions", POST),
        Route(b"/embeddings", POST),
        Route(b"/moderations", POST),
        Route(b"/audio/speech", POST),
        Route(b"/audio/transcriptions", POST),
        Route(b"/audio/translations", POST),
        Route(b"/images/generations", POST),
        Route(b"/images/edits", POST),
        Route(b"/images/variations", POST),
        # Served by many compatible endpoints, though not by OpenAI itself.
        Route(b"/rerank", POST),
    ),
)
