"""Providers as rows: any class can be sent, and a row that cannot be used costs that row alone."""

import dataclasses
import logging
from typing import Any

import attrs
import hypothesis
import hypothesis.strategies as st
import msgspec
import pytest
import trio
import trio.testing

from bridgepool import MemoryReloader, ProviderSnapshot, Secret
from bridgepool.remote import (
    RowFormat,
    RowTable,
    UnsendableError,
    UnusableRowError,
    open_remote_providers,
    open_remote_service,
)

from .rig import ROWS, Depot, row, usable

Table = RowTable[Depot, Depot]


def made(*rows: Depot, before: Table | None = None) -> Table:
    return (before or Table(usable)).updated((each.id, each.name, each) for each in rows)


def names(table: Table) -> list[str]:
    return [depot.name for depot in table.providers]


# -- formats


@attrs.frozen
class AsAttrs:
    name: str
    port: int = 80
    key: Secret | None = None


@dataclasses.dataclass(frozen=True)
class AsDataclass:
    name: str
    port: int = 80
    key: Secret | None = None


class AsStruct(msgspec.Struct, frozen=True):
    name: str
    port: int = 80
    key: Secret | None = None


@pytest.mark.parametrize("kind", [AsAttrs, AsDataclass, AsStruct])
def test_a_class_of_any_kind_is_sent_and_its_secrets_show_nowhere(kind: Any) -> None:
    rows = RowFormat.of(kind)
    provider = kind("north", 8080, Secret("hidden"))
    sent = rows.write(provider)
    assert (sent.id, sent.name) == ("north", "")
    assert rows.read(bytes(sent.body)) == provider
    assert "hidden" not in repr(sent) + repr(rows)
    old = msgspec.msgpack.encode({"name": "north", "later": [1]})
    assert rows.read(old) == kind("north")


@pytest.mark.parametrize("kind", [AsAttrs, AsDataclass, AsStruct])
@pytest.mark.parametrize(
    "row", [{}, {"name": 1}, {"name": "a", "key": ["hidden"]}, {"name": "a", "port": "hidden"}, []]
)
def test_a_row_that_does_not_fit_its_class_is_unusable_and_shows_no_value(
    kind: Any, row: object
) -> None:
    with pytest.raises(UnusableRowError) as unusable:
        RowFormat.of(kind).read(msgspec.msgpack.encode(row))
    assert unusable.value.reason
    assert "hidden" not in repr(unusable.value)


def test_two_functions_do_as_well_as_a_class() -> None:
    rows = RowFormat[complex](
        dict, lambda z: {"re": z.real, "im": z.imag}, lambda row: complex(**row), id=str
    )
    assert rows.write(1 + 2j).id == "(1+2j)"
    with pytest.raises(UnusableRowError, match=r"cannot be used \(TypeError\)"):
        rows.read(bytes(rows.write(1 + 2j).body))
    good = attrs.evolve(rows, from_row=lambda row: complex(row["re"], row["im"]))
    assert good.read(bytes(rows.write(1 + 2j).body)) == 1 + 2j
    with pytest.raises(UnusableRowError, match=r"KeyError"):
        good.read(msgspec.msgpack.encode({"re": 1}))


def test_an_id_and_a_name_are_fields_or_functions() -> None:
    by_field = RowFormat.of(Depot, id="id", name="name").write(row(1))
    assert (by_field.id, by_field.name) == ("1", "depot-1")
    by_function = RowFormat.of(Depot, id=lambda depot: depot.city.upper()).write(row(1))
    assert (by_function.id, by_function.name) == ("CITY-1", "")


@pytest.mark.parametrize(("kind", "named"), [(AsAttrs, {"id": "host"}), (str, {})])
def test_a_field_that_a_class_does_not_have_is_refused_at_once(kind: Any, named: Any) -> None:
    with pytest.raises(TypeError, match=f"{kind.__name__} has no field .*: name the field"):
        RowFormat.of(kind, **named)


def test_what_is_kept_of_a_bad_row_can_depend_on_the_row() -> None:
    rows = attrs.evolve(ROWS, keep=lambda last, bad: attrs.evolve(last, name=bad.name))
    bad = bytes(rows.write(row(1, city="?", name="moved")).body)
    assert rows.kept(row(1), bad) == row(1, name="moved")
    assert rows.kept(row(1), b"\x90") == row(1), "nothing of it can be read"
    assert ROWS.kept(row(1), bad) == row(1)


