"""Forward one request to its upstream and the response back: one attempt.

Theory of operation. Until the response head has gone to the client, failures are raised, and the
gateway answers with a refusal. After that HTTP has no way to report an error: the client's
response is cut, so that it cannot be taken for complete. An event stream between two events first
gets an error event, which its SDK raises.

Nothing is buffered: a piece of a body is sent before the next is read, in both directions, so
that a slow receiver slows its sender down and memory stays flat. The exception are small documents
with addresses that clients call, see `_answer_urls`. Body bytes that came with the
upstream's head are sent with ours, in one write.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Final

import trio

from bridgepool._secret import Secret
from bridgepool.gateway.providers import UrlField
from bridgepool.gateway.providers._credentials import swap_credentials
from bridgepool.gateway.proxy._access_log import Outcome
from bridgepool.gateway.proxy._answer_fields import answer_headers, answer_trailers
from bridgepool.gateway.proxy._answer_urls import (
    MAX_DOCUMENT_BYTES,
    ask_for_plain_json,
    headers_of_rewritten,
    keep_models,
    own_address,
    rewrite,
    url_fields_of,
)
from bridgepool.gateway.proxy._attempt_bodies import RequestBodies
from bridgepool.gateway.proxy._call import Call
from bridgepool.gateway.proxy._last_event import between_events, last_event
from bridgepool.gateway.proxy._recorded_bodies import ask_for_plain_bytes, begin_recording
from bridgepool.gateway.proxy._refusals import (
    UPSTREAM_BAD_ANSWER,
    UPSTREAM_REDIRECTS,
    Refusal,
)
from bridgepool.gateway.proxy._request_id import (
    find_upstream_id,
    return_request_id,
    send_request_id,
)
from bridgepool.gateway.proxy._stripped_response import Response, begin_reading, usage_headers
from bridgepool.gateway.proxy._uploaded_body import UploadedBody
from bridgepool.gateway.proxy._upstream_failures import log_upstream_failure, refusal_for
from bridgepool.gateway.proxy._usage import reads_answer
from bridgepool.gateway.proxy.websockets._guard import SocketGuard
from bridgepool.gateway.proxy.websockets._handshake import WebSocketCall, refusal_of_upstream
from bridgepool.gateway.proxy.websockets._relay import relay_websocket
from bridgepool.gateway.usage._bodies import KeptBody
from bridgepool.gateway.usage._reader import GzipReader, UsageReader
from bridgepool.gateway.usage._request_reader import RequestReader, is_plain_json
from bridgepool.http import (
    ForwardedMode,
    Headers,
    UpstreamError,
    UpstreamResponse,
    forward_request_headers,
    get_header,
)

_ERROR_BODY_TIMEOUT = 1.0  # seconds for the beginning of a body that says what was limited
_LAST_EVENT_TIMEOUT = 1.0  # seconds to send the last event of a request that is cancelled
_UNSENT = b"?"  # stands for a piece that may have been sent in part
_NO_SPAN: Final = nullcontext()

Accept = Callable[[UpstreamResponse, bytes], Awaitable[None]]
"""Awaited with a response whose head has come, and with what came of its body, before anything of
it goes to the client; raises what is to happen in its place. That of a 429 is waited for."""


class ResponseWithheldError(Exception):
    """The upstream's response must not go to the client, which gets `refusal`."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal


class ResponseCutError(Exception):
    """The upstream's response broke off after its head had gone to the client.

    The access record has the outcome; the cause is the upstream's error.
    """


