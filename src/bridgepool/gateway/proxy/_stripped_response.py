"""A response whose usage is read, as its client gets it."""

from __future__ import annotations

from typing import TypeAlias

import attrs

from bridgepool.gateway.providers import ProviderType
from bridgepool.gateway.proxy._access_log import AccessRecord
from bridgepool.gateway.proxy._answer_urls import ask_for_plain_json
from bridgepool.gateway.proxy._usage import reader_for
from bridgepool.gateway.usage._reader import UsageReader, readable_encodings
from bridgepool.gateway.usage._stream_option import UsageStripper
from bridgepool.gateway.usage._tokens import Usage
from bridgepool.http import Headers, UpstreamResponse, get_header


@attrs.define(eq=False)
class StrippedResponse:
    """A response without the chunk that tells its usage; also the reader that has read it.

    The reader gets each piece before the client does.
    """

    _response: UpstreamResponse
    _reader: UsageReader | None
    _stripper: UsageStripper = attrs.field(factory=UsageStripper, init=False)

    @property
    def status(self) -> int:
        """The status."""
        return self._response.status

    @property
    def reason(self) -> bytes:
        """The reason phrase."""
        return self._response.reason

    @property
    def headers(self) -> Headers:
        """The fields; the length of the body is another one."""
        return tuple([one for one in self._response.headers if one[0] != b"content-length"])

    @property
    def ended(self) -> bool:
        """Whether the whole body has been returned."""
        return self._response.ended

    @property
    def trailers(self) -> Headers:
        """The fields after the body."""
        return self._response.trailers

    def take_buffered(self) -> bytes:
        """Return what came with the head."""
        return self._strip(self._response.take_buffered())

    async def receive_some(self) -> bytes:
        """Return the next piece; it may be empty before the end."""
        return self._strip(await self._response.receive_some())

    def _strip(self, data: bytes) -> bytes:
        if self._reader is not None:
            self._reader.feed(data)
        passed = self._stripper.feed(data)
        return passed + self._stripper.rest() if self._response.ended else passed

    def feed(self, data: bytes) -> None:
        """Do nothing: what is sent was read before."""

    def result(self) -> Usage:
        """Return what was read."""
        return self._reader.result() if self._reader is not None else Usage()


Response: TypeAlias = UpstreamResponse | StrippedResponse


def usage_headers(headers: Headers, *, strips: bool) -> Headers:
    """Return the headers of a request whose answer is read for usage.

    Args:
        headers: Those that go to the upstream.
        strips: The request was changed, and its answer will be.
    """
    if not strips:
        return readable_encodings(headers)
    return tuple([one for one in ask_for_plain_json(headers) if one[0] != b"content-length"])


def begin_reading(
    kind: ProviderType, response: UpstreamResponse, record: AccessRecord, strips: bool
) -> Response:
    """Set the record's reader for a response; return the response as the client gets it."""
    record.usage_reader = reader_for(kind, response.status, response.headers)
    if not strips:
        return response
    encoding = get_header(response.headers, b"content-encoding") or b"identity"
    if encoding.lower() != b"identity":  # it was asked not to
        return response
    media_type = get_header(response.headers, b"content-type") or b""
    if media_type.partition(b";")[0].strip().lower() == b"application/json":  # such as a refusal
        return response
    stripped = StrippedResponse(response, record.usage_reader)
    record.usage_reader = stripped
    return stripped
