"""Readers of usage: what they find, in any pieces, and what no bytes can make them do."""

import gzip
import json
import random
import re
import tracemalloc
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgepool.gateway.providers import ANTHROPIC, OPENAI, PROVIDER_TYPES, UsageFields
from bridgepool.gateway.usage import _json_reader
from bridgepool.gateway.usage._event_reader import EventReader
from bridgepool.gateway.usage._json_reader import JsonReader
from bridgepool.gateway.usage._reader import (
    GzipReader,
    UsageReader,
    make_usage_reader,
    readable_encodings,
)
from bridgepool.gateway.usage._scanner import Scanner
from bridgepool.gateway.usage._socket_reader import SocketReader
from bridgepool.gateway.usage._tokens import Findings, Tokens, Usage
from tests.gateway.usage.answers import (
    ANSWERS,
    CHAT_CHUNKS,
    CHAT_USAGE,
    MESSAGE_EVENTS,
    RESPONSE_EVENTS,
    Answer,
    chunk,
    events,
)

_by_name = pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.name)


def _fields(answer: Answer) -> UsageFields:
    assert answer.kind.usage is not None
    return answer.kind.usage


def _reader(answer: Answer, *extra: tuple[bytes, bytes]) -> UsageReader:
    reader = make_usage_reader(_fields(answer), ((b"content-type", answer.content_type), *extra))
    assert reader is not None
    return reader


def _read(reader: UsageReader, pieces: Iterable[bytes]) -> Usage:
    for piece in pieces:
        reader.feed(piece)
    return reader.result()


def _cut(body: bytes, places: Iterable[int]) -> Iterator[bytes]:
    start = 0
    for place in sorted(places):
        yield body[start:place]
        start = place
    yield body[start:]


@_by_name
def test_each_answer_is_read_whole_by_the_byte_and_compressed(answer: Answer) -> None:
    assert _read(_reader(answer), [answer.body]) == answer.usage
    assert _read(_reader(answer), [bytes([one]) for one in answer.body]) == answer.usage
    packed = gzip.compress(answer.body)
    encoded = (b"content-encoding", b"gzip")
    assert _read(_reader(answer, encoded), [packed]) == answer.usage
    assert _read(_reader(answer, encoded), [bytes([one]) for one in packed]) == answer.usage
    half = len(answer.body) // 2
    members = gzip.compress(answer.body[:half]) + gzip.compress(answer.body[half:])
    assert _read(_reader(answer, encoded), [members]) == answer.usage


@given(data=st.data())
def test_no_split_of_an_answer_changes_what_is_read(data: st.DataObject) -> None:
    answer = data.draw(st.sampled_from(ANSWERS))
    places = data.draw(st.lists(st.integers(0, len(answer.body))))
    assert _read(_reader(answer), _cut(answer.body, places)) == answer.usage


@given(data=st.data())
def test_an_answer_that_is_cut_gives_what_was_seen_whatever_its_split(data: st.DataObject) -> None:
    answer = data.draw(st.sampled_from(ANSWERS))
    body = answer.body[: data.draw(st.integers(0, len(answer.body)))]
    places = data.draw(st.lists(st.integers(0, len(body)), max_size=8))
    found = _read(_reader(answer), _cut(body, places))
    assert found == _read(_reader(answer), [body])
    for seen, whole in zip(found.tokens, answer.usage.tokens, strict=True):
        assert seen is None or (whole is not None and seen <= whole)
    assert found.model in ("", answer.usage.model)
    assert answer.usage.complete or not found.complete


def test_a_cut_stream_is_incomplete_with_what_it_told() -> None:
    answer = next(answer for answer in ANSWERS if answer.name == "messages stream")
    found = _read(_reader(answer), [events(MESSAGE_EVENTS[:4], named=True)])
    assert found == Usage(
        Tokens(3210, 1, 3000, 200), False, "claude-opus-5", "msg_1", "", ("Bash",)
    )
    # The end of the output is told before its counts: it takes both.
    chat = ANSWERS[0]
    found = _read(_reader(chat), [events(CHAT_CHUNKS[:-1])])
    assert (found.complete, found.finish, found.tokens) == (False, "tool_calls", Tokens())
    running = chunk({"content": "x"}, usage=CHAT_USAGE)  # as some tell it all the time
    found = _read(_reader(chat), [events([running])])
    assert (found.complete, found.tokens.output) == (False, 45)


