"""`stream_options.include_usage`: put into a request, and its effect taken out of the stream. Pure.

A streamed chat completion tells its tokens only if the request asks for that. Then the stream has
one more chunk before its end, without choices. A client that did not ask need not be able to read
it, so it never gets it.
"""

from __future__ import annotations

import re
from typing import Any, Final

import attrs
import msgspec

MAX_HELD_BYTES: Final = 16 * 1024
"""The longest beginning of an event that is held back until its end has come."""
_DATA: Final = b"data:"
_end_of_event: Final = re.compile(rb"\n\n|\r\n\r\n|\r\r")
_request: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_options: Final = msgspec.json.Decoder(dict[str, Any])
_chunk: Final = msgspec.json.Decoder()
_encode: Final = msgspec.json.Encoder().encode


def ask_for_usage(body: bytes) -> bytes | None:
    """Return a request that asks for its usage, if it is streamed and does not ask yet.

    All other fields stay as they are, byte for byte; of a name that comes twice, the last stays.

    Returns:
        None if the request is to be sent as it is.
    """
    try:
        fields = _request.decode(body)
        if bytes(fields.get("stream", b"")) != b"true":
            return None
        given = bytes(fields.get("stream_options", b"null"))
        options = {} if given == b"null" else _options.decode(given)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # the upstream says what is wrong with it
    if options.get("include_usage"):
        return None
    options["include_usage"] = True
    fields["stream_options"] = msgspec.Raw(_encode(options))
    return _encode(fields)


@attrs.define(eq=False)
class UsageStripper:
    """Takes the chunk with the usage out of a stream of events.

    Whole events pass at once. The beginning of one whose end has not come is held back, if it can
    be the beginning of that chunk.
    """

    _held: bytes = attrs.field(default=b"", init=False)
    _passing: bool = attrs.field(default=False, init=False)  # within an event that is not it
    _last: bytes = attrs.field(default=b"", init=False)  # bytes of that event: its end may be split

    def feed(self, data: bytes) -> bytes:
        """Take a piece of the stream; return what goes to the client now."""
        before, begin = (self._last, len(self._last)) if self._passing else (self._held, 0)
        data, self._held = before + data, b""
        passed: list[bytes] = []
        for found in _end_of_event.finditer(data, max(0, len(before) - 3)):
            event = data[begin : found.end()]
            begin = found.end()
            if self._passing or not _is_it(event):
                passed.append(event)
            self._passing = False
        rest = data[begin:]
        if rest and not self._passing and _may_be_it(rest):
            self._held = rest
        elif rest:
            self._passing, self._last = True, data[-3:]
            passed.append(rest)
        return b"".join(passed)

    def rest(self) -> bytes:
        """Return what is held back, at the end of the stream."""
        held, self._held = self._held, b""
        return b"" if _is_it(held) else held


def _may_be_it(data: bytes) -> bool:
    """Return whether this can be the beginning of the chunk with the usage."""
    return len(data) <= MAX_HELD_BYTES


def _is_it(event: bytes) -> bool:
    """Return whether an event is the chunk with the usage."""
    if b'"usage"' not in event or len(event) > MAX_HELD_BYTES:
        return False
    lines = event.replace(b"\r", b"\n").split(b"\n")
    data = [line[len(_DATA) :] for line in lines if line.startswith(_DATA)]
    if len(data) != 1:
        return False
    try:
        chunk = _chunk.decode(data[0])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return type(chunk) is dict and chunk.get("choices") == [] and type(chunk.get("usage")) is dict
