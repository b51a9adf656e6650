"""How deep a message may be nested, and how it is found out."""

import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridgepool import Secret
from bridgepool.remote import _codec as codec
from bridgepool.remote import _messages as messages
from bridgepool.remote._depth import find_excess
from bridgepool.remote._errors import INVALID_PARAMS, MALFORMED_FRAME, InvalidMessageError

from .foreign import pack

_R = {"revision": 7, "providers": 6, "clients": 5}
_ROW = {
    "id": "1",
    "name": "a",
    "type": "t",
    "base_url": "u",
    "keys": ["k"],
    "headers": [["h", "v"]],
}
# A good message, with more fields at one of its levels.
_BODIES: dict[str, Callable[[Any], Any]] = {
    "Cancel": lambda more: {"id": 4, **more},
    "Authorize": lambda more: {**more, "token": "t"},
    "Changed": lambda more: {"revisions": _R, "rows": [_ROW], **more},
    "Authorization": lambda more: {"revisions": _R | more},
    "ProviderSet": lambda more: {"revisions": _R, "rows": [_ROW, _ROW | more, _ROW]},
    "Acknowledge": lambda more: {"revision": 7, "rejected": [{"name": "", "reason": "", **more}]},
}
_LEVEL = {"Cancel": 1, "Authorize": 1, "Changed": 1, "Authorization": 2}  # else 3

_leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=40)
    | st.binary(max_size=40)
    | st.builds(msgspec.msgpack.Ext, st.integers(-128, 127), st.binary(max_size=40))
    | st.sampled_from(["x" * 300, "x" * 70_000, b"x" * 300, b"x" * 70_000])
    | st.sampled_from([msgspec.msgpack.Ext(1, b"x" * size) for size in (1, 2, 4, 8, 16, 300)])
)
_values = st.recursive(
    _leaves,
    lambda inner: (
        st.lists(inner, max_size=20)
        | st.dictionaries(st.text(max_size=3) | st.integers(0, 300), inner, max_size=20)
    ),
    max_leaves=30,
)


def _count(value: Any) -> tuple[int, int]:
    """Return the levels and the number of values in a value, as one would count them."""
    if isinstance(value, dict):
        inner = [_count(one) for pair in value.items() for one in pair]
    elif isinstance(value, list):
        inner = [_count(one) for one in value]
    else:
        return 0, 1
    return 1 + max((levels for levels, _ in inner), default=0), 1 + sum(n for _, n in inner)


@settings(max_examples=300, deadline=None)
@given(_values)
def test_levels_and_values_are_counted_as_a_reader_would(value: Any) -> None:
    levels, values = _count(value)
    data = msgspec.msgpack.encode(value)
    assert find_excess(data, levels, values) is None
    if levels:
        excess = find_excess(data, levels - 1, values)
        assert excess == f"it is nested deeper than {levels - 1} levels"
    assert find_excess(data, levels, values - 1) == f"it has more than {values - 1} values"


@pytest.mark.parametrize("number", [0, 1, 15, 16, 70_000])
def test_all_forms_of_arrays_and_maps_are_known(number: int) -> None:
    for value in ([[0]] * number, {str(n): [n] for n in range(number)}):
        levels, values = _count(value)
        for data in (msgspec.msgpack.encode(value), pack(value)):
            assert find_excess(data, levels, values) is None
            assert find_excess(data, levels, values - 1) is not None
            assert find_excess(data, levels - 1, values) is not None


@given(st.binary(max_size=60))
def test_of_bad_bytes_nothing_is_said_but_nothing_happens_either(data: bytes) -> None:
    find_excess(data, 3, 10)
    assert find_excess(data, 60, 60) is None


