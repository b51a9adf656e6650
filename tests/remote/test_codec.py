"""Frames and messages to bytes and back, and bytes that are neither."""

import contextlib
import enum
import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridgepool import Secret
from bridgepool.gateway import _protocol as gateway
from bridgepool.gateway.limits._share_pool import Share, ShareDemand
from bridgepool.gateway.providers import KEYS_LIMIT, ClientRules
from bridgepool.gateway.providers import _key_status as key_status
from bridgepool.gateway.providers import _wire as wire
from bridgepool.gateway.usage._records import UsageRecord
from bridgepool.remote import _codec as codec
from bridgepool.remote import _messages as messages
from bridgepool.remote._errors import InvalidMessageError, UnsendableError, UnusableRowError

from .foreign import pack, unpack

VECTORS = Path(__file__).parent / "vectors"
CLASSES: dict[str, type] = {
    name: kind
    for module in (messages, gateway, key_status)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and attrs.has(kind) and kind.__module__.startswith("bridgepool.")
    if kind.__module__ in (module.__name__, wire.__name__) and name != "Provider"
}
_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_secrets = st.builds(Secret, st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
_numbers = st.integers(-(2**63), 2**64 - 1)
_services = st.dictionaries(_texts, _texts, max_size=4)
_bodies = st.recursive(_texts | _numbers | st.none(), st.lists, max_leaves=5)
_rows = st.builds(
    messages.Row, id=_texts, name=_texts, body=_bodies.map(lambda body: msgspec.Raw(pack(body)))
)
_some_rows = st.none() | st.lists(_rows, max_size=4).map(tuple)
_usage = st.builds(
    UsageRecord,
    time=_texts,
    client=_texts,
    provider=_texts,
    input_tokens=st.none() | _numbers,
    complete=st.booleans(),
    tools=st.lists(_texts, max_size=3).map(tuple),
    first_byte_ms=st.none() | st.floats(allow_nan=False),
)
_floats = st.floats(allow_nan=False)
_demands = st.builds(
    ShareDemand,
    scope=_texts,
    id=_texts,
    rule=_texts,
    limit=_floats,
    held=_floats,
    used=_floats,
    period=_floats,
    demand=_floats,
)
_rules = st.none() | st.builds(
    ClientRules,
    models=st.none() | st.lists(_texts, max_size=3).map(tuple),
    max_concurrent=st.none() | st.integers(1, 10**12),
    money_per_day=st.none() | _floats,
)
_rejected = st.builds(messages.RejectedRow, _texts, _texts)
_key_statuses = st.builds(
    key_status.KeyStatus,
    provider=_texts,
    fingerprint=_texts,
    hint=_texts,
    usable=st.booleans(),
    in_flight=_numbers,
    unused_for=st.none() | _numbers,
    cooling=st.sampled_from(["", "rate_limited", "refused"]),
    cooling_for=_numbers,
)
_BY_CLASS: dict[str, st.SearchStrategy[Any]] = {
    "ProviderRow": st.builds(
        wire.ProviderRow,
        id=_texts,
        name=_texts,
        type=_texts,
        base_url=_texts,
        keys=st.lists(_secrets, max_size=5).map(tuple),
        key_env=st.none() | _texts,
        client_keys=st.booleans(),
        enabled=st.booleans(),
        headers=st.lists(st.tuples(_texts, _secrets), max_size=5).map(tuple),
        allow_private=st.booleans(),
        problem=st.none() | _texts,
    ),
    "Row": _rows,
    "RowSet": st.builds(messages.RowSet, st.none() | _numbers, _numbers, _some_rows),
    "Hello": st.builds(
        messages.Hello, name=_texts, instance=_texts, software=_texts, services=_services
    ),
    "Welcome": st.builds(
        messages.Welcome, session=_texts, software=_texts, protocol=_texts, services=_services
    ),
    "GetRows": st.builds(messages.GetRows, st.none() | _numbers),
    "Watch": st.builds(messages.Watch, st.booleans()),
    "Cancel": st.builds(messages.Cancel, _numbers),
    "Goodbye": st.builds(messages.Goodbye, _texts, _texts),
    "RejectedRow": _rejected,
    "Acknowledge": st.builds(
        messages.Acknowledge, _numbers, st.lists(_rejected, max_size=4).map(tuple)
    ),
    "Authorize": st.builds(gateway.Authorize, _secrets),
    "Authorization": st.builds(
        gateway.Authorization,
        client_id=st.none() | _texts,
        key_id=st.none() | _texts,
        clients=_numbers,
        rules=_rules,
        key_rules=_rules,
    ),
    "LeaseShares": st.builds(gateway.LeaseShares, st.lists(_demands, max_size=3).map(tuple)),
    "LeasedShares": st.builds(
        gateway.LeasedShares,
        st.lists(st.builds(Share, _floats, _floats), max_size=3).map(tuple),
        st.booleans(),
    ),
    "WatchClients": st.builds(gateway.WatchClients),
    "StoreUsage": st.builds(gateway.StoreUsage, st.lists(_usage, max_size=3).map(tuple)),
    "UsageStored": st.builds(gateway.UsageStored, _numbers),
    "ClientsRevision": st.builds(gateway.ClientsRevision, _numbers),
    "KeyStatus": _key_statuses,
    "KeyReport": st.builds(
        key_status.KeyReport,
        revision=st.none() | _numbers,
        epoch=st.none() | _texts,
        keys=st.lists(_key_statuses, max_size=3).map(tuple),
    ),
}


def test_every_message_is_tried() -> None:
    assert set(_BY_CLASS) == set(CLASSES)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_what_is_encoded_is_decoded_as_it_was(name: str) -> None:
    @settings(max_examples=50, deadline=None)
    @given(_BY_CLASS[name])
    def check(message: object) -> None:
        frame = codec.decode_frame(codec.encode_request(5, "m", message))
        assert isinstance(frame, codec.Request)
        assert codec.decode(frame.params[0], CLASSES[name]) == message

    check()


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(sorted(CLASSES)))
def test_hostile_bytes_are_refused_by_one_error(data: bytes, name: str) -> None:
    with contextlib.suppress(InvalidMessageError):
        codec.decode_frame(data)
    with contextlib.suppress(InvalidMessageError):
        _decode(data, name)