def test_what_stands_in_for_a_bad_row_is_made_of_what_can_be_read_of_it() -> None:
    def stand_in(name: str, bad: Depot | None, reason: str) -> Depot | None:
        return row(9, name=name, city=reason if bad is not None else "nothing")

    rows = attrs.evolve(ROWS, substitute=stand_in)
    bad = bytes(rows.write(row(1, city="?")).body)
    assert rows.substituted("depot-1", bad, "why") == row(9, name="depot-1", city="why")
    assert rows.substituted("a", b"\x90", "why") == row(9, name="a", city="nothing")
    assert ROWS.substituted("depot-1", bad, "why") is None


# -- tables


def test_a_form_that_is_not_kept_is_forgotten_and_something_stands_in_for_it() -> None:
    def keep(last: Depot, bad: Depot) -> Depot | None:
        return last if bad.name != "forget" else None

    def stand_in(name: str, bad: Depot, reason: str) -> Depot | None:
        return attrs.evolve(bad, city=reason) if name != "nobody" else None

    table = Table(usable, keep, stand_in)
    before = made(row(1), row(2), row(3), before=table)
    bad = [row(1, city="?"), row(2, city="?", name="forget"), row(3), row(4, city="?", name="x")]
    after = made(*bad, row(5, city="?", name="x"), row(6, city="?", name="nobody"), before=before)
    reason = "city: is not known here"
    assert after.providers == (
        row(1),
        row(2, name="forget", city=reason),
        row(3),
        row(4, name="x", city=reason),  # the first of the name
    )
    assert sorted(after.good) == ["1", "3"]
    assert len(after.rejected) == 5
    # A last good form has a better right to its name than what stands in for another row.
    other = row(7, city="?", name="depot-1")
    assert made(other, row(1, city="?", name="renamed"), before=before).providers == (row(1),)


def test_the_last_good_form_of_a_rejected_row_stays_in_its_place() -> None:
    before = made(row(1), row(2), row(3))
    after = made(row(1), row(2, city="?"), row(3, name="moved"), before=before)
    assert names(after) == ["depot-1", "depot-2", "moved"]
    assert after.providers[1] is before.providers[1]
    assert [each.name for each in after.rejected] == ["depot-2"]
    assert after.rejected[0].reason == "city: is not known here"
    again = made(row(1), row(2, city="?"), row(3, name="moved"), before=after)
    assert again.providers == after.providers
    assert again.rejected == after.rejected


def test_a_mended_row_is_used_again() -> None:
    bad = made(row(1, city="?"), before=made(row(1)))
    mended = made(row(1, city="new"), before=bad)
    assert mended.rejected == ()
    assert mended.providers[0].city == "new"


def test_a_removed_row_takes_its_last_good_form_with_it() -> None:
    bad = made(row(1), row(2, city="?"), before=made(row(1), row(2)))
    gone = made(row(1), before=bad)
    assert names(gone) == ["depot-1"]
    assert made(row(1), row(2, city="?"), before=gone).providers == gone.providers


def test_a_name_belongs_to_the_row_that_can_be_used() -> None:
    before = made(row(1, name="a"), row(2, name="b"))
    after = made(row(1, name="a", city="?"), row(2, name="a"), before=before)
    assert [(depot.name, depot.id) for depot in after.providers] == [("a", "2")]


def test_of_two_rows_with_one_name_or_one_id_the_first_is_used() -> None:
    table = made(row(1, name="a"), row(2, name="a"), row(1, name="c"))
    assert names(table) == ["a"]
    assert [each.reason for each in table.rejected] == [
        "another row has the same name",
        "another row has the same id",
    ]


def test_a_row_that_stays_gives_the_same_object_and_is_not_read_again() -> None:
    read: list[str] = []

    def counting(depot: Depot) -> Depot:
        read.append(depot.id)
        return depot

    before = made(row(1), row(2), before=Table(counting))
    after = made(row(2, name="other"), row(1), row(3), before=before)
    assert after.providers[1] is before.providers[0]
    assert read == ["1", "2", "2", "3"]
    made(row(2, name="other"), row(1), row(3), before=after)
    assert read == ["1", "2", "2", "3"]


def test_no_secret_and_no_line_break_stands_in_a_rejection() -> None:
    (rejected,) = made(row(1, name="x\n", city="?", door=Secret("hidden"))).rejected
    assert "hidden" not in repr(rejected)
    assert "\n" not in rejected.name


