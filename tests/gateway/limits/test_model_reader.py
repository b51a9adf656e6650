"""Which models a body names: as any parser reads it, or refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgepool.gateway.limits._model_reader import (
    AmbiguousBodyError,
    ModelPath,
    ModelReader,
    read_whole,
)

PATHS: tuple[ModelPath, ...] = (
    ("model",),
    ("models", None),
    ("tools", None, "model"),
    ("requests", None, "params", "model"),
)


def read(body: bytes, size: int = 1 << 20) -> tuple[str, ...]:
    """Read a body in pieces, and as a whole: with the same result."""
    reader = ModelReader(PATHS)
    try:
        for at in range(0, len(body), size):
            reader.feed(body[at : at + size])
        models = reader.finish()
    except AmbiguousBodyError:
        if body.count(b"[") < 200 and len(body) < 4096:  # it refuses a little more
            with pytest.raises(AmbiguousBodyError):
                read_whole(body, PATHS)
        raise
    assert read_whole(body, PATHS) == models
    return models


def naive(value: Any, path: ModelPath) -> list[str]:
    if not path:
        return [value] if isinstance(value, str) else []
    step, *rest = path
    if step is None:
        items = value if isinstance(value, list) else []
    else:
        items = [value[step]] if isinstance(value, dict) and step in value else []
    return [found for item in items for found in naive(item, tuple(rest))]


@pytest.mark.parametrize(
    ("body", "models"),
    [
        ('{"model": "a"}', ("a",)),
        (' {"x": [1, {"model": "no"}], "y": "\\"model\\": \\"no\\"", "model" : "a" } \n', ("a",)),
        (
            '{"messages": [{"content": "{\\"model\\": \\"no\\"}"}], "\\u006dodel": "\\u0061"}',
            ("a",),
        ),
        ('{"model": null}', ()),
        ("{}", ()),
        ('{"model": "a", "models": ["b", "c"], "tools": [{"model": "d"}, {}]}', tuple("abcd")),
        ('{"requests": [{"params": {"model": "a"}}, {"params": {"model": "b"}}]}', ("a", "b")),
        ('{"x": -1.5e+3, "y": [true, false, null, []], "model": "gpt/4-ä"}', ("gpt/4-ä",)),
        ('{"metadata": {"model": "no", "model": "no"}, "model": "a"}', ("a",)),
    ],
)
def test_models_are_found_wherever_the_body_is_split(body: str, models: tuple[str, ...]) -> None:
    for size in (1, 2, 3, 7, 1 << 20):
        assert read(body.encode(), size) == models


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ('{"model": "a", "model": "b"}', "twice"),
        ('{"model": "a", "\\u006dodel": "b"}', "twice"),
        ('{"model": "a", "Model": "b"}', "another spelling"),
        ('{"model": "a", "tool\\u017f": [{"model": "b"}]}', "another spelling"),
        ('{"model\\u0000": "b", "model": "a"}', "another spelling"),
        ('{"model\\ud800": "b", "model": "a"}', "another spelling"),
        ('{"requests": [{"params": {"model": "a", "model": "b"}}]}', "twice"),
        ('{"requests": [], "requests": []}', "twice"),
        ('{"model": ["a"]}', "another kind"),
        ('{"model": {"id": "a"}}', "another kind"),
        ('{"models": "a"}', "a text where"),
        ('{"models": {"0": "a"}}', "another kind"),
        ('{"model": 1}', "other than a text"),
        ('{"model": ""}', "characters that no model has"),
        ('{"model": "a\\u0000b"}', "characters that no model has"),
        ('{"model": "%s"}' % ("a" * 600), "characters that no model has"),
        ('{"x": 1, // "model": "b"\n "model": "a"}', "not JSON"),
        ("{'model': 'a'}", "not JSON"),
        ('{"model": "a",}', "not JSON"),
        ('{"model": "a"} {"model": "b"}', "not JSON"),
        ('{"model": "a"', "complete"),
        ('{"model": "a', "complete"),
        ("", "complete"),
        ('"model"', "object"),
        ('[{"model": "a"}]', "object"),
        ("1 ", "object"),
        ('\ufeff{"model": "a"}', "not JSON"),
        ('{"x": 01, "model": "a"}', "not JSON"),
        ('{"x": NaN, "model": "a"}', "not JSON"),
        ('{"x": "\\x", "model": "a"}', "not JSON"),
        ('{"x": "\n", "model": "a"}', "not JSON"),
        ('{"x": [}, "model": "a"}', "not JSON"),
        ('{"x": ' + "[" * 250 + "]" * 250 + "}", "deeply"),
        ('{"x": %s}' % ("1" * 5000), "number"),
    ],
)
def test_a_body_that_parsers_could_read_differently_is_refused(body: str, why: str) -> None:
    for size in (1, 3, 1 << 20):
        with pytest.raises(AmbiguousBodyError, match=why):
            read(body.encode(), size)


@pytest.mark.parametrize("body", [b'{"x": "\xff", "model": "a"}', b'{"x": "\xc2", "model": "a"}'])
def test_a_body_that_is_not_utf_8_is_refused(body: bytes) -> None:
    with pytest.raises(AmbiguousBodyError):
        read(body)


def test_a_long_text_is_passed_over_in_pieces_and_not_kept() -> None:
    reader = ModelReader(PATHS)
    reader.feed(b'{"x": "')
    for _ in range(1000):
        reader.feed(b"a" * 4096)
        assert len(reader._text or b"") == 0
        assert reader._rest == b""
    reader.feed(b'", "model": "m"}')
    assert reader.finish() == ("m",)


_names = st.sampled_from(["model", "models", "tools", "requests", "params", "Model", "x", ""])
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from("ab"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=4),
    max_leaves=12,
)


@given(
    st.dictionaries(_names, _values, max_size=5),
    st.booleans(),
    st.integers(1, 9),
    st.lists(st.tuples(st.integers(0, 200), st.binary(max_size=2)), max_size=2),
)
def test_what_is_accepted_names_the_models_that_a_parser_finds(
    document: dict[str, Any], ascii_only: bool, size: int, noise: list[tuple[int, bytes]]
) -> None:
    body = json.dumps(document, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    for at, extra in noise:
        body = body[:at] + extra + body[at + len(extra) :]
    try:
        models = read(body, size)
    except AmbiguousBodyError:
        return
    last = json.loads(body)  # of two fields of a name the last counts, and then the first
    first = json.loads(body, object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    for parsed in (last, first):
        found = [model for path in PATHS for model in naive(parsed, path)]
        assert sorted(found) == sorted(models)


@given(st.dictionaries(st.sampled_from(["x", "y", "model"]), st.text('ab\\"/ä{}[]:,', min_size=1)))
def test_plain_bodies_are_accepted(document: dict[str, str]) -> None:
    expected = (document["model"],) if "model" in document else ()
    assert read(json.dumps(document).encode(), 3) == expected
