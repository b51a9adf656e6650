"""Whether a response is under way on a websocket, by its messages."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from bridgepool.gateway.providers import WebSocketMessages
from bridgepool.gateway.proxy.websockets._responses import SocketResponses
from bridgepool.http import DataPiece, FrameScanner, Opcode, encode_frame

# ">" and "<": of the client, and of the provider.
ASKS = '>{"type": "response.create", "model": "m"}'
SPEAKS = '>{"type": "input_audio_buffer.append", "audio": "x"}'
ASKS_LATE = '>{"model": "m", "type": "response.create"}'
BEGINS = '<{"type": "response.created", "response": {}}'
DELTA = '<{"type": "response.output_text.delta", "delta": "x"}'
ENDS = '<{"event_id": "e", "type": "response.done", "response": {}}'
FAILS = '<{"type": "error", "error": {}}'
KNOWN = WebSocketMessages()


@pytest.mark.parametrize(
    ("after", "messages"),
    [
        (1, ()),
        (None, (ASKS,)),
        (None, (ASKS, BEGINS, DELTA)),
        (None, (BEGINS,)),
        (1, (ASKS, BEGINS, DELTA, ENDS)),
        (None, (ASKS, ASKS, BEGINS, BEGINS, ENDS)),
        (1, (ASKS, FAILS)),
        (1, (ASKS, BEGINS, ENDS, SPEAKS)),
        (10, (ASKS_LATE,)),
        (None, (ASKS_LATE, BEGINS)),
        (1, (ASKS, BEGINS, ENDS, ENDS)),
        (None, (ENDS, BEGINS)),
        (10, ("<no JSON",)),
    ],
)
async def test_no_response_is_cut_by_a_shutdown_as_far_as_messages_show(
    mock_clock: MockClock, after: float | None, messages: tuple[str, ...]
) -> None:
    """It tells seconds of silence after which none is under way; None for never."""
    assert _silence(SocketResponses(KNOWN), messages) == after
    assert _silence(SocketResponses(None), messages) == 10


def _silence(responses: SocketResponses, messages: tuple[str, ...]) -> float | None:
    for message in messages:
        of_client = message[0] == ">"
        frame = encode_frame(Opcode.TEXT, message[1:].encode(), mask=b"mask" if of_client else b"")
        found = FrameScanner(of_client, 1000).feed(frame)
        pieces = [piece for piece in found if isinstance(piece, DataPiece)]
        if of_client:
            responses.note_client(pieces)
        else:
            responses.note_provider(pieces)
    times = (0.9, 1, 9.9, 10, 3600)
    now = trio.current_time()
    return next((each for each in times if responses.none_running(now + each)), None)


async def test_the_end_of_the_last_response_is_told() -> None:
    responses = SocketResponses(KNOWN)

    def told(message: str) -> bool:
        frame = encode_frame(Opcode.TEXT, message[1:].encode())
        found = FrameScanner(False, 1000).feed(frame)
        return responses.note_provider(each for each in found if isinstance(each, DataPiece))

    script = (BEGINS, BEGINS, ENDS, DELTA, ENDS, FAILS)
    assert [told(message) for message in script] == [False, False, False, False, True, False]
