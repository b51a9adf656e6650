"""Prompts and answers: the bodies of requests and their answers, kept where that is asked for.

Pure. A recording gets the bytes after they were sent, and keeps the beginning of each body, up to
a size and, with those of all running requests, up to a total. It never has a header.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import attrs
import msgspec

DEFAULT_BODY_BYTES: Final = 256 * 1024
MAX_BODY_BYTES: Final = 2 * 2**20
_PIECE: Final = 32 * 1024  # bytes that are made into text at a time
_MAX_TOTAL: Final = 64 * 2**20  # bytes of all running requests
_encode: Final = msgspec.json.Encoder().encode


@attrs.frozen(kw_only=True)
class RecordedBodies:
    """The bodies of one request and its answer."""

    time: str
    """When the request ended: ISO 8601 in UTC, with milliseconds."""
    request_id: str
    """The id of the request, as in the usage record and the access log."""
    client: str
    """The client's id."""
    provider: str
    """The provider that served it."""
    route: str
    """The pattern of the route."""
    status: int
    """The status sent to the client; 0 if none was."""
    outcome: str
    """How the request ended, as in the access log."""
    request: bytes
    """The body of the last attempt, as it was sent to the provider."""
    request_truncated: bool
    """The body was longer than what was kept."""
    response: bytes
    """The body of the answer; of an event stream, its events as they came."""
    response_truncated: bool
    """The body was longer than what was kept."""


OnBodies = Callable[[RecordedBodies], None]
"""Called once for each recorded request, after its end. Must not block or raise."""


def bodies_line(bodies: RecordedBodies) -> Iterator[bytes]:
    """Format recorded bodies as a line of JSON: texts in UTF-8, other bytes as U+FFFD.

    The line comes in pieces, since the whole of the longest bodies takes 50 ms and more: see
    `LineWriter.append_pieces`. A piece takes a millisecond or two.
    """
    line = b""
    for name in attrs.fields_dict(RecordedBodies):
        line += b'%s"%s":' % (b"," if line else b"{", name.encode("ascii"))
        value = getattr(bodies, name)
        if not isinstance(value, bytes):
            line += _encode(value)
            continue
        line += b'"'
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for begin in range(0, len(value), _PIECE):
            yield line + _escaped(decoder.decode(value[begin : begin + _PIECE]))
            line = b""
        line += _escaped(decoder.decode(b"", final=True)) + b'"'
    yield line + b"}\n"


def _escaped(text: str) -> bytes:
    return _encode(text)[1:-1]


@attrs.define(eq=False)
class KeptBody:
    """The beginning of one body."""

    _recorder: BodyRecorder
    _pieces: list[bytes] = attrs.field(factory=list, init=False)
    _size: int = attrs.field(default=0, init=False)
    truncated: bool = attrs.field(default=False, init=False)

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        recorder = self._recorder
        room = min(recorder.max_bytes - self._size, _MAX_TOTAL - recorder._held)
        if self.truncated or len(data) > room:
            data = b"" if self.truncated else data[: max(0, room)]
            self.truncated = True
        if data:
            self._pieces.append(bytes(data))
            self._size += len(data)
            recorder._held += len(data)

    def take(self) -> bytes:
        """Return the bytes, and forget them."""
        body = b"".join(self._pieces)
        self.forget()
        return body

    def forget(self) -> None:
        """Forget the bytes."""
        self._recorder._held -= self._size
        self._size = 0
        self._pieces.clear()


@attrs.define(eq=False)
class BodyRecording:
    """The bodies of one request that is being served."""

    request: KeptBody
    response: KeptBody

    @property
    def is_empty(self) -> bool:
        """Whether nothing came of either."""
        bodies = (self.request, self.response)
        return not any(body._size or body.truncated for body in bodies)

    def restart(self) -> None:
        """Forget what was kept: there is another attempt, or another response on a websocket."""
        for body in (self.request, self.response):
            body.forget()
            body.truncated = False


def _names(values: Iterable[str]) -> frozenset[str]:
    return frozenset(values)


@attrs.define(eq=False, kw_only=True)
class BodyRecorder:
    """Records the bodies of requests of some clients and to some providers.

    Args:
        on_bodies: Gets what was recorded.
        clients: The ids of the clients; `-` for local programs without a key.
        providers: The names of the providers.
        max_bytes: The most bytes that are kept of each body.
    """

    on_bodies: OnBodies
    clients: frozenset[str] = attrs.field(default=(), converter=_names)
    providers: frozenset[str] = attrs.field(default=(), converter=_names)
    max_bytes: int = DEFAULT_BODY_BYTES
    _held: int = attrs.field(default=0, init=False)

    def _begin(self, client: str, providers: Iterable[str]) -> BodyRecording | None:
        """Begin to record a request; None if that is not asked for.

        Args:
            client: The id of its client.
            providers: The one that it names, and the one that serves it.
        """
        if client not in self.clients and self.providers.isdisjoint(providers):
            return None
        return BodyRecording(KeptBody(self), KeptBody(self))