@settings(max_examples=200, deadline=None)
@given(_BY_CLASS["RowSet"], st.data())
def test_a_good_message_with_a_bad_byte_is_read_or_refused(message: object, data: Any) -> None:
    good = bytearray(bytes(codec.encode(message).raw))
    good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InvalidMessageError):
        _decode(bytes(good), "RowSet")


@pytest.mark.parametrize("name", sorted(CLASSES))
@pytest.mark.parametrize(
    "bomb",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 1_000_000,
        b"\x81\xa1z" + b"\x91" * 1_000_000,
        b"\x81\xa5token\xdd\x00\x01\x00\x00" + b"\x90" * (1 << 16),
        b"\x83\xa8revision\x01\xa3set\x01\xa4rows\xdd\x00\x01\x00\x00" + b"\x80" * (1 << 16),
    ],
)
def test_a_bomb_takes_no_memory(name: str, bomb: bytes) -> None:
    raw = msgspec.Raw(bomb)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidMessageError):
            codec.decode_frame(bomb)
        with contextlib.suppress(InvalidMessageError):  # unknown fields are skipped, whatever
            codec.decode(raw, CLASSES[name])
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()


def test_errors_show_no_value() -> None:
    bad = codec.encode({"token": ["sk-hidden"]}).raw
    with pytest.raises(InvalidMessageError) as refused:
        codec.decode(bad, gateway.Authorize)
    assert "hidden" not in repr(refused.value)
    with pytest.raises(UnsendableError) as unsendable:
        codec.encode(gateway.Authorize(Secret("sk-hidden\ud800")))
    assert "hidden" not in repr(unsendable.value)
    assert "hidden" not in repr(codec.encode(gateway.Authorize(Secret("sk-hidden"))))


@pytest.mark.parametrize(
    ("kind", "field", "most", "item"),
    [
        (messages.RowSet, "rows", messages.MAX_ROWS, {"id": "", "body": None}),
        (messages.Acknowledge, "rejected", messages.MAX_ROWS, {"name": "", "reason": ""}),
        (wire.ProviderRow, "keys", KEYS_LIMIT, "k"),
        (wire.ProviderRow, "headers", wire.MAX_ROW_HEADERS, ("h", "v")),
    ],
)
def test_lists_are_as_long_as_the_page_says_and_no_longer(
    kind: type, field: str, most: int, item: object
) -> None:
    row = {"id": "", "name": "", "type": "", "base_url": ""}
    for count in (most, most + 1):
        body = {**row, "set": 1, "revision": 1, field: [item] * count}
        raw = codec.encode(body).raw
        if count == most:
            assert len(getattr(codec.decode(raw, kind), field)) == most
        else:
            with pytest.raises(InvalidMessageError):
                codec.decode(raw, kind)


def test_unknown_fields_are_ignored() -> None:
    raw = codec.encode({"id": 7, "later": [{"deep": [1, 2]}]}).raw
    assert codec.decode(raw, messages.Cancel) == messages.Cancel(7)


