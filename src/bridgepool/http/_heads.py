"""Strict checks of raw heads, and serialization of heads. Pure.

h11 is made to cope with what exists on the internet: it accepts folded fields, bare line feeds and
a head of any size that arrives in one piece. The first two are how requests are smuggled past a
proxy. So each head is first checked strictly against RFC 9112 by one regular expression, which also
splits it. Only a head that fails is examined line by line, to report what is wrong.

In the other direction, all fields are checked at once and joined here: 2 µs where h11 takes 60.
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

# RFC 9110 sections 5.6.2 and 5.5. Possessive, so hostile input causes no backtracking.
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
_forbidden = re.compile(rb"\x00|(?<!\r)\n|\r[^\n]")
_names_out = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9a-z]++\n)*+")
_values_out = re.compile(rb"[\t\n\x20-\x7e\x80-\xff]*+")
_target_out = re.compile(rb"[\x21-\x7e]++")


def find_head_end(data: bytes, start: int, seen: int, limits: MessageLimits) -> int:
    """Find the end of the head, or trailer section, that begins at `start`.

    A head that is malformed or too large is refused as early as possible, before it is complete.

    Args:
        data: The receive buffer.
        start: The position of the head in it.
        seen: The position up to which an earlier call has searched; at least `start`.
        limits: The largest head.

    Returns:
        The position after the head, or -1 if it is incomplete.

    Raises:
        RemoteProtocolError: `data` does not begin with a valid head.
    """
    end = data.find(b"\r\n\r\n", max(start, seen - 3))
    length = (end if end >= 0 else len(data)) - start
    if length > limits.max_header_bytes:
        raise HeadTooLarge(f"the fields are larger than {limits.max_header_bytes} bytes")
    if end >= 0:
        return end + 4
    bad = _forbidden.search(data, max(start, seen - 1))
    if bad is not None:
        raise RemoteProtocolError(_describe_forbidden(bad.group()))
    if length and _token.match(data, start) is None:
        raise RemoteProtocolError("the message does not begin with a valid start line or field")
    return -1


def parse_request_head(head: bytes, limits: MessageLimits) -> Request:
    """Check a complete request head against the grammar and the limits, and split it.

    Raises:
        RemoteProtocolError: Or a subclass.
    """
    match = _request_head.fullmatch(head)
    if match is None:
        raise RemoteProtocolError(_explain(head, _request_line, "request line"))
    method, target, version, lines = match.groups()
    if len(target) > limits.max_target_bytes:
        raise TargetTooLong(f"the target is longer than {limits.max_target_bytes} bytes")
    return Request(method, target, _split_fields(lines, limits), _check_version(version))


def parse_response_head(head: bytes, limits: MessageLimits) -> ResponseHead:
    """Check a complete response head against the grammar and the limits, and split it.

    Raises:
        RemoteProtocolError: Or a subclass.
    """
    match = _response_head.fullmatch(head)
    if match is None:
        raise RemoteProtocolError(_explain(head, _status_line, "status line"))
    version, status, reason, lines = match.groups()
    fields = _split_fields(lines, limits)
    return ResponseHead(int(status), (reason or b"").strip(b" \t"), fields, _check_version(version))


def parse_trailers(raw: bytes, limits: MessageLimits) -> Headers:
    """Parse the raw bytes of a trailer section, including the empty line at its end.

    Raises:
        RemoteProtocolError: Or a subclass.
    """
    if raw == b"\r\n":
        return ()
    match = _trailers.fullmatch(raw)
    if match is None:
        raise RemoteProtocolError(_explain_fields(raw.split(b"\r\n")[:-2]))
    fields = _split_fields(match.group(1), limits)
    for name, _ in fields:
        if name in _NEVER_TRAILERS:
            raise RemoteProtocolError(f"{name.decode()} is not allowed in trailers")
    return fields


# RFC 9110 section 6.5.1: framing, routing and authentication must be known before the body.
_NEVER_TRAILERS = frozenset(
    (b"authorization", b"connection", b"content-length", b"host", b"trailer", b"transfer-encoding")
)


def _check_version(version: bytes) -> bytes:
    if version not in (b"1.1", b"1.0"):
        raise VersionNotSupported("only HTTP/1.0 and HTTP/1.1 are supported")
    return version


def _split_fields(lines: bytes, limits: MessageLimits) -> Headers:
    """Split fields that are known to be well-formed, each with its line break."""
    if lines.count(b"\n") > limits.max_header_count:
        raise HeadTooLarge(f"there are more than {limits.max_header_count} fields")
    pairs = [line.partition(b":") for line in lines.split(b"\r\n")[:-1]]
    return tuple([(name.lower(), value.strip(b" \t")) for name, _, value in pairs])


def _describe_forbidden(bad: bytes) -> str:
    if bad == b"\x00":
        return "the head contains a NUL"
    return "a line ends with a bare line feed" if bad == b"\n" else "the head contains a bare CR"


def _explain(head: bytes, start_line: re.Pattern[bytes], name: str) -> str:
    """Describe what is wrong with a head, without its bytes: they may contain secrets."""
    bad = _forbidden.search(head)
    if bad is not None:
        return _describe_forbidden(bad.group())
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
            return "a field line has no colon"
        if name[-1:] in (b" ", b"\t"):
            return "there is white space between a field name and its colon"
        if _token.fullmatch(name) is None:
            return "a field name is empty or contains invalid characters"
        if _field_value.fullmatch(value) is None:
            return f"the value of {name.decode()} contains a control character"
    return "the fields are malformed"


def join_fields(headers: Headers) -> bytes:
    """Return the fields as lines, including the empty line at the end.

    Raises:
        LocalProtocolError: A name or value is invalid.
    """
    if not headers:
        return b"\r\n"
    names, values = zip(*headers, strict=True)
    if _names_out.fullmatch(b"\n".join(names) + b"\n") is None:
        raise LocalProtocolError("field names must be lower-case tokens")
    joined = b"\n".join(values)
    if joined.count(b"\n") >= len(headers) or _values_out.fullmatch(joined) is None:
        raise LocalProtocolError("a field value contains a line break or control character")
    return b"".join([b"%b: %b\r\n" % field for field in headers]) + b"\r\n"


def join_request_line(method: bytes, target: bytes) -> bytes:
    """Return the first line of a request.

    Raises:
        LocalProtocolError: The method or the target is invalid.
    """
    if _token.fullmatch(method) is None:
        raise LocalProtocolError("the method is not a token")
    if _target_out.fullmatch(target) is None:
        raise LocalProtocolError("the target is empty or contains invalid characters")
    return b"%b %b HTTP/1.1\r\n" % (method, target)


def join_status_line(status: int, reason: bytes) -> bytes:
    """Return the first line of a response.

    Raises:
        LocalProtocolError: The status does not have three digits, or the reason has a line break.
    """
    if not 100 <= status <= 999:
        raise LocalProtocolError(f"{status} is not an HTTP status")
    if _field_value.fullmatch(reason) is None:
        raise LocalProtocolError("the reason contains a line break or control character")
    return b"HTTP/1.1 %d %b\r\n" % (status, reason)
