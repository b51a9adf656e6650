"""Messages with many rows: read as ever, and rows that come again are not made again."""

import contextlib
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from bridgepool import Secret
from bridgepool.gateway.providers._wire import ProviderRow
from bridgepool.remote import _codec as codec
from bridgepool.remote._errors import InvalidMessageError
from bridgepool.remote._messages import Changed, ProviderSet, Revisions
from bridgepool.remote._row_reader import RowReader

from .foreign import pack
from .rig import row


def raw(message: object) -> msgspec.Raw:
    return codec.encode(message).raw


def read(reader: RowReader, rows: tuple[ProviderRow, ...] | None) -> tuple[ProviderRow, ...]:
    found = reader.decode(raw(Changed(Revisions(1, 1, 1), rows)), Changed).rows
    assert found is not None
    assert found == rows
    return found


def test_only_rows_that_changed_are_made_anew() -> None:
    reader = RowReader()
    first = read(reader, (row(1), row(2), row(3)))
    second = read(reader, (row(3), row(2, enabled=False), row(1), row(4)))
    assert second[0] is first[2]
    assert second[1] is not first[1]
    assert second[2] is first[0]
    third = reader.decode(raw(ProviderSet(Revisions(2, 2, 2), (row(4), row(2)))), ProviderSet).rows
    assert third is not None
    assert third[0] is second[3]
    assert third[1] is not first[1]  # it did not come last time


def test_a_message_without_rows_forgets_none() -> None:
    reader = RowReader()
    first = read(reader, (row(1),))
    assert reader.decode(raw(Changed(Revisions(2, 1, 2))), Changed) == Changed(Revisions(2, 1, 2))
    none = reader.decode(raw(ProviderSet(Revisions(2, 1, 2), None)), ProviderSet)
    assert none == ProviderSet(Revisions(2, 1, 2), None)
    assert read(reader, (row(1),))[0] is first[0]


def test_a_row_that_comes_twice_is_there_twice() -> None:
    assert len(read(RowReader(), (row(1), row(1)))) == 2


def test_a_bad_message_is_refused_and_forgets_nothing() -> None:
    reader = RowReader()
    first = read(reader, (row(1),))
    bad = msgspec.Raw(pack({"revisions": {"revision": 1, "providers": 1, "clients": 1}, "rows": 5}))
    with pytest.raises(InvalidMessageError):
        reader.decode(bad, Changed)
    assert read(reader, (row(1),))[0] is first[0]


def test_it_shows_no_secret() -> None:
    reader = RowReader()
    read(reader, (row(1),))
    assert "sk-1" not in repr(reader)


revisions = st.builds(Revisions, *[st.integers(0, 9)] * 3)
some_rows = st.lists(
    st.builds(
        row,
        st.integers(1, 3),
        enabled=st.booleans(),
        name=st.sampled_from("ab"),
        headers=st.sampled_from([(), (("x-team", Secret("platform")),)]),
    ),
    max_size=4,
).map(tuple)
answers = st.builds(Changed, revisions, st.none() | some_rows) | st.builds(
    ProviderSet, revisions, st.none() | some_rows
)


@given(st.lists(answers, max_size=6), st.data())
def test_whatever_comes_it_reads_as_the_codec_does(
    sent: list[Changed | ProviderSet], data: st.DataObject
) -> None:
    """Good messages, those of a newer version, and damaged ones, in any order."""
    reader = RowReader()
    for message in sent:
        wire = bytearray(bytes(raw(message)))
        how = data.draw(st.sampled_from(["good", "damaged", "cut", "newer"]))
        if how == "damaged":
            wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
        elif how == "cut":
            del wire[data.draw(st.integers(0, len(wire))) :]
        elif how == "newer":
            wire = bytearray(pack({**msgspec.msgpack.decode(wire), "more": [1, {"a": None}]}))
        assert outcome(reader.decode, wire, type(message)) == outcome(
            codec.decode, wire, type(message)
        )


def outcome(decode: Any, wire: bytearray, kind: type) -> object:
    with contextlib.suppress(InvalidMessageError):
        return decode(msgspec.Raw(bytes(wire)), kind)
    return "refused"
