"""The kinds of upstream that a provider can be: `openai` and `anthropic`.

Each is pure data: the prefix its clients' SDKs expect, the routes that are open, and where its
key goes. Closed on purpose, since the central key is shared by all clients: whatever lists,
reads or deletes what belongs to the account and not to one request (files, fine-tunes,
fine-tuned models, the list of stored completions, administration).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import attrs

from bridgepool.gateway.providers._routes import (
    Route,
    RouteKind,
    RouteMatch,
    RouteTable,
    methods,
    table,
)

_GET: Final = methods("GET", "HEAD")
_POST: Final = methods("POST")
_STORED: Final = methods("GET", "HEAD", "POST", "DELETE")
_NONE: Final = methods()


@attrs.frozen(eq=False)
class ProviderType:
    """What an upstream speaks: its routes, its prefix, and how its key is sent."""

    name: str
    """As in a provider's `type`."""
    prefix: bytes
    """What follows ``/{provider}`` and stands for the base URL: ``b"/v1"``, or ``b""`` for an
    API whose base URL carries no version."""
    routes: RouteTable
    """What is open below the base URL."""
    key_header: bytes
    """The header that carries the key, lower case."""
    key_prefix: bytes
    """What stands before the key in it, such as ``b"Bearer "``."""

    def match(self, method: bytes, path: bytes) -> RouteMatch | None:
        """Find the open route for a request.

        Pure.

        Args:
            method: Upper case, as it came.
            path: What follows ``/{provider}``, without the query, as it came.

        Returns:
            The route with the path below the base URL; None when the request is not open.
        """
        if not path.startswith(self.prefix):
            return None
        return self.routes.match(method, path[len(self.prefix) :])


def _bridged(path: str, on: frozenset[bytes], below: frozenset[bytes] = _NONE) -> Route:
    return Route(path.encode("ascii"), on, below, RouteKind.BRIDGED)


def _allowed(path: str, on: frozenset[bytes] = _POST) -> Route:
    return Route(path.encode("ascii"), on, _NONE, RouteKind.ALLOWED)


OPENAI: Final = ProviderType(
    name="openai",
    prefix=b"/v1",
    key_header=b"authorization",
    key_prefix=b"Bearer ",
    routes=table(
        # Stored completions can be used by who knows their id, but not be listed.
        _bridged("/chat/completions", _POST, below=_STORED),
        _bridged("/responses", _POST, below=_STORED),
        _bridged("/conversations", _POST, below=_STORED),
        _bridged("/models", _GET, below=_GET),
        _allowed("/completions"),
        _allowed("/embeddings"),
        _allowed("/moderations"),
        _allowed("/audio/speech"),
        _allowed("/audio/transcriptions"),
        _allowed("/audio/translations"),
        _allowed("/images/generations"),
        _allowed("/images/edits"),
        _allowed("/images/variations"),
        # Served by many compatible endpoints, though not by OpenAI itself.
        _allowed("/rerank"),
    ),
)

ANTHROPIC: Final = ProviderType(
    name="anthropic",
    prefix=b"",
    key_header=b"x-api-key",
    key_prefix=b"",
    routes=table(
        _bridged("/v1/messages", _POST),
        _bridged("/v1/messages/count_tokens", _POST),
        # The SDK pages through batches, so listing is open; who shares a key sees its batches.
        _bridged("/v1/messages/batches", _STORED - methods("DELETE"), below=_STORED),
        _bridged("/v1/models", _GET, below=_GET),
        _allowed("/v1/complete"),
    ),
)

PROVIDER_TYPES: Final[Mapping[str, ProviderType]] = MappingProxyType(
    {kind.name: kind for kind in (OPENAI, ANTHROPIC)}
)
"""Every known type by its name."""
