"""Strict checks of raw heads, and the joining of heads to bytes. Pure.

h11 is made to get along with what is out there: it takes folded fields, bare line feeds and
a head of any size that comes in one piece, and two of those are how requests are smuggled
past a proxy. So a head is held to the letter of RFC 9112 first, by one regular expression
that also cuts it, and only the head that fails is looked at line by line to say what is wrong.

On the way out, fields are checked all at once and joined here: 2 µs where h11 takes 60.
"""

import re

from bridgepool.http._errors import (
    HeadTooLarge,
    LocalProtocolError,
    RemoteProtocolError,
    TargetTooLong,
    VersionNotSupported,
)
from bridgepool.http._limits import MessageLimits
from bridgepool.http._messages import Headers, Request, ResponseHead

# RFC 9110 section 5.6.2 and 5.5. Possessive: hostile input is read once, never backtracked.
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_VALUE = rb"[\t\x20-\x7e\x80-\xff]*+"
_FIELDS = rb"((?:" + _TOKEN + rb":" + _VALUE + rb"\r\n)*+)\r\n"
_REQUEST_LINE = rb"(" + _TOKEN + rb") ([\x21-\x7e]++) HTTP/([0-9]\.[0-9])"
_STATUS_LINE = rb"HTTP/([0-9]\.[0-9]) ([1-9][0-9][0-9])(?: (" + _VALUE + rb"))?"

_request_head = re.compile(_REQUEST_LINE + rb"\r\n" + _FIELDS)
_request_line = re.compile(_REQUEST_LINE)
_response_head = re.compile(_STATUS_LINE + rb"\r\n" + _FIELDS)
_status_line = re.compile(_STATUS_LINE)
_trailers = re.compile(_FIELDS)
_token = re.compile(_TOKEN)
_field_value = re.compile(_VALUE)
_bad_so_far = re.compile(rb"\x00|(?<!\r)\n|\r[^\n]")
_names_out = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9a-z]++\n)*+")
_values_out = re.compile(rb"[\t\n\x20-\x7e\x80-\xff]*+")
_target_out = re.compile(rb"[\x21-\x7e]++")


def find_head_end(data: bytes, start: int, seen: int, limits: MessageLimits) -> int:
    """Find where the head, or trailer section, at `start` ends: one past its end, or -1.

    What can be refused before the head is complete is refused: nobody is kept waiting for
    the end of something that is no head, or that is too large.

    Args:
        data: The receive buffer.
        start: Where the head begins in it.
        seen: Up to where an earlier call with the same head has looked; at least `start`.
        limits: The largest request target and head.

    Raises:
        RemoteProtocolError: Not the beginning of a head.
    """
    end = data.find(b"\r\n\r\n", max(start, seen - 3))
    length = (end if end >= 0 else len(data)) - start
    if length > limits.max_header_bytes:
        raise HeadTooLarge(f"the fields are larger than {limits.max_header_bytes} bytes")
    if end >= 0:
        return end + 4
    bad = _bad_so_far.search(data, max(start, seen - 1))
    if bad is not None:
        raise RemoteProtocolError(_name_of(bad.group()))
    if length and _token.match(data, start) is None:
        raise RemoteProtocolError("does not begin like a head of HTTP/1")
    return -1


def parse_request_head(head: bytes, limits: MessageLimits) -> Request:
    """Hold one complete request head to the grammar and the limits, and cut it.

    Raises:
        RemoteProtocolError: Or the subclass that fits.
    """
    match = _request_head.fullmatch(head)
    if match is None:
        raise RemoteProtocolError(_explain(head, _request_line, "request line"))
    method, target, version, lines = match.groups()
    if len(target) > limits.max_target_bytes:
        raise TargetTooLong(f"the target is longer than {limits.max_target_bytes} bytes")
    return Request(method, target, _cut_fields(lines, limits), _spoken(version))


def parse_response_head(head: bytes, limits: MessageLimits) -> ResponseHead:
    """Hold one complete response head to the grammar and the limits, and cut it.

    Raises:
        RemoteProtocolError: Or the subclass that fits.
    """
    match = _response_head.fullmatch(head)
    if match is None:
        raise RemoteProtocolError(_explain(head, _status_line, "status line"))
    version, status, reason, lines = match.groups()
    fields = _cut_fields(lines, limits)
    return ResponseHead(int(status), (reason or b"").strip(b" \t"), fields, _spoken(version))


