"""The model that a request asks for, read in its body however long it is and however it comes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgepool.gateway.usage._request_reader import _MAX_STEPS, RequestReader, is_plain_json

_TEXT = 'he said "model": "no" \\ and { left [' * 40


def read(body: bytes, size: int | None) -> str:
    """Read a body whole, or in pieces of some size."""
    reader = RequestReader(body if size is None else None)
    for at in range(0, len(body) if size else 0, size or 1):
        reader.feed(body[at : at + (size or 1)])
    return reader.result()


@pytest.mark.parametrize("size", [None, 1, 7, 1000, 65536])
@pytest.mark.parametrize("messages", [1, 100])
def test_the_model_is_found_wherever_it_stands_and_not_below(
    size: int | None, messages: int
) -> None:
    before = {
        "metadata": {"model": "inner"},
        "tools": [{"model": "tool", "input_schema": {"model": ["x"]}}],
        "messages": [{"role": "user", "content": _TEXT, "model": "message"}] * messages,
    }
    last = json.dumps({**before, "model": "gpt-5"}).encode()
    first = json.dumps({"model": "gpt-5", **before}).encode()
    assert (read(last, size), read(first, size)) == ("gpt-5", "gpt-5")
    assert read(json.dumps(before).encode(), size) == ""


@given(st.binary(max_size=200), st.none() | st.integers(1, 50))
def test_no_body_makes_the_reader_raise(body: bytes, size: int | None) -> None:
    read(body, size)
    read(b'{"model": ' + body, size)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"model": 5}', b'{"model": "' + b"x" * 200 + b'"}', b"model=gpt-5"],
)
def test_what_names_no_model_has_none(body: bytes) -> None:
    assert (read(body, None), read(body, 3)) == ("", "")


def test_the_work_on_a_hostile_body_is_bounded() -> None:
    for part in (b"[", b"[],", b'{"a":', b'"\\"', b'{"a": "\\"'):
        reader = RequestReader()
        for _ in range(100):
            reader.feed(part * 10_000)
        reader.feed(b'"model": "gpt-5"')
        assert reader.result() == ""
        assert reader._scanner is not None
        assert reader._scanner.steps < 40_000


@pytest.mark.parametrize(
    ("headers", "readable"),
    [
        ({}, True),
        ({"content-type": "application/json"}, True),
        ({"content-type": "Application/JSON; charset=utf-8"}, True),
        ({"content-type": "application/json", "content-encoding": "zstd"}, False),
        ({"content-type": "multipart/form-data; boundary=x"}, False),
    ],
)
def test_only_plain_json_is_read(headers: dict[str, str], readable: bool) -> None:
    fields = tuple((name.encode(), value.encode()) for name, value in headers.items())
    assert is_plain_json(fields) is readable


@pytest.mark.parametrize("size", [7, 1000, 10**6])
def test_a_string_full_of_escaped_quotes_is_given_up(size: int) -> None:
    """Each is a step, and a client can send millions of them."""
    body = b'{"text":"' + rb"\"" * 100_000 + b'","model":"m"}'
    reader = RequestReader()
    for at in range(0, len(body), size):
        reader.feed(body[at : at + size])
    assert reader._scanner is not None
    assert reader._scanner.steps == _MAX_STEPS + 1
    assert reader.result() == ""
