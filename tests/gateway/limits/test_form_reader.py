"""Which model a form names: as other parsers read it, or refused."""

from __future__ import annotations

from email.message import Message
from email.parser import BytesParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgepool.gateway.limits._form_reader import find_boundary, read_form
from bridgepool.gateway.limits._model_reader import AmbiguousBodyError

BOUNDARY = b"boundary-1"


def part(name: str, value: bytes, *more: str, disposition: str = "") -> bytes:
    fields = [f'Content-Disposition: form-data; name="{name}"{disposition}', *more]
    return "\r\n".join(fields).encode() + b"\r\n\r\n" + value


def form(*parts: bytes, end: bytes = b"--\r\n") -> bytes:
    begin = b"--" + BOUNDARY
    return b"".join(begin + b"\r\n" + each + b"\r\n" for each in parts) + begin + end


MODEL = part("model", b"gpt-5")
FILE = part("file", b"\0\r\n\r\n--\n", "Content-Type: a/b", disposition='; filename="a b.mp3"')


EDITS = (
    *(b"", b"\n", b"\r", b"\r\n", b'"', b"--", b" ", b":", b";", b"=", b"\0", b"\\", b"model"),
    *(b"--boundary-1", b"\r\n--boundary-1\r\n", b"\r\n--boundary-1--", MODEL),
)


def lenient(body: bytes) -> list[str]:
    """Return the models that the parser of Python's mail library finds."""
    head = b"Content-Type: multipart/form-data; boundary=" + BOUNDARY + b"\r\n\r\n"
    message = BytesParser().parsebytes(head + body)
    parts = message.get_payload()
    found = []
    for each in parts if isinstance(parts, list) else []:
        assert isinstance(each, Message)
        if each.get_param("name", header="content-disposition") == "model":
            value = each.get_payload(decode=True)
            assert isinstance(value, bytes)
            found.append(value.decode("ascii", "replace"))
    return found


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["file", "prompt", "image[]", "timestamp_granularities[]", "n"]),
            st.binary(max_size=40),
        ),
        max_size=4,
    ),
    st.integers(0, 4),
)
def test_a_model_is_found_wherever_its_part_stands(
    others: list[tuple[str, bytes]], place: int
) -> None:
    parts = [part(name, value) for name, value in others]
    parts.insert(place, MODEL)
    body = form(*parts)
    assert read_form(body, BOUNDARY) == ("gpt-5",)
    assert lenient(body) == ["gpt-5"]


@given(
    st.sampled_from([form(FILE, MODEL), form(MODEL, FILE), form(FILE, MODEL, end=b"--")]),
    st.lists(
        st.tuples(
            st.integers(0, 400),
            st.integers(0, 6),
            st.sampled_from(EDITS),
        ),
        min_size=1,
        max_size=3,
    ),
)
def test_what_is_accepted_names_what_a_lenient_parser_finds(
    body: bytes, edits: list[tuple[int, int, bytes]]
) -> None:
    for at, removed, text in edits:
        body = body[:at] + text + body[at + removed :]
    try:
        models = read_form(body, BOUNDARY)
    except AmbiguousBodyError:
        return
    assert list(models) == lenient(body)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (form(MODEL, MODEL), "twice"),
        (form(MODEL, part("Model", b"b")), "another spelling"),
        (form(MODEL, part("model[]", b"b")), "another spelling"),
        (form(part("mod%65l", b"b")), "unusual content-disposition"),
        (form(part("model", b"b", disposition="; name=x")), "unusual content-disposition"),
        (form(part("a", b"", disposition='; filename="b; name=model"')), "unusual content-disp"),
        (form(part("a", b"", disposition="; filename*=utf-8''b")), "unusual content-disposition"),
        (
            form(part("a", b"", disposition='; filename="~"').replace(b"~", b"\xff")),
            "unusual content",
        ),
        (form(part("model", b"b", disposition='; filename="b"')), "plain text"),
        (form(part("model", b"b", "Content-Type: text/plain; charset=utf-7")), "plain text"),
        (form(part("model", b"b", "Content-Transfer-Encoding: base64")), "unusual field"),
        (form(part("a", b"", "Content-Type: Multipart/mixed; boundary=b")), "made of parts"),
        (form(part("a", b"", "Content-Length: 0")), "unusual field"),
        (form(part("a", b"", "Content-Type: y\r\n z")), "malformed"),
        (form(part("a", b"", "X: y\n\nz: 1")), "malformed"),
        (form(part("_charset_", b"utf-16"), MODEL), "charset"),
        (form(part("model", b" gpt-5")), "characters"),
        (form(part("model", b"gpt\r\n5")), "characters"),
        (form(part("model", b"")), "characters"),
        (form(part("model", "gpt-ö".encode())), "characters"),
        (form(part("a", b"\n--boundary-1\n"), MODEL), "where no part ends"),
        (form(part("a", b"--boundary-1"), MODEL), "without an end"),
        (form(MODEL, end=b"-- \r\n"), "where no part ends"),
        (form(MODEL) + form(MODEL), "where no part ends"),
        (form(MODEL)[:-4], "where no part ends"),
        (form(MODEL, end=b""), "where no part ends"),
        (b"preamble\r\n" + form(MODEL), "begin with"),
        (form(b"model\r\n\r\n"), "malformed"),
        (form(b"Content-Disposition: form-data"), "without an end"),
        (form(part("a", b"", "Content-Type: " + "x" * 3000)), "without an end"),
        (form(*[part("a", b"")] * 250), "too many parts"),
    ],
)
def test_what_two_parsers_could_read_differently_is_refused(body: bytes, why: str) -> None:
    with pytest.raises(AmbiguousBodyError, match=why):
        read_form(body, BOUNDARY)


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        (b"multipart/form-data; boundary=----WebKitFormBoundaryX1", b"----WebKitFormBoundaryX1"),
        (b"Multipart/Form-Data;boundary=abcdef", b"abcdef"),
        (b'multipart/form-data; boundary="abcdef"', None),
        (b"multipart/form-data; boundary=abcdef; boundary=ghijkl", None),
        (b"multipart/form-data; charset=utf-8; boundary=abcdef", None),
        (b"multipart/mixed; boundary=abcdef", None),
        (b"multipart/form-data", None),
    ],
)
def test_only_a_plain_boundary_is_taken(content_type: bytes, boundary: bytes | None) -> None:
    assert find_boundary(content_type) == boundary


def test_a_form_without_a_model_names_none() -> None:
    assert read_form(form(FILE), BOUNDARY) == ()
    plain = part("model", b"gpt-5", "Content-Type: text/plain; charset=utf-8")
    assert read_form(form(plain), BOUNDARY) == ("gpt-5",)
