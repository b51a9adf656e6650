"""How the clients of an API read errors, in answers and at the end of streams. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs


@attrs.frozen
class ErrorDetails:
    """An error that the gateway reports in an upstream's place."""

    status: int
    """The HTTP status."""
    code: str
    """What happened, for programs, such as ``provider_disabled``."""
    message: str
    """The same for people."""
    request_id: str
    """As in the response's header."""
    sequence_number: int = 0
    """Of an event: the number that follows those of the stream so far."""


@attrs.frozen
class ErrorForm:
    """How the clients of an API read errors."""

    document: Callable[[ErrorDetails], Mapping[str, object]]
    """Makes the JSON document of an error."""
    request_id_header: bytes = b"x-request-id"
    """The header that carries the id of the request, lower case."""
    event_name: str | None = None
    """The name of the server-sent event that ends a stream which cannot be completed; None for
    an event that has data only."""
    event_document: Callable[[ErrorDetails], Mapping[str, object]] | None = None
    """Makes the JSON document of that event; None if it is that of an error."""