async def forward(call: Call, bodies: RequestBodies, key: Secret | None, accept: Accept) -> None:
    """Forward a request and its response.

    Args:
        call: the request as it goes to its provider; no response has begun. Its record gets the
            status, the bytes and the time of the first byte.
        bodies: its body.
        key: the provider's key; None if the request has the client's own, or none.
        accept: decides whether the response goes to the client.

    Raises:
        UpstreamError: there is no response; nothing was sent to the client.
        ResponseWithheldError: clients must not see the response; nothing was sent.
        ResponseCutError: the response broke off; the client's is cut.
        RemoteProtocolError: the client's own body is malformed, too large or too slow.
        Exception: what `accept` raises; nothing was sent.

    Cancellation: ends the upstream request; a response that has begun is cut.
    """
    request, record, runtime = call.exchange.request, call.record, call.runtime
    kind, client = runtime.kind, runtime.client
    headers = forward_request_headers(request, host=client.authority, forwarded=ForwardedMode.OMIT)
    headers = swap_credentials(
        send_request_id(headers, record.request_id),
        runtime.provider,
        kind,
        key,
        own_key=call.own_key,
    )
    span: AbstractContextManager[None] = _NO_SPAN
    if record.trace is not None:
        span = record.trace._begin_attempt(runtime.provider, record)
        headers = record.trace.propagate(headers)
    body = bodies.attempt()
    reads_usage = call.tells_usage and reads_answer(kind, request.method, call.target)
    reader = None
    if reads_usage and not record.model and is_plain_json(request.headers):
        reader = RequestReader(body if isinstance(body, bytes) else None)
    record._request_reader = reader
    recording = begin_recording(call) if record._body_recorder is not None else None
    if body is not None and not isinstance(body, bytes):
        body = UploadedBody(body, call, reader, recording)
    url_fields = url_fields_of(kind, call.match.path)
    rewrites = bool(url_fields) or (call.use is not None and call.use.lists_models)
    if rewrites:
        headers = ask_for_plain_json(headers)
    elif recording is not None:
        headers = ask_for_plain_bytes(headers)
    if reads_usage:
        headers = usage_headers(headers, strips=bodies.asks_for_usage)
    if call.socket is not None:
        headers = call.socket.request_headers(headers)
    begun = time.perf_counter()
    record.attempts += 1
    record.upstream_status, record.upstream_ms, record.upstream_request_id = 0, None, ""
    record.sent = False
    record.usage_reader = None  # of the attempt before
    upstream = client.request(
        request.method,
        call.target,
        headers,
        body,
        tenant=call.client,
        upgrade=b"websocket" if call.socket is not None else b"",
        on_sent=record.note_sent if call.use is not None else None,
    )
    with span:
        async with upstream as received:
            response: Response = received
            record.upstream_status = response.status
            if recording is not None and isinstance(body, bytes):
                recording.request.feed(body)
            record.upstream_ms = round((time.perf_counter() - begun) * 1e3, 3)
            record.upstream_request_id = find_upstream_id(
                response.headers, kind.errors, record.request_id
            )
            if reads_usage:
                response = begin_reading(kind, received, record, bodies.asks_for_usage)
            data = response.take_buffered()
            if response.status == 429 and not (data or response.ended):
                with trio.move_on_after(_ERROR_BODY_TIMEOUT):
                    data = await response.receive_some()
            await accept(received, data)
            if call.socket is not None and await _relay(call, call.socket, received):
                return
            if 300 <= response.status < 400 and response.status != 304:
                # An SDK would follow it with its headers, the client's gateway key among them.
                raise ResponseWithheldError(UPSTREAM_REDIRECTS)
            has_body = request.method != b"HEAD" and response.status not in (204, 304)
            if rewrites and has_body and response.status < 300:
                await _send_rewritten(call, response, data, url_fields)
            elif has_body and response.ended and not response.trailers:
                await _send_whole_response(call, response, data)
            else:
                await _stream_response(call, response, data)


async def _relay(call: Call, socket: WebSocketCall, response: UpstreamResponse) -> bool:
    """Relay a websocket; return False if the response is one of HTTP that goes to the client."""
    exchange, record = call.exchange, call.record
    refusal = refusal_of_upstream(response.status)
    if refusal is not None:
        raise ResponseWithheldError(refusal)
    if response.status != 101:
        return False
    headers = _answer_headers(call, response) + call.response_headers
    if call.use is not None:
        call.use.end_handshake()
    target = exchange.request.target
    guard = SocketGuard(socket, call.runtime.kind, call.match, target, record)
    guard.begin(reads_usage=call.tells_usage)
    try:
        await relay_websocket(
            guard, response, headers, call.errors, call.why_cancelled, exchange, record
        )
    finally:
        guard.end()
    if record.outcome is Outcome.UPSTREAM_CUT:
        log_upstream_failure(record, f"the websocket was closed with {record.close_code}")
    return True


def _answer_headers(call: Call, response: Response) -> Headers:
    """Return the fields of a response's head that go to the client, with the request's id."""
    rates = call.use.headers if call.use is not None else ()
    headers = answer_headers(response.headers, own_key=call.passes_own_key, rates=rates)
    if call.use is not None:
        call.use.note_response(headers)
    return return_request_id(headers, call.record.request_id)