@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1z", b"\xdd\0\0\0\x01", b"\x81"])
def test_what_is_nested_too_deep_to_find_its_end_is_no_frame(opening: bytes) -> None:
    for times in (2_000, 3_000_000):
        with pytest.raises(InvalidMessageError, match="nested too deeply") as refused:
            codec.decode_frame(b"\x93\x02\xa1m\x91" + opening * times + b"\xc0")
        assert refused.value.code == "malformed_frame"
        raw = msgspec.Raw(b"\x82\xa2id\x04\xa5later" + opening * times + b"\xc0")
        with pytest.raises(InvalidMessageError, match="nested too deeply") as refused:
            codec.decode(raw, messages.Cancel)
        assert refused.value.code == "invalid_params"


@pytest.mark.parametrize("filling", [b"\x90", b"\x91\x00", b"\xa1x", b"\x91" * 29 + b"\x00"])
def test_a_frame_full_of_the_unknown_costs_bounded_time_and_no_memory(filling: bytes) -> None:
    """It takes 0.05 s; the bound is loose because machines are shared."""
    times = (codec.MAX_FRAME_BYTES - 64) // len(filling)
    head = b"\x82\xa2id\x04\xa5later\xdd" + times.to_bytes(4, "big")
    raw = msgspec.Raw(head + filling * times)
    before = time.perf_counter()
    tracemalloc.start()
    try:
        assert codec.decode(raw, messages.Cancel) == messages.Cancel(4)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - before < 30


def test_a_message_with_something_unknown_is_checked_before_a_secret_is_made_of_it() -> None:
    tokens: list[object] = [[], "", 1, {"a": 1}]
    for token in tokens:
        raw = codec.encode({"token": token, "later": 1}).raw
        with pytest.raises(InvalidMessageError, match=r"invalid Authorize: .*token"):
            codec.decode(raw, gateway.Authorize)
    raw = codec.encode({"token": "t", "later": {"token": []}}).raw
    assert codec.decode(raw, gateway.Authorize) == gateway.Authorize(Secret("t"))


def test_the_names_of_unknown_fields_are_not_shown() -> None:
    raw = codec.encode({"sk-hidden": 1}).raw
    with pytest.raises(InvalidMessageError) as refused:
        codec.decode(raw, messages.Cancel)
    assert str(refused.value) == "invalid Cancel: Object missing required field `id`"


class Colour(enum.Enum):
    RED = "red"


def _positive(_: object, __: object, value: int) -> None:
    if value < 0:
        raise UnusableRowError("size: is negative")
    if value == 0:
        raise ValueError(f"{value} is not positive")


@attrs.frozen
class Shirt:
    size: int = attrs.field(validator=_positive)
    colour: Colour = Colour.RED


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"size": -1}, "size: is negative"),
        ({"size": 0}, "ValueError"),
        ({"size": 1, "colour": "hidden - at `$.x`"}, "unknown value - at `$.colour`"),
    ],
)
def test_what_a_class_of_the_user_refuses_is_told_without_a_value(
    fields: dict[str, object], reason: str
) -> None:
    with pytest.raises(InvalidMessageError) as refused:
        codec.decode(codec.encode(fields).raw, Shirt)
    assert str(refused.value) == f"invalid Shirt: {reason}"


@pytest.mark.parametrize("path", sorted(VECTORS.glob("*.json")), ids=lambda path: path.stem)
def test_the_vectors_say_what_the_bytes_mean(path: Path) -> None:
    vector = json.loads(path.read_text())
    data = bytes.fromhex(vector["hex"])
    if "error" in vector:
        with pytest.raises(InvalidMessageError) as refused:
            _decode_all(data, vector.get("message", "Cancel"))
        assert refused.value.code == vector["error"]
        return
    frame = codec.decode_frame(data)
    assert unpack(data) == vector["frame"]  # by a reader of a few lines, written from the page
    own = pack(vector["frame"])
    assert unpack(own) == vector["frame"]
    assert type(codec.decode_frame(own)) is type(frame)  # the long forms mean the same
    if "message" in vector:
        message = _decode_all(data, vector["message"])
        plain = unpack(bytes(codec.encode(message).raw))
        sent = vector["frame"][3] if vector["frame"][0] == 1 else vector["frame"][-1][0]
        assert sent | plain == plain | sent  # a field is as it was sent, if both have it


def _decode_all(data: bytes, name: str) -> object:
    frame = codec.decode_frame(data)
    raw = frame.result if isinstance(frame, codec.Response) else frame.params[0]
    return codec.decode(raw, CLASSES[name])


def _decode(data: bytes, name: str) -> object:
    return codec.decode(msgspec.Raw(data), CLASSES[name])
