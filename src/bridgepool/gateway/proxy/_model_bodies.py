"""Request bodies that are read before they are sent on: only where a rule on models applies.

Such a body is received whole, since a model may be named at its very end, and a second time after
the first. What all requests together hold in this way is limited.
"""

from __future__ import annotations

import re
from typing import Final

import attrs
import trio

from bridgepool.gateway.limits._form_reader import MODEL_FIELD, find_boundary, read_form
from bridgepool.gateway.limits._model_reader import AmbiguousBodyError, ModelReader, read_whole
from bridgepool.gateway.providers import RouteMatch
from bridgepool.gateway.proxy import _refusals as refusals
from bridgepool.gateway.proxy._access_log import AccessRecord
from bridgepool.gateway.proxy._refusals import Refusal
from bridgepool.gateway.proxy._replay import ClientBudget
from bridgepool.gateway.proxy._request_body import BegunBody
from bridgepool.http import Exchange, Headers, get_header

MAX_BODY_BYTES: Final = 32 * 1024 * 1024
"""The largest body that is read; Anthropic's limit of a request."""
_SHORT: Final = 128 * 1024  # bytes; a longer body is read as it arrives
# Parsers that know other charsets, such as utf-7, would read other names and models.
_JSON: Final = re.compile(rb"(?i:application/json(?:[ \t]*;[ \t]*charset=(?:utf-?8|\"utf-?8\"))?)")
_PLAIN: Final = frozenset((b"", b"identity"))


@attrs.frozen(eq=False)
class ReadBody:
    """A body that was received whole."""

    body: bytes | BegunBody
    """As it is sent."""
    size: int
    models: tuple[str, ...]
    """The models that it names."""


async def read_models(
    match: RouteMatch, exchange: Exchange, record: AccessRecord, budget: ClientBudget
) -> ReadBody | Refusal:
    """Receive a request body, and find the models that it names.

    Args:
        match: the route of the request.
        exchange: the client's; its request has a body.
        record: gets the number of bytes.
        budget: what all such bodies may hold; the caller releases `size` of the result.

    Raises:
        RemoteProtocolError: The body is malformed, too large or too slow.
    """
    headers, body = exchange.request.headers, exchange.body
    boundary = _form_boundary(match, headers)
    why = None if boundary is not None else _why_unreadable(headers)
    if why is not None:
        await trio.lowlevel.checkpoint()
        return refusals.model_not_readable(why)
    reader: ModelReader | None = None  # of a long body
    pieces, size = list[bytes](), 0
    refusal: Refusal | None = None
    try:
        while piece := await body.receive_some():
            if size + len(piece) > MAX_BODY_BYTES:
                refusal = refusals.model_not_readable("it is larger than 32 MiB", status=413)
            elif not budget.reserve(len(piece)):
                refusal = refusals.TOO_MANY_BODIES
            if refusal is not None:
                return refusal
            size += len(piece)
            record.bytes_received += len(piece)
            pieces.append(piece)
            if reader is not None:
                reader.feed(piece)
            elif size > _SHORT and boundary is None:
                reader = ModelReader(match.route.models)
                for before in pieces:
                    reader.feed(before)
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
            budget.release(size)
    known_length = get_header(headers, b"content-length") is not None
    return ReadBody(data if known_length else BegunBody(body, record, data), size, models)


def _form_boundary(match: RouteMatch, headers: Headers) -> bytes | None:
    """Return the boundary of a form that can be read, on a route where a form names the model."""
    types = [value for name, value in headers if name == b"content-type"]
    if len(types) != 1 or not _is_plain(headers) or match.route.models != ((MODEL_FIELD,),):
        return None
    return find_boundary(types[0])


def _is_plain(headers: Headers) -> bool:
    return all(
        value.strip().lower() in _PLAIN for name, value in headers if name == b"content-encoding"
    )


def _why_unreadable(headers: Headers) -> str | None:
    """Return why a body with this head cannot be read."""
    types = [value for name, value in headers if name == b"content-type"]
    if not _is_plain(headers):
        return "its content-encoding is not identity"
    if len(types) > 1:
        return "it has more than one content-type"
    if types and not _JSON.fullmatch(types[0].strip()):
        return "its content-type is neither application/json in UTF-8 nor a plain form"
    return None
