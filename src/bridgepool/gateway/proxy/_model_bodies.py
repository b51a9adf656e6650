"""Request bodies that are read before they are sent on: only where a rule on models applies.

Such a body is received whole, since a model may be named at its very end, and a second time after
the first. What all requests together hold in this way is limited.
"""

from __future__ import annotations

import re
import time
from typing import Final

import attrs
import trio

from bridgepool.gateway.limits._form_reader import MODEL_FIELD, find_boundary, read_form
from bridgepool.gateway.limits._model_reader import AmbiguousBodyError, ModelReader, read_whole
from bridgepool.gateway.providers import RouteMatch
from bridgepool.gateway.proxy import _refusals as refusals
from bridgepool.gateway.proxy._access_log import AccessRecord
from bridgepool.gateway.proxy._refusals import Refusal
from bridgepool.gateway.proxy._replay import ReplayBudget
from bridgepool.gateway.proxy._request_body import BegunBody
from bridgepool.http import Exchange, Headers, get_header

MAX_BODY_BYTES: Final = 32 * 1024 * 1024
"""The largest body that is read; Anthropic's limit of a request."""
_SHORT: Final = 128 * 1024  # bytes; a longer body is read as it arrives
_FED_BYTES: Final = 4096  # at a time: some milliseconds at most
_MAX_TURN: Final = 0.005  # seconds of reading, until other tasks run
# Parsers that know other charsets, such as utf-7, would read other names and models.
_JSON: Final = re.compile(rb"(?i:application/json(?:[ \t]*;[ \t]*charset=(?:utf-?8|\"utf-?8\"))?)")
_PLAIN: Final = frozenset((b"", b"identity"))


@attrs.define(eq=False)
class ReadBody:
    """A body that was received whole."""

    body: bytes | BegunBody
    """As it is sent."""
    models: tuple[str, ...]
    """The models that it names."""
    _client: str
    _size: int
    _budget: ReplayBudget

    def release(self) -> None:
        """Return what it holds of the budget; call it once."""
        self._budget.release_for(self._client, self._size)


async def read_models(
    match: RouteMatch, exchange: Exchange, record: AccessRecord, budget: ReplayBudget
) -> ReadBody | Refusal:
    """Receive a request body, and find the models that it names.

    A checkpoint, unless all of the body came with the head.

    Args:
        match: the route of the request.
        exchange: the client's; its request has a body.
        record: has the client; gets the number of bytes.
        budget: what all such bodies may hold; the caller releases the result.

    Raises:
        RemoteProtocolError: The body is malformed, too large or too slow.
    """
    headers, body = exchange.request.headers, exchange.body
    length = get_header(headers, b"content-length")
    expected = None if length is None else int(length)
    reader: ModelReader | None = None  # of a long body
    pieces: list[bytes] = []
    size = 0
    refusal: Refusal | None = None
    try:
        boundary = _find_boundary(match, headers)
        while size != expected and (piece := body.take_buffered() or await body.receive_some()):
            if size + len(piece) > MAX_BODY_BYTES:
                refusal = refusals.model_not_readable("it is larger than 32 MiB", status=413)
            elif not budget.reserve_for(record.client, len(piece)):
                refusal = refusals.TOO_MANY_BODIES
            if refusal is not None:
                return refusal
            size += len(piece)
            record.bytes_received += len(piece)
            pieces.append(piece)
            if reader is not None:
                await feed_models(reader, piece)
            elif size > _SHORT and boundary is None:
                reader = ModelReader(match.route.models)
                for before in pieces:
                    await feed_models(reader, before)
        data = b"".join(pieces)
        if boundary is not None:
            models = read_form(data, boundary)
        else:
            models = reader.finish() if reader is not None else read_whole(data, match.route.models)
    except AmbiguousBodyError as error:
        refusal = refusals.model_not_readable(str(error))
        return refusal
    except BaseException:
        refusal = refusals.INTERNAL
        raise
    finally:
        if refusal is not None:
            budget.release_for(record.client, size)
    sent = data if expected is not None else BegunBody(body, record, data)
    return ReadBody(sent, models, record.client, size, budget)


async def feed_models(reader: ModelReader, data: bytes) -> None:
    """Feed a reader, and let other tasks run when that takes long: many short values do.

    Raises:
        AmbiguousBodyError: It is not certain which models the body names.
    """
    due = time.perf_counter() + _MAX_TURN
    for begin in range(0, len(data), _FED_BYTES):
        reader.feed(data[begin : begin + _FED_BYTES])
        if time.perf_counter() > due:
            await trio.lowlevel.checkpoint()
            due = time.perf_counter() + _MAX_TURN


def _find_boundary(match: RouteMatch, headers: Headers) -> bytes | None:
    """Return the boundary of a form, on a route where a form names the model; None for JSON.

    Raises:
        AmbiguousBodyError: A body with this head is neither.
    """
    content_type: bytes | None = None
    for name, value in headers:
        if name == b"content-encoding" and value.strip().lower() not in _PLAIN:
            raise AmbiguousBodyError("its content-encoding is not identity")
        if name == b"content-type":
            if content_type is not None:
                raise AmbiguousBodyError("it has more than one content-type")
            content_type = value
    if content_type is None or _JSON.fullmatch(content_type.strip()):
        return None
    names_model = match.route.models == ((MODEL_FIELD,),)
    boundary = find_boundary(content_type) if names_model else None
    if boundary is None:
        raise AmbiguousBodyError(
            "its content-type is neither application/json in UTF-8 nor a plain form"
        )
    return boundary