def test_a_response_has_ended_with_its_last_event_also_if_that_tells_no_status() -> None:
    last = {"type": "response.completed", "response": {"id": "r", "usage": {"output_tokens": 5}}}
    answer = next(answer for answer in ANSWERS if answer.name == "responses stream")
    found = _read(_reader(answer), [events([*RESPONSE_EVENTS[:-1], last])])
    assert (found.complete, found.tokens) == (True, Tokens(output=5))


_quoted = st.text('"\\{[,:a', max_size=12)
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=200) | _quoted,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["usage", "model", "id", "choices", "delta", "response", "output", "name"]
            )
            | st.sampled_from(
                ["input_tokens", "prompt_tokens", "status", "type", "item", "message"]
            )
            | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(data=st.data(), value=_values, ascii=st.booleans(), indent=st.sampled_from([None, 0, 3]))
def test_the_scanner_finds_what_a_decoder_finds(
    data: st.DataObject, value: object, ascii: bool, indent: int | None
) -> None:
    fields = data.draw(st.sampled_from([kind.usage for kind in PROVIDER_TYPES]))
    assert fields is not None
    try:
        body = json.dumps(value, allow_nan=False, ensure_ascii=ascii, indent=indent).encode()
    except (ValueError, UnicodeEncodeError):
        return
    decoded = Findings(fields)
    assert _json_reader.decode_into(decoded, body)
    places = data.draw(st.lists(st.integers(0, len(body)), max_size=20))
    for pieces in (list(_cut(body, places)), [bytes([one]) for one in body]):
        scanned = Findings(fields)
        scanner = Scanner(scanned)
        for piece in pieces:
            scanner.feed(piece)
        assert scanner.ended or not isinstance(value, (dict, list))
        assert scanned.result() == decoded.result()


@pytest.mark.parametrize("space", [b"", b" ", b"\t", b"\r", b"\n"])
def test_space_of_any_kind_may_surround_a_count(space: bytes) -> None:
    findings = Findings(_fields(ANSWERS[0]))
    counts = b'"prompt_tokens"~:~3~,"completion_tokens"~:~4~'.replace(b"~", space)
    Scanner(findings).feed(b'{"usage":{%b}}' % counts)
    assert findings.result().tokens == Tokens(3, 4)


def test_a_hostile_answer_is_given_up_before_it_holds_the_program_up() -> None:
    """Each bracket was a step of a microsecond, and each long event had a million of its own."""
    fields = _fields(ANSWERS[0])
    scanner = Scanner(Findings(fields))
    for _ in range(100):
        scanner.feed(b'{"x":[' + b"[]," * 20_000)
    assert not scanner.ended
    assert 100_000 < scanner.steps < 200_000  # of six million bytes
    scanner = Scanner(Findings(fields))
    scanner.feed(b'{"choices":[' + b"{}," * 60_000)
    assert scanner.ended  # each of them may hold what is wanted
    reader = EventReader(Findings(fields))
    reader._steps_left = 50_000
    for _ in range(5):
        reader.feed(b'data: {"x": [' + b'"",' * 15_000 + b"]}\n")
    assert reader._steps_left <= 0
    usage = b'"usage":{"prompt_tokens":3,"input_tokens":3}}\n'
    reader.feed(b'data: {"x":"' + b"x" * 40_000 + b'",' + usage)
    assert reader.result().tokens.input is None
    reader = EventReader(Findings(fields))
    reader.feed(b'data: {"x":"' + b"x" * 40_000 + b'",' + usage)
    assert reader.result().tokens.input == 3


_TOKENS = b'data: \n \r " { } [ ] : , \\ "usage" "model" [DONE] \xff 1e999 - null "\\ud800"'.split(
    b" "
)
_noise = st.binary(max_size=200) | st.lists(st.sampled_from([*_TOKENS, b" ", b"9" * 5000])).map(
    b"".join
)


@given(st.sampled_from(ANSWERS), _noise, _noise, st.booleans())
def test_garbage_never_raises(answer: Answer, before: bytes, after: bytes, packed: bool) -> None:
    reader = _reader(answer, *([(b"content-encoding", b"gzip")] if packed else []))
    half = len(answer.body) // 2
    body = gzip.compress(answer.body) if packed else answer.body
    assert isinstance(_read(reader, [before, body[:half], after, body[half:]]), Usage)
    scanner = Scanner(Findings(_fields(answer)))
    for piece in (before, answer.body, after):
        scanner.feed(piece)


