"""Which reader an answer needs, by its head. Pure.

A reader gets the bytes of an answer after they have gone to the client. It is incremental, keeps a
bounded amount whatever the upstream sends, and never raises; what it cannot read is not known.
"""

from __future__ import annotations

import zlib
from typing import Final, Protocol

import attrs

from bridgepool.gateway.providers import Headers, UsageFields
from bridgepool.gateway.usage._event_reader import EventReader
from bridgepool.gateway.usage._json_reader import JsonReader
from bridgepool.gateway.usage._request_reader import content_form
from bridgepool.gateway.usage._tokens import Findings, Usage

_GZIP: Final = 31  # zlib's number for a gzip header
_PIECE: Final = 65536  # bytes that are decompressed at a time
_AT_ONCE: Final = 2**16  # bytes that come of one piece before other tasks run
_MOST: Final = 2**20  # bytes that may come of any answer; beyond them, so many for each byte of it:
_RATIO: Final = 64  # streams of models are at 30; what is read at once holds everything else up


class UsageReader(Protocol):
    """Reads the usage in one answer."""

    def feed(self, data: bytes) -> None:
        """Take the next piece of the body. Must not raise; not a checkpoint."""
        ...

    def result(self) -> Usage:
        """Return what was read; called once, at the end, also of an answer that was cut."""
        ...


@attrs.define(eq=False)
class GzipReader:
    """Reads a compressed answer with another reader; a `UsageReader`.

    An answer that expands to more than `_RATIO` times its length is given up. What is taken at once
    may still be megabytes, so only the beginning of it is read at once: see `has_more`.
    """

    _inner: UsageReader
    _zlib: zlib._Decompress | None = attrs.field(init=False)
    _rest: bytes = attrs.field(default=b"", init=False)  # that was taken and not read yet
    _taken: int = attrs.field(default=0, init=False)
    _made: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        """Begin a stream."""
        self._zlib = zlib.decompressobj(_GZIP)

    @property
    def has_more(self) -> bool:
        """Whether something is left to be read: feed b"" to go on, after other tasks have run."""
        return bool(self._rest) and self._zlib is not None

    def feed(self, data: bytes) -> None:
        """Take the next piece of the body."""
        self._taken += len(data)
        self._rest += data
        self._read(_AT_ONCE)

    def _read(self, most: int) -> None:
        """Read so many bytes of what was taken, or a few more."""
        data, self._rest, most = self._rest, b"", self._made + most
        while data and self._zlib is not None:
            if self._made >= most:
                self._rest = data
                return
            try:
                piece = self._zlib.decompress(data, _PIECE)
            except zlib.error:
                self._zlib = None
                return
            self._made += len(piece)
            if self._made > _MOST + _RATIO * self._taken:
                self._zlib = None
                return
            if piece:
                self._inner.feed(piece)
            data = self._zlib.unconsumed_tail
            if self._zlib.eof:  # another member may follow
                data, self._zlib = self._zlib.unused_data, zlib.decompressobj(_GZIP)

    def result(self) -> Usage:
        """Return what was read."""
        self._read(_MOST)
        return self._inner.result()


def decompress_beginning(data: bytes, most: int) -> bytes:
    """Return the first bytes of a body in gzip; empty if they cannot be read."""
    try:
        return zlib.decompressobj(_GZIP).decompress(data, most)
    except zlib.error:
        return b""


def make_usage_reader(fields: UsageFields, headers: Headers) -> UsageReader | None:
    """Return a reader for an answer with this head; None if its usage cannot be read.

    Args:
        fields: Where the API tells it.
        headers: The upstream's, names in lower case.
    """
    kind, encoding = content_form(headers)
    reader: UsageReader
    if kind == b"text/event-stream":
        reader = EventReader(Findings(fields))
    elif kind == b"application/json":
        reader = JsonReader(Findings(fields))
    else:
        return None
    if encoding in (b"", b"identity"):
        return reader
    return GzipReader(reader) if encoding in (b"gzip", b"x-gzip") else None


def readable_encodings(headers: Headers) -> Headers:
    """Return the headers of a request without the encodings that answers could not be read in.

    Of what the client accepts, only gzip stays; if that is not among it, the upstream is asked not
    to compress. Without an Accept-Encoding, the headers are returned as they are.
    """
    accepted = [value for name, value in headers if name == b"accept-encoding"]
    if not accepted:
        return headers
    codings = [coding.strip().lower() for coding in b",".join(accepted).split(b",")]
    kept = [coding for coding in codings if coding.partition(b";")[0].strip() == b"gzip"]
    rest = [field for field in headers if field[0] != b"accept-encoding"]
    return (*rest, (b"accept-encoding", kept[0] if kept else b"identity"))
