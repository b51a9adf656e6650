"""The event that ends a stream which cannot be completed: where it may stand. Pure."""

from __future__ import annotations

import re
from typing import Final

from bridgepool.gateway.providers import ErrorForm
from bridgepool.gateway.proxy._refusals import Refusal, render_event
from bridgepool.http import Headers

_sequence_number: Final = re.compile(
    rb'"sequence_number" ?: ?([0-9]{1,15})\b'
)  # not in a quoted text
_EVENT_ENDS: Final = (b"\n\n", b"\r\n\r\n", b"\r\r")


def last_event(refusal: Refusal, form: ErrorForm, request_id: str, tail: bytes) -> bytes:
    """Return the event that ends a stream whose last pieces are `tail`."""
    numbers = _sequence_number.findall(tail)
    following = int(numbers[-1]) + 1 if numbers else 0
    return render_event(refusal, form, request_id, following)


def between_events(headers: Headers, tail: bytes) -> bool:
    """Return whether an event can follow in a response whose body so far ends with `tail`."""
    plain_events = False
    for name, value in headers:
        if name == b"content-type":
            plain_events = value.lower().startswith(b"text/event-stream")
        elif name in (b"content-encoding", b"content-length"):
            return False
    return plain_events and (not tail or tail.endswith(_EVENT_ENDS))
