"""What the fields of a head say about where its message ends and its connection goes. Pure."""

import re

import attrs

from bridgepool.http._errors import LocalProtocolError, NotSupported, RemoteProtocolError
from bridgepool.http._messages import Headers

_length = re.compile(rb"[0-9]{1,18}")


@attrs.define
class AboutMessage:
    """What the fields of one head say about its message and connection.

    Attributes:
        length: The content-length, if there is one.
        chunked: The body is chunked.
        close: The connection ends after this message.
        keep_alive: It is asked to stay, which HTTP/1.0 has to ask for.
        expect: The expectation, in lower case.
        hosts: Each host field.
        telling: All fields that were looked at, as they came.
    """

    length: int | None = None
    chunked: bool = False
    close: bool = False
    keep_alive: bool = False
    expect: bytes | None = None
    hosts: tuple[bytes, ...] = ()
    telling: Headers = ()


# Most fields are none of these, and are passed over quickly.
_TELLING = frozenset((b"content-length", b"transfer-encoding", b"connection", b"expect", b"host"))


def read_about(headers: Headers, version: bytes) -> AboutMessage:
    """Read from the fields of a received head what they say about its message.

    Raises:
        RemoteProtocolError: They contradict each other, or leave room for two readings.
    """
    about = AboutMessage(telling=tuple([field for field in headers if field[0] in _TELLING]))
    for name, value in about.telling:
        if name == b"content-length":
            if about.length is not None or _length.fullmatch(value) is None:
                raise RemoteProtocolError("content-length is no number, or comes twice")
            about.length = int(value)
        elif name == b"transfer-encoding":
            if about.chunked or value.lower() != b"chunked":
                raise NotSupported("the only transfer coding that is understood is chunked")
            about.chunked = True
        elif name == b"connection":
            options = [option.strip() for option in value.lower().split(b",")]
            about.close |= b"close" in options
            about.keep_alive |= b"keep-alive" in options
        elif name == b"expect":
            about.expect = value.lower()
        else:
            about.hosts += (value,)
    if about.chunked and about.length is not None:
        raise RemoteProtocolError("both content-length and transfer-encoding")
    if about.chunked and version != b"1.1":
        raise RemoteProtocolError("transfer-encoding needs HTTP/1.1")
    return about


def check_fields_to_send(headers: Headers) -> tuple[int | None, bool]:
    """Return the content-length among fields that are to be sent, and whether to close.

    Raises:
        LocalProtocolError: They are about the framing or the connection beyond that.
    """
    length, close = None, False
    for name, value in headers:
        if name not in _TELLING:
            continue
        if name == b"content-length":
            if length is not None or _length.fullmatch(value) is None:
                raise LocalProtocolError("content-length is no number, or comes twice")
            length = int(value)
        elif name == b"transfer-encoding":
            raise LocalProtocolError("transfer-encoding is written by the wire")
        elif name == b"connection":
            option = value.lower()
            if option not in (b"close", b"te"):
                raise LocalProtocolError("of connection only close and te can be sent")
            close |= option == b"close"
    return length, close


def without_fields(headers: Headers, *unwanted: bytes) -> Headers:
    """Return the fields but for those with one of these names."""
    return tuple(field for field in headers if field[0] not in unwanted)