async def _send_whole_response(
    call: Call, response: Response, data: bytes, *, rewritten: bool = False
) -> None:
    """Send a response that has already ended, head and body in one write."""
    record, headers = call.record, _answer_headers(call, response)
    if rewritten:
        headers = headers_of_rewritten(headers)
    headers = tuple([field for field in headers if field[0] != b"content-length"])
    record.status, record.bytes_sent = response.status, len(data)
    try:
        await call.exchange.answer(response.status, headers + call.response_headers, data)
    finally:  # once the bytes are sent; what a client left behind was used, too
        if record.usage_reader is not None:
            record.usage_reader.feed(data)
        if record._recording is not None:
            record._recording.response.feed(data)
    record.first_byte = time.perf_counter()
    await _read_on(record.usage_reader)


async def _read_on(reader: UsageReader | None) -> None:
    """Read the rest of what a compressed answer has expanded to. A checkpoint if there is any."""
    while isinstance(reader, GzipReader) and reader.has_more:
        await trio.lowlevel.checkpoint()
        reader.feed(b"")


async def _send_rewritten(
    call: Call, response: Response, data: bytes, fields: tuple[UrlField, ...]
) -> None:
    """Read a whole document, and send it with own addresses and the models that may be used."""
    while not response.ended and len(data) <= MAX_DOCUMENT_BYTES:
        data += await response.receive_some()
    encoding = get_header(response.headers, b"content-encoding") or b"identity"
    if len(data) > MAX_DOCUMENT_BYTES or encoding.lower() != b"identity":
        raise ResponseWithheldError(UPSTREAM_BAD_ANSWER)
    address = own_address(call.exchange)
    runtime = call.runtime
    base = f"{address}/{runtime.provider.name}{runtime.kind.prefix.decode('ascii')}"
    try:
        if data and fields:
            data = rewrite(data, fields, base if address is not None else None)
        if data and call.use is not None and call.use.lists_models:
            data = keep_models(data, call.use.allow_model)
    except ValueError as error:
        raise ResponseWithheldError(UPSTREAM_BAD_ANSWER) from error
    await _send_whole_response(call, response, data, rewritten=True)


async def _stream_response(call: Call, response: Response, data: bytes) -> None:
    """Send a response as it arrives."""
    exchange, record, headers = call.exchange, call.record, _answer_headers(call, response)
    content_type = get_header(headers, b"content-type") or b""
    record.is_stream = content_type.lower().startswith(b"text/event-stream")
    record.status, record.bytes_sent = response.status, len(data)
    async with exchange.respond(
        response.status, headers + call.response_headers, reason=response.reason, data=data
    ) as stream:
        record.first_byte = time.perf_counter()
        readers: list[UsageReader | KeptBody] = []
        if record.usage_reader is not None:
            readers.append(record.usage_reader)
        if record._recording is not None:
            readers.append(record._recording.response)
        for reader in readers:
            reader.feed(data)
        packed = record.usage_reader if isinstance(record.usage_reader, GzipReader) else None
        before, tail = b"", data
        failure: UpstreamError | None = None
        try:
            await _read_on(packed)
            while not response.ended:
                try:
                    data = await response.receive_some()
                except UpstreamError as error:
                    failure = error
                    break
                if data:
                    before = tail
                    try:
                        # Else a send that has not begun counts as one that was interrupted.
                        await trio.lowlevel.checkpoint_if_cancelled()
                        tail = _UNSENT
                        await stream.send_all(data)
                    finally:
                        for reader in readers:
                            reader.feed(data)
                    record.bytes_sent += len(data)
                    tail = data if len(data) > 3 else before[-3:] + data
                    if packed is not None:
                        await _read_on(packed)
        except trio.Cancelled:
            if not exchange.disconnected and between_events(response.headers, tail):
                event = last_event(
                    call.why_cancelled(), call.errors, record.request_id, before + tail
                )
                # The send may have been cut off, or the client may leave now.
                with (
                    trio.move_on_after(_LAST_EVENT_TIMEOUT, shield=True),
                    suppress(trio.BrokenResourceError),
                ):
                    await stream.send_all(event)  # noqa: ASYNC120 -- shielded
                    record.bytes_sent += len(event)
            raise
        if failure is not None:
            refusal = refusal_for(failure)
            # Set before sending: a client that reads the event may leave before `send_all` returns.
            record.outcome, record.code = Outcome.UPSTREAM_CUT, refusal.code
            if between_events(response.headers, tail):
                event = last_event(refusal, call.errors, record.request_id, before + tail)
                await stream.send_all(event)
                record.bytes_sent += len(event)
            try:
                raise ResponseCutError from failure
            finally:
                del failure  # its traceback refers to this frame
        rates = call.use.headers if call.use is not None else ()
        own_key = call.passes_own_key
        stream.trailers = answer_trailers(response.trailers, own_key=own_key, rates=rates)
