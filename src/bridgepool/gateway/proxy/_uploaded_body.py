"""The body of a client's request on its way to the upstream."""

from __future__ import annotations

import attrs

from bridgepool.gateway.providers._credentials import withhold_fields
from bridgepool.gateway.proxy._call import Call
from bridgepool.gateway.proxy._replay import ReadsBody
from bridgepool.gateway.usage._bodies import BodyRecording
from bridgepool.gateway.usage._request_reader import RequestReader
from bridgepool.http import Headers


@attrs.define(eq=False)
class UploadedBody:
    """The body of a client's request, whose trailers obey the rules of its head."""

    _body: ReadsBody
    _call: Call
    _reader: RequestReader | None
    _recording: BodyRecording | None
    _sent: bytes = b""

    async def receive_some(self) -> bytes:
        """Return the next piece; empty at the end. The one before has been sent by now."""
        if self._reader is not None and self._sent:
            self._reader.feed(self._sent)
        if self._recording is not None:
            self._recording.request.feed(self._sent)
        self._sent = await self._body.receive_some()
        return self._sent

    @property
    def trailers(self) -> Headers:
        """The fields after the body that may reach the upstream."""
        runtime, own_key = self._call.runtime, self._call.own_key
        return withhold_fields(self._body.trailers, runtime.provider, runtime.kind, own_key=own_key)
