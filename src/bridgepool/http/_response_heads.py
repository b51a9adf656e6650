"""Lenient reading of response heads: what servers send although it is malformed. Pure.

Requests are read strictly, since their senders may be hostile to each other. A response is read as
leniently as its framing stays unambiguous: whatever any other reader makes of the same bytes, the
body ends at the same place. So the oddities that are accepted stand outside the fields about
framing, or RFC 9112 says what they mean. Nothing odd is forwarded: a head is first rewritten into
its well-formed equivalent, or rejected, and only the result is parsed, by the strict parser. A
well-formed head is never rewritten. Its fault tells the two apart, so that a connection whose
server is that careless carries no other request.
"""

import re

from bridgepool.http._errors import (
    HeadTooLarge,
    NotSupported,
    RemoteProtocolError,
    VersionNotSupported,
)
from bridgepool.http._framing import FramingFields, parse_framing
from bridgepool.http._heads import find_head_end, parse_response_head
from bridgepool.http._limits import MessageLimits
from bridgepool.http._messages import ResponseHead

_CR = 13
_status_line = re.compile(rb"(HTTP/[0-9]\.[0-9]) +([1-9][0-9][0-9])(?: (.*))?", re.DOTALL)
_field_line = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t\x20-\x7e\x80-\xff]*+")
_name = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++")
_never_in_lines = re.compile(rb"[\x00\r\n]")
_control_characters = re.compile(rb"[\x01-\x08\x0b-\x1f\x7f]")
_not_letters = re.compile(rb"[^a-z]")
_FORBIDDEN = "the head contains a NUL, a bare CR, or both kinds of line breaks"
_FRAMING_WORDS = (b"contentlength", b"transferencoding")


def find_response_head_end(data: bytes, start: int, seen: int, limits: MessageLimits) -> int:
    """Find the end of a response head; as `find_head_end`, but its lines may end with LF alone.

    The end of the status line decides for the whole head. Where both kinds of line breaks are
    mixed, readers disagree about what is a line.
    """
    line_end = data.find(b"\n", start)
    if line_end <= start or data[line_end - 1] == _CR:
        return find_head_end(data, start, seen, limits)
    end = data.find(b"\n\n", max(start, seen - 1))
    length = (end if end >= 0 else len(data)) - start
    if length > limits.max_header_bytes:
        raise HeadTooLarge(f"the fields are larger than {limits.max_header_bytes} bytes")
    if not data.startswith(b"HTTP/", start):
        raise RemoteProtocolError("the status line is malformed")
    if end >= 0:
        return end + 2
    if data.find(b"\r", max(start, seen - 1)) >= 0:
        raise RemoteProtocolError(_FORBIDDEN)
    return -1


def read_response_head(
    raw: bytes, limits: MessageLimits
) -> tuple[ResponseHead, FramingFields, str]:
    """Parse a complete response head.

    Returns:
        The head, its fields about framing, and what is wrong with it; empty if it is well-formed.

    Raises:
        RemoteProtocolError: It has no unambiguous meaning, or is over a limit.
    """
    try:
        head = parse_response_head(raw, limits)
        return head, parse_framing(head.headers, head.http_version), ""
    except (HeadTooLarge, NotSupported, VersionNotSupported):
        raise
    except RemoteProtocolError as fault:
        head = parse_response_head(_rewrite(raw), limits)
        return head, parse_framing(head.headers, head.http_version), str(fault)


def _rewrite(raw: bytes) -> bytes:
    """Return the well-formed head that a malformed one means.

    Raises:
        RemoteProtocolError: There is none, or readers may disagree about it.
    """
    line_break = b"\r\n" if raw.endswith(b"\r\n") else b"\n"
    status_line, *lines = raw.split(line_break)[:-2]
    if any(_never_in_lines.search(line) for line in (status_line, *lines)):
        raise RemoteProtocolError(_FORBIDDEN)
    status = _status_line.fullmatch(status_line)
    if status is None:
        raise RemoteProtocolError("the status line is malformed")
    version, code, reason = status.groups()
    rewritten = [b"%b %b %b" % (version, code, _without_controls(reason or b""))]
    rewritten += _merge_lengths(_rewrite_fields(lines))
    return b"\r\n".join((*rewritten, b"", b""))


def _rewrite_fields(lines: list[bytes]) -> list[bytes]:
    """Return well-formed lines: unfolded, without control characters and invalid names."""
    fields: list[list[bytes]] = []  # of each field its lines
    for line in lines:
        if line[:1] not in (b" ", b"\t"):
            fields.append([line])
        elif fields:
            fields[-1].append(line)
        else:
            raise RemoteProtocolError("there is white space before the first field")
    rewritten = []
    for first, *folded in fields:
        if not folded and _field_line.fullmatch(first):
            rewritten.append(first)
            continue
        name, colon, value = first.partition(b":")
        if not colon:
            raise RemoteProtocolError("a field line has no colon")
        for line in (first, *folded):
            letters = _not_letters.sub(b"", line.partition(b":")[0].lower())
            if any(word in letters for word in _FRAMING_WORDS):
                raise RemoteProtocolError("a field about framing is malformed")
        name = name.rstrip(b" \t")
        if _name.fullmatch(name):
            value = b" ".join([value.strip(b" \t"), *(line.strip(b" \t") for line in folded)])
            rewritten.append(b"%b: %b" % (name, _without_controls(value)))
    return rewritten


def _merge_lengths(fields: list[bytes]) -> list[bytes]:
    """Replace Content-Length fields that all have the same digits by one (RFC 9112 section 6.3)."""
    others, lengths = [], []
    for field in fields:
        name, _, value = field.partition(b":")
        if name.lower() == b"content-length":
            lengths += [length.strip(b" \t") for length in value.split(b",")]
        else:
            others.append(field)
    if not lengths:
        return others
    if len(set(lengths)) > 1:
        raise RemoteProtocolError("the message has several values of content-length")
    return [*others, b"content-length: " + lengths[0]]


def _without_controls(text: bytes) -> bytes:
    return _control_characters.sub(b" ", text)
