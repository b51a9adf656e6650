"""The usage record: what one request has used. Pure.

Its fields are declared here once. The line of the usage log, the row that a gateway sends, the
columns of the store, the filters and the CSV of `bridgepool usage` are derived from them.
"""

from __future__ import annotations

import os
import re
import time
from typing import Final

import attrs
import msgspec

_ID: Final = re.compile(r"[0-9a-f]{32}")
_encode: Final = msgspec.json.Encoder().encode


def new_record_id() -> str:
    """Return a new id: 48 bits of the time in milliseconds, then 80 random bits, in hex."""
    milliseconds = time.time_ns() // 1_000_000
    return (milliseconds.to_bytes(6, "big") + os.urandom(10)).hex()


def is_record_id(text: str) -> bool:
    """Return whether a text has the form of a new id."""
    return _ID.fullmatch(text) is not None


# Without slots, since msgspec writes those in another order than that of the fields.
@attrs.frozen(kw_only=True, slots=False)
class UsageRecord:
    """What one request has used. Empty texts and None stand for what is not known."""

    id: str = attrs.field(factory=new_record_id)
    """Unique; ids made later sort later, within a clock's precision."""
    time: str
    """When the request ended: ISO 8601 in UTC, with milliseconds. The same as in its line of the
    access log; a response on a websocket has no line there."""
    gateway: str = ""
    """The gateway that served it, by the name of its key, with a store of its own by that of its
    machine; empty in a gateway's own log."""
    request_id: str = ""
    """The id that the client's response has; clients may choose it, so it may come twice."""
    client: str
    """The client's id; `-` for a local program without a key."""
    key: str = "-"
    """The id of the client's key."""
    provider: str
    """The name of the provider that served it, or was to serve it."""
    fallback_from: str = ""
    """The provider that the client asked for, if another took its place."""
    upstream_key: str = ""
    """The fingerprint of the provider's key that was used."""
    generation: int = 0
    """The generation that served it; 0 if none did."""
    route: str = ""
    """The pattern of the route below the provider's base URL, such as `/responses/*`."""
    model: str = ""
    """The model that was asked for, if the request was read."""
    answered_model: str = ""
    """The model that answered."""
    session: str = ""
    """The session id that the client sent."""
    client_kind: str = ""
    """The client's program, by its User-Agent."""
    status: int = 0
    """The status sent to the client; 0 if none was."""
    outcome: str = ""
    """How the request ended, as in the access log."""
    code: str = ""
    """The code of the refusal, or of the error that cut the response."""
    input_tokens: int | None = None
    """Tokens of the whole input, with those of a cache."""
    output_tokens: int | None = None
    """Tokens of the whole output, with those of reasoning."""
    cached_read_tokens: int | None = None
    """Part of the input: read from a cache."""
    cached_write_tokens: int | None = None
    """Part of the input: written to a cache."""
    reasoning_tokens: int | None = None
    """Part of the output: reasoning."""
    cost: float | None = None
    """What the tokens cost by the price table of the gateway at that time; 0 if none were used."""
    currency: str = ""
    """The currency of the cost."""
    priced_as_unknown: bool = False
    """Whether the price table has no row for the model, so that `[unknown]` made the cost."""
    complete: bool = False
    """Whether these are the final counts: the answer came to its end, and reported tokens."""
    tools: tuple[str, ...] = ()
    """Names of the tools that the model called, each once; the first 32."""
    finish: str = ""
    """Why the output ended, in the upstream's words."""
    response_id: str = ""
    """The upstream's id of the answer."""
    first_byte_ms: float | None = None
    """Milliseconds until the head of the response was sent."""
    duration_ms: float = 0.0
    """Milliseconds until the request ended."""
    attempts: int = 0
    """How often an upstream was tried, also one that could not be reached."""


def usage_line(record: UsageRecord) -> bytes:
    """Format one record as a line of JSON. Every field is always there, in this order."""
    return _encode(record) + b"\n"