def test_what_cannot_be_a_count_or_a_name_is_left_out() -> None:
    answer = next(answer for answer in ANSWERS if answer.name == "chat completion")
    usage = {
        "prompt_tokens": -1,
        "completion_tokens": 10**8 + 1,
        "input_tokens": True,
        "output_tokens": 1.5,
    }
    document = {"model": "m" * 129, "id": 7, "usage": usage, "choices": {"finish_reason": "stop"}}
    assert _read(_reader(answer), [json.dumps(document).encode()]) == Usage()
    spelt = (
        b'{"usage":{"prompt_tokens":3.0,"completion_tokens":2e1}}'  # JSON has one kind of number
    )
    tokens = _read(_reader(answer), [spelt]).tokens
    assert (tokens.input, tokens.output) == (3, 20)
    for told, count in ((b"", (9, None)), (b',"completion_tokens":5', (None, 5))):
        tokens = _read(_reader(answer), [b'{"usage":{"total_tokens":9%b}}' % told]).tokens
        assert (tokens.input, tokens.output) == count, "the total is the input if it is all"
    named = {"model": "a\x1b[2Jb\x00", "usage": {"prompt_tokens": 3}}
    found = _read(_reader(answer), [json.dumps(named).encode()])
    assert (found.model, found.tokens.input, found.complete) == ("a?[2Jb?", 3, True)
    calls = [{"function": {"name": f"tool-{n % 40}"}} for n in range(400)]
    many = {"choices": [{"message": {"tool_calls": calls}}]}
    assert len(_read(_reader(answer), [json.dumps(many).encode()]).tools) == 32


def test_paths_may_have_any_names_and_documents_any_values_at_them() -> None:
    fields = UsageFields(
        answers=re.compile(rb""),
        input=("usage-data.in tokens",),
        model=("class", "0.*.model"),
        tools=("*.*.name",),
    )

    def read(*documents: object) -> Usage:
        stream = b"".join(b"data: %b\n\n" % json.dumps(one).encode() for one in documents)
        return _read(EventReader(Findings(fields)), [stream])

    told = {"usage-data": {"in tokens": 7, "more": 1}, "class": "m"}
    assert read(told) == Usage(Tokens(7), model="m")
    for value in (None, True, 3, 1.5, "x", [], {}, [told, 1], {"*": 1}, [[{"name": ["x"]}, 2]]):
        documents = [told, {"class": value}, {"usage-data": value}, {"0": value}, value, told]
        assert read(*documents).tokens == Tokens(7)
    assert read([[{"name": "a"}], [3, {"name": "b"}]], {"0": [{"model": "n"}]}).tools == ("a", "b")
    answer = b'{"class":"m","text":"\xff","usage-data":{"in tokens":7}}'  # not UTF-8, and not read
    assert _read(JsonReader(Findings(fields)), [answer]) == Usage(Tokens(7), True, "m")
    for depth in range(10, 1200, 70):
        deep = b'data: {"class":%b%b}\n' % (b"[" * depth, b"]" * depth)
        assert _read(EventReader(Findings(fields)), [deep, deep]) == Usage()


def test_each_message_of_a_socket_has_its_own_type() -> None:
    assert OPENAI.usage is not None
    reader, types = SocketReader(OPENAI.usage), []
    for message in (b'{"type":"a"}', b'{"type":"a"}', b"{}", b'{"type":"a"}', b"x"):
        reader.feed(message)
        types.append(reader.end_message().type)
    assert types == ["a", "a", "", "a", ""]