@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1z", b"\xdc\x00\x01", b"\x92\xc0"])
@pytest.mark.parametrize("name", sorted(_BODIES))
def test_a_message_is_as_deep_as_the_limit_says_and_no_deeper(name: str, opening: bytes) -> None:
    kind: type[Any] = getattr(messages, name)

    def body(levels: int) -> Any:
        return _BODIES[name]({"later": msgspec.Raw(opening * levels + b"\xc0")})

    good = codec.decode(codec.encode(_BODIES[name]({})).raw, kind)
    most = codec.MAX_DEPTH - _LEVEL.get(name, 3)
    for levels in (0, 1, most):
        frame = codec.decode_frame(codec.encode_request(1, "m", body(levels)))
        assert isinstance(frame, codec.Request)
        assert codec.decode(frame.params[0], kind) == good
    for levels in (most + 1, 100):
        frame = codec.decode_frame(codec.encode_result(1, body(levels)))
        assert isinstance(frame, codec.Response)
        with pytest.raises(InvalidMessageError) as refused:
            codec.decode(frame.result, kind)
        assert refused.value.code == INVALID_PARAMS
        assert str(refused.value) == (
            f"not a good {name}: it is nested deeper than {codec.MAX_DEPTH} levels"
        )


def test_no_message_of_ours_is_near_the_limit() -> None:
    """What has no unknown fields is not looked through: it cannot be deep."""
    levels = max(_count(body({}))[0] for body in _BODIES.values())
    assert levels == 5


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(_BODIES)), _values, st.integers(0, 40))
def test_a_message_is_taken_up_to_the_limit_and_refused_beyond(
    name: str, value: Any, more: int
) -> None:
    for _ in range(more):
        value = [value]
    body, kind = _BODIES[name]({"later": value}), getattr(messages, name)
    raw = codec.encode(body).raw
    if _count(body)[0] <= codec.MAX_DEPTH:
        assert codec.decode(raw, kind) == codec.decode(codec.encode(_BODIES[name]({})).raw, kind)
    else:
        with pytest.raises(InvalidMessageError, match="nested deeper"):
            codec.decode(raw, kind)


def test_what_is_too_deep_even_to_find_its_end_is_no_frame() -> None:
    for opening in (b"\x91", b"\x81\xa1z"):
        with pytest.raises(InvalidMessageError, match="nested too deep") as refused:
            codec.decode_frame(b"\x93\x02\xa1m\x91" + opening * 1_000_000 + b"\xc0")
        assert refused.value.code == MALFORMED_FRAME


@pytest.mark.parametrize("filling", [b"\x90", b"\x91\x00", b"\xa1x", b"\x91" * 29 + b"\x00"])
def test_a_frame_full_of_the_unknown_costs_bounded_time_and_no_memory(filling: bytes) -> None:
    """A third of a second is the promise; the bound is loose because machines are shared."""
    times = (codec.MAX_FRAME_BYTES - 64) // len(filling)
    head = b"\x82\xa2id\x04\xa5later\xdd" + times.to_bytes(4, "big")
    raw = msgspec.Raw(head + filling * times)
    before = time.perf_counter()
    with pytest.raises(InvalidMessageError, match=f"more than {codec.MAX_VALUES} values"):
        codec.decode(raw, messages.Cancel)
    assert time.perf_counter() - before < 5
    small = msgspec.Raw(b"\x82\xa2id\x04\xa5later\xdd\x00\x00\x80\x00" + b"\x90" * 0x8000)
    tracemalloc.start()
    try:
        assert codec.decode(small, messages.Cancel) == messages.Cancel(4)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_a_known_field_is_no_way_around_the_limit_or_the_check_of_secrets() -> None:
    """A message with something unknown is still checked before a secret is made of it."""
    tokens: list[object] = [[], "", 1, {"a": 1}]
    for token in tokens:
        raw = codec.encode({"token": token, "later": 1}).raw
        with pytest.raises(InvalidMessageError, match=r"not a good Authorize: .*token"):
            codec.decode(raw, messages.Authorize)
    raw = codec.encode({"token": "t", "later": {"token": []}}).raw
    assert codec.decode(raw, messages.Authorize) == messages.Authorize(Secret("t"))


def test_the_names_of_unknown_fields_are_not_told() -> None:
    raw = codec.encode({"sk-hidden": 1}).raw
    with pytest.raises(InvalidMessageError) as refused:
        codec.decode(raw, messages.Cancel)
    assert str(refused.value) == "not a good Cancel: Object missing required field `id`"