def parse_trailers(raw: bytes, limits: MessageLimits) -> Headers:
    """Parse the raw bytes of a trailer section, its last, empty line included.

    Raises:
        RemoteProtocolError: Or the subclass that fits.
    """
    if raw == b"\r\n":
        return ()
    match = _trailers.fullmatch(raw)
    if match is None:
        raise RemoteProtocolError(_explain_fields(raw.split(b"\r\n")[:-2]))
    fields = _cut_fields(match.group(1), limits)
    for name, _ in fields:
        if name in _NEVER_TRAILERS:
            raise RemoteProtocolError(f"{name.decode()} cannot come after the body")
    return fields


# RFC 9110 section 6.5.1: what decides framing, routing or who may must be known in front.
_NEVER_TRAILERS = frozenset(
    (b"authorization", b"connection", b"content-length", b"host", b"trailer", b"transfer-encoding")
)


def _spoken(version: bytes) -> bytes:
    if version not in (b"1.1", b"1.0"):
        raise VersionNotSupported("only HTTP/1.0 and HTTP/1.1 are spoken here")
    return version


def _cut_fields(lines: bytes, limits: MessageLimits) -> Headers:
    """Cut fields that are known to be well-formed, each with its line break."""
    if lines.count(b"\n") > limits.max_header_count:
        raise HeadTooLarge(f"there are more than {limits.max_header_count} fields")
    pairs = [line.partition(b":") for line in lines.split(b"\r\n")[:-1]]
    return tuple([(name.lower(), value.strip(b" \t")) for name, _, value in pairs])


def _name_of(bad: bytes) -> str:
    if bad == b"\x00":
        return "there is a NUL in the head"
    return "a line ends with a bare line feed" if bad == b"\n" else "there is a bare CR in the head"


def _explain(head: bytes, start_line: re.Pattern[bytes], name: str) -> str:
    """Say what is wrong with a head; its bytes are kept out: they may hold secrets."""
    bad = _bad_so_far.search(head)
    if bad is not None:
        return _name_of(bad.group())
    first, *fields = head.split(b"\r\n")[:-2]
    if start_line.fullmatch(first) is None:
        return f"the {name} is malformed"
    return _explain_fields(fields)


def _explain_fields(fields: list[bytes]) -> str:
    for line in fields:
        name, colon, value = line.partition(b":")
        if line[:1] in (b" ", b"\t"):
            return "a field is folded over several lines"
        if not colon:
            return "there is a line without a colon among the fields"
        if name[-1:] in (b" ", b"\t"):
            return "there is white space between a field's name and its colon"
        if _token.fullmatch(name) is None:
            return "a field's name is empty or has characters that names cannot have"
        if _field_value.fullmatch(value) is None:
            return f"the value of {name.decode()} has a control character"
    return "the fields are malformed"


def join_fields(headers: Headers) -> bytes:
    """Return the fields as lines, the empty line at their end included.

    Raises:
        LocalProtocolError: A name or value is not fit to be sent.
    """
    if not headers:
        return b"\r\n"
    names, values = zip(*headers, strict=True)
    if _names_out.fullmatch(b"\n".join(names) + b"\n") is None:
        raise LocalProtocolError("field names must be lower-case tokens")
    joined = b"\n".join(values)
    if joined.count(b"\n") >= len(headers) or _values_out.fullmatch(joined) is None:
        raise LocalProtocolError("a field's value has a line break or control character")
    return b"".join([b"%b: %b\r\n" % field for field in headers]) + b"\r\n"


def join_request_line(method: bytes, target: bytes) -> bytes:
    """Return the first line of a request.

    Raises:
        LocalProtocolError: The method or the target is not fit to be sent.
    """
    if _token.fullmatch(method) is None:
        raise LocalProtocolError("the method is not a token")
    if _target_out.fullmatch(target) is None:
        raise LocalProtocolError("the target is empty or has characters that must be quoted")
    return b"%b %b HTTP/1.1\r\n" % (method, target)


def join_status_line(status: int, reason: bytes) -> bytes:
    """Return the first line of a response.

    Raises:
        LocalProtocolError: The status has not three digits, or the reason a line break.
    """
    if not 100 <= status <= 999:
        raise LocalProtocolError(f"{status} is not a status")
    if _field_value.fullmatch(reason) is None:
        raise LocalProtocolError("the reason has a line break or control character")
    return b"HTTP/1.1 %d %b\r\n" % (status, reason)