def test_answers_of_any_length_are_read_in_bounded_memory() -> None:
    """Longer than what is kept: a stream's event, an answer with the counts at its end."""
    by_name = {answer.name: answer for answer in ANSWERS}
    long_text = "\\\"{['" * 40_000
    completed = json.loads(json.dumps(RESPONSE_EVENTS[-1]))
    completed["response"]["instructions"] = long_text
    stream = by_name["responses stream"]
    body = events([*RESPONSE_EVENTS[:-1], completed], named=True)
    assert len(body) > 5 * _json_reader.MAX_DECODED_BYTES
    for size in (1000, 65_536, len(body)):
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        assert _read(_reader(stream), pieces) == stream.usage
    image = by_name["images"]
    body = image.body.replace(b"A" * 500, b"A" * 500_000)
    assert _read(_reader(image), [body[:100_000], body[100_000:]]) == image.usage
    assert _read(_reader(image), [body[:100_000]]) == Usage()

    piece = b"x" * 65_536
    for name, begin in (
        ("chat stream", b'data: {"model": "'),
        ("chat completion", b'{"id": "'),
        ("chat completion", b'{"id": '),
    ):
        reader = _reader(by_name[name])
        tracemalloc.start()
        reader.feed(begin)
        for _ in range(500):  # 33 MB without an end of the line
            reader.feed(piece)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert reader.result() == Usage()
        assert peak < 1_000_000
    zipped = gzip.compress(b'{"id": "' + b"x" * 30_000_000)
    reader = _reader(by_name["chat completion"], (b"content-encoding", b"gzip"))
    tracemalloc.start()
    reader.feed(zipped)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
    assert reader.result() == Usage()


def test_a_piece_that_expands_without_end_is_read_bit_by_bit_and_given_up_soon() -> None:
    """5 MB of lines were read in one turn, which held everything else up for 0.2 s."""
    lines, zipped = 0, gzip.compress(b"data:\n" * 10_000_000)[:65536]

    class Counting:
        def feed(self, data: bytes) -> None:
            nonlocal lines
            lines += data.count(b"\n")

        def result(self) -> Usage:
            return Usage()

    reader, before, turns = GzipReader(Counting()), 0, 0
    reader.feed(zipped)
    while reader.has_more:
        assert 0 < lines - before < 30_000
        before, turns = lines, turns + 1
        reader.feed(b"")
    assert 30 < turns < 120
    assert 100_000 < lines < 1_000_000


def test_only_answers_that_can_be_read_get_a_reader() -> None:
    fields = OPENAI.usage
    assert fields is not None
    json_type = (b"content-type", b"application/json")
    assert make_usage_reader(fields, (json_type,)) is not None
    assert make_usage_reader(fields, (json_type, (b"content-encoding", b"br"))) is None
    assert make_usage_reader(fields, ((b"content-type", b"audio/mpeg"),)) is None
    assert make_usage_reader(fields, ()) is None


@pytest.mark.parametrize(
    ("accepted", "asked"),
    [
        ([], []),
        ([b"gzip, deflate, br, zstd"], [b"gzip"]),
        ([b"br;q=1.0, GZIP;q=0.5"], [b"gzip;q=0.5"]),
        ([b"br", b"zstd"], [b"identity"]),
        ([b"*"], [b"identity"]),
    ],
)
def test_upstreams_are_asked_for_encodings_that_can_be_read(
    accepted: list[bytes], asked: list[bytes]
) -> None:
    headers = ((b"a", b"b"), *((b"accept-encoding", value) for value in accepted))
    found = readable_encodings(headers)
    assert [value for name, value in found if name == b"accept-encoding"] == asked
    assert found[0] == (b"a", b"b")


@pytest.mark.parametrize(
    ("path", "is_read"),
    [
        (b"/chat/completions", True),
        (b"/chat/completions/chatcmpl-1", False),  # a stored answer, counted when it was made
        (b"/responses", True),
        (b"/responses/resp_1/cancel", False),
        (b"/responses/compact", True),
        (b"/embeddings", True),
        (b"/audio/speech", True),
        (b"/models", False),
    ],
)
def test_answers_that_are_returned_once_more_are_not_read(path: bytes, is_read: bool) -> None:
    assert OPENAI.usage is not None
    assert (OPENAI.usage.answers.fullmatch(path) is not None) == is_read


def test_batches_and_counts_of_tokens_have_no_usage() -> None:
    assert ANTHROPIC.usage is not None
    for path in (b"/v1/messages/batches", b"/v1/messages/count_tokens", b"/v1/models"):
        assert ANTHROPIC.usage.answers.fullmatch(path) is None
    assert ANTHROPIC.usage.answers.fullmatch(b"/v1/messages") is not None


def test_a_tiny_piece_at_a_time_costs_no_more_than_its_bytes() -> None:
    """What is kept of a line is not copied with each piece of it."""
    reader = _reader(ANSWERS[0])
    rng = random.Random(1)
    for _ in range(100_000):
        reader.feed(bytes([rng.choice(b"abc")]))
    assert reader.result() == Usage()
