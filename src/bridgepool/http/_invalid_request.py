"""What can be read of input that is not an acceptable request. Pure."""

import re
from collections.abc import Callable, Iterator

import attrs

from bridgepool.http._errors import RemoteProtocolError
from bridgepool.http._messages import Headers

MAX_READ = 16384  # bytes of the input that are looked at

_request_line = re.compile(rb"([A-Za-z]{1,32}) (/[!-~]*)(?: |$)")
_field = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\0\r\n]*?)[ \t]*")


@attrs.frozen
class InvalidRequest:
    """Input that is not an acceptable request: no handler gets it, and its connection ends.

    Method, target and headers are what can be read of it. They are unchecked and incomplete: use
    them for the form of the response and for logs only.
    """

    error: RemoteProtocolError
    """What is wrong. Its text repeats nothing of the input; `status_hint` is the status of the
    response."""
    client: str
    """The client's address with its port, or "" if it has none."""
    method: bytes = b""
    target: bytes = b""
    headers: Headers = ()


AnswerInvalid = Callable[[InvalidRequest], tuple[Headers, bytes]]
"""Returns headers and body of the response to an invalid request. Must not block or raise."""


def read_invalid_request(
    error: RemoteProtocolError, client: str, received: bytes
) -> InvalidRequest:
    """Read what can be read of invalid input.

    Args:
        error: What is wrong with it.
        client: The client's address.
        received: What was received of the head. The last line counts if it is complete.
    """
    *lines, _ = received[:MAX_READ].split(b"\r\n")
    found = _request_line.match(lines[0] if lines else received[:MAX_READ])
    method, target = found.groups() if found is not None else (b"", b"")
    return InvalidRequest(error, client, method, target, tuple(_fields(lines[1:])))


def _fields(lines: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    for line in lines:
        found = _field.fullmatch(line)
        if found is not None:
            yield found[1].lower(), found[2]
