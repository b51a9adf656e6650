"""Recorded bodies: which requests, and what is reported at their end."""

from __future__ import annotations

from bridgepool.gateway.providers import Headers
from bridgepool.gateway.proxy._access_log import AccessRecord, times_of
from bridgepool.gateway.proxy._call import Call
from bridgepool.gateway.usage._bodies import BodyRecording, RecordedBodies


def begin_recording(call: Call) -> BodyRecording | None:
    """Begin to record an attempt of a request, if that is asked for."""
    record = call.record
    if record._recording is not None:
        record._recording.restart()
    elif record._body_recorder is not None:
        names = (call.runtime.provider.name, record.fallback_from)
        record._recording = record._body_recorder._begin(record.client, names)
        record.wants_responses = record.wants_responses or record._recording is not None
    return record._recording


def ask_for_plain_bytes(headers: Headers) -> Headers:
    """Return the headers of a request whose answer is to be legible."""
    kept = [field for field in headers if field[0] != b"accept-encoding"]
    return (*kept, (b"accept-encoding", b"identity"))


def report_bodies(record: AccessRecord) -> None:
    """Report what was recorded of a request, or of a response on a websocket: an observer.

    Of a websocket with responses there is a report of its own of what came after the last one.
    """
    recording, record._recording = record._recording, None
    if recording is None or record._body_recorder is None:
        return
    if record.has_responses and recording.is_empty:
        return
    time, _, _ = times_of(record)
    bodies = RecordedBodies(
        time=time,
        request_id=record.request_id,
        client=record.client,
        provider=record.provider,
        route=record.route,
        status=record.status,
        outcome=record.outcome.value,
        request=recording.request.take(),
        request_truncated=recording.request.truncated,
        response=recording.response.take(),
        response_truncated=recording.response.truncated,
    )
    recording.restart()
    record._body_recorder.on_bodies(bodies)
