"""Asking streams for their usage, and taking its chunk out again."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgepool.gateway.usage._stream_option import MAX_HELD_BYTES, UsageStripper, ask_for_usage
from tests.gateway.usage.answers import CHAT_CHUNKS, CHAT_USAGE, chunk, events

_WITHOUT = CHAT_CHUNKS[:-1]


def test_a_stream_is_asked_for_its_usage_and_nothing_else_is_changed() -> None:
    body = b'{ "model":"m",  "stream" : true, "n": 1.0, "messages": [ {"a":"\\u00e9"} ] }'
    asked = ask_for_usage(body)
    assert asked is not None
    assert json.loads(asked) == json.loads(body) | {"stream_options": {"include_usage": True}}
    assert b'"n":1.0' in asked
    assert b'[ {"a":"\\u00e9"} ]' in asked
    for given_ in ({"include_obfuscation": False}, {"include_usage": False}):
        asked = ask_for_usage(json.dumps({"stream": True, "stream_options": given_}).encode())
        assert asked is not None
        assert json.loads(asked)["stream_options"] == given_ | {"include_usage": True}


@pytest.mark.parametrize(
    "body",
    [
        b'{"stream": false}',
        b'{"model": "m"}',
        b'{"stream": true, "stream_options": {"include_usage": true}}',
        b'{"stream": true, "stream_options": 5}',
        b'{"stream": true, "stream_options": {"a": "\xff"}}',
        b'{"stream": true, "stream_options": {"a": %b}}' % (b"[" * 5000 + b"]" * 5000),
        b'{"stream": "true"}',
        b'[{"stream": true}]',
        b'{"stream": true',
        b"\xff",
        b"",
        b"[" * 100_000,
    ],
)
def test_other_requests_are_sent_as_they_are(body: bytes) -> None:
    assert ask_for_usage(body) is None


def _strip(pieces: list[bytes]) -> bytes:
    stripper = UsageStripper()
    return b"".join([*map(stripper.feed, pieces), stripper.rest()])


@given(
    places=st.lists(st.integers(0, 3000)),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    cut=st.integers(0, 3000),
)
def test_no_split_of_a_stream_changes_what_passes(places: list[int], end: str, cut: int) -> None:
    with_usage, without = (events(one, done=True, end=end) for one in (CHAT_CHUNKS, _WITHOUT))
    pieces, start = list[bytes](), 0
    for place in sorted(places):
        pieces.append(with_usage[start:place])
        start = max(start, place)
    assert _strip([*pieces, with_usage[start:]]) == without
    begun = with_usage[:cut]
    assert without.startswith(_strip([begun])) or cut < len(with_usage)
    assert _strip([begun]) == _strip([begun[:7], begun[7:]])


def test_whole_events_pass_at_once_and_long_ones_are_not_held_back() -> None:
    stripper = UsageStripper()
    one = events([chunk({"content": "x"}, usage=None)])
    assert stripper.feed(one) == one
    assert stripper.feed(one + one[:20]) == one
    assert stripper.feed(one[20:]) == one[:20] + one[20:]
    long = b"data: " + b"x" * MAX_HELD_BYTES
    assert stripper.feed(long) == long
    assert stripper.feed(b"more") == b"more"
    assert stripper.feed(b"\n\n" + one) == b"\n\n" + one
    usage = events([{"choices": [], "usage": CHAT_USAGE}])
    assert stripper.feed(long + b"\n") == long + b"\n"
    assert stripper.feed(usage) == usage  # a line of the event that has begun
    assert stripper.feed(usage) == b""


def test_what_is_held_back_at_the_end_of_a_stream_passes_unless_it_is_the_usage() -> None:
    usage = events([{"choices": [], "usage": CHAT_USAGE}])
    other = events([chunk({"content": "x"}, usage=None)])
    for missing in (1, 2):
        assert _strip([usage[:-missing]]) == b""
        assert _strip([other[:-missing]]) == other[:-missing]
    assert _strip([usage[:20]]) == usage[:20]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_end_of_a_long_event_is_found_wherever_it_is_split(end: str) -> None:
    long = b"data: " + b"x" * MAX_HELD_BYTES
    rest = (end + end).encode() + events([{"choices": [], "usage": CHAT_USAGE}], end=end)
    passed = long + (end + end).encode()
    for place in range(6):
        assert _strip([long, rest[:place], rest[place:]]) == passed, place
    assert _strip([long, *(bytes([byte]) for byte in rest)]) == passed


def test_many_small_events_in_one_piece_take_no_longer_than_as_many_pieces() -> None:
    """Each event was cut off a copy of all that followed it: seconds for 64 kB of line breaks."""
    piece = b"\n\n" * 400_000
    begun = time.perf_counter()
    assert _strip([piece]) == piece
    assert time.perf_counter() - begun < 30


@pytest.mark.parametrize(
    "event",
    [
        events([{"choices": [], "usage": None}]),
        events([{"choices": [{"index": 0}], "usage": CHAT_USAGE}]),  # as some tell it all the time
        events([{"usage": CHAT_USAGE}]),
        b'data: {"choices": [], "usage": {\n\n',
        b'data: {"choices": [], "usage": {"a": "\xff"}}\n\n',
        b'data: {"choices": [], "usage": {"a": %b}}\n\n' % (b"[" * 5000 + b"]" * 5000),
        events([{"choices": [], "usage": {"a": "x" * MAX_HELD_BYTES}}]),  # whole or in pieces
        b': "usage"\n\n',
        b'data: ["usage"]\n\n',
        b'data: {"choices": [], "usage": {}}\ndata: x\n\n',
        b'data: {"choices": [],\ndata: "usage": {}}\n\n',
    ],
)
def test_other_events_with_usage_pass(event: bytes) -> None:
    assert _strip([event]) == event