async def test_many_new_rows_are_read_in_turns_with_the_same_outcome() -> None:
    rows = [row(number, city="?" if number % 7 == 0 else "x") for number in range(300)]
    table = await Table(usable).updated_in_turns((each.id, each.name, each) for each in rows)
    assert table.providers == made(*rows).providers
    assert table.rejected == made(*rows).rejected


row_sets = st.lists(
    st.builds(
        row,
        st.integers(0, 4),
        name=st.sampled_from(["a", "b", "c"]),
        city=st.sampled_from(["x", "y", "?"]),
    ),
    max_size=6,
)


@hypothesis.given(st.lists(row_sets, min_size=1, max_size=4))
def test_whatever_comes_names_are_unique_and_every_row_is_accounted_for(
    sets: list[list[Depot]],
) -> None:
    table = Table(usable)
    for rows in sets:
        table = made(*rows, before=table)
        assert len(set(names(table))) == len(names(table))
        assert len(table.providers) + len(table.rejected) >= len(rows)
        good = [one for one in rows if one.city != "?"]
        assert len(table.rejected) <= len(rows)
        ids, unique = {one.id for one in rows}, {one.name for one in rows}
        if len(ids) == len(rows) == len(unique):
            assert len(table.rejected) == len(rows) - len(good)
            assert set(good) <= set(table.providers)


# -- what is wrong with a class is said where it is written


@attrs.frozen
class Numbered:
    """Identified by what is not a text."""

    name: int
    link: Any = None


@attrs.frozen
class Loose:
    """Its annotation does not say what a follower should make of the field."""

    name: str
    link: Any = None


def test_an_id_that_is_no_text_is_refused_at_the_owner_and_not_by_every_follower() -> None:
    with pytest.raises(UnsendableError, match="the id of a Numbered is a int, not a text"):
        RowFormat.of(Numbered).write(Numbered(7))
    with pytest.raises(UnsendableError, match="the name of a Loose is a NoneType, not a text"):
        RowFormat.of(Loose, name="link").write(Loose("north"))


def test_a_value_that_cannot_be_sent_is_named_by_its_type() -> None:
    with pytest.raises(UnsendableError, match="complex is not a type that can be sent") as caught:
        RowFormat.of(Loose).write(Loose("north", 17j))
    assert "17" not in str(caught.value)


def test_a_row_that_becomes_something_unhashable_costs_that_row_alone() -> None:
    """A tuple arrives as a list where the class does not say which it is."""
    rows = RowFormat.of(Loose)
    table = RowTable(rows.read).updated(
        (each.id, each.id, each.body)
        for each in (rows.write(Loose("north")), rows.write(Loose("south", ("a",))))
    )
    assert table.providers == (Loose("north"),)
    (rejected,) = table.rejected
    assert rejected.name == "south"
    assert rejected.reason == "it is not hashable: give its fields types such as tuple[str, ...]"


async def test_providers_that_cannot_be_sent_are_a_failed_reload_of_the_owner(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Each retry was logged as an unexpected exception, with its traceback."""
    source = MemoryReloader(ProviderSnapshot([Loose("north", 17j)]))
    nobody: Any = None
    rows, changes = RowFormat.of(Loose), source.subscribe()
    async with open_remote_service(rows, source, changes, admit=nobody):
        await trio.sleep(1)
    [record] = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert "reload failed: a Loose cannot be encoded" in record.getMessage()
    assert record.exc_info is None


async def test_a_class_in_place_of_its_format_is_refused() -> None:
    loose: Any = Loose
    source = MemoryReloader[Loose](ProviderSnapshot(()))
    nothing: Any = None
    with pytest.raises(TypeError, match=r"service needs a RowFormat, not Loose: write RowFormat"):
        async with open_remote_service(loose, source, source.subscribe(), admit=nothing):
            raise AssertionError("it was opened")
    with pytest.raises(TypeError, match=r"providers needs a RowFormat, not Loose: write RowFormat"):
        async with open_remote_providers(nothing, loose, name="front"):
            raise AssertionError("it was opened")


async def test_an_address_in_place_of_a_connector_is_refused() -> None:
    address: Any = "ws://127.0.0.1:9000"
    with pytest.raises(TypeError, match="connect is not callable: pass what websocket_connector"):
        async with open_remote_providers(address, RowFormat.of(Loose), name="front"):
            raise AssertionError("it was opened")
