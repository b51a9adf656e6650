"""From rows to providers: one bad row is its own trouble."""

from typing import Any

import attrs
import hypothesis
import hypothesis.strategies as st

from bridgepool import Secret
from bridgepool.gateway.providers import Provider
from bridgepool.gateway.providers._wire import ProviderRow
from bridgepool.remote._rows import ProviderTable, TableBuilder


def row(number: int = 1, **changes: Any) -> ProviderRow:
    plain = ProviderRow(
        id=str(number),
        name=f"openai-{number}",
        type="openai",
        base_url=f"https://api{number}.example.com/v1",
        keys=(Secret(f"sk-{number}"),),
    )
    return attrs.evolve(plain, **changes)


def names(table: ProviderTable) -> list[str]:
    return [provider.name for provider in table.providers]


def test_each_field_of_a_row_arrives_in_the_provider() -> None:
    full = ProviderRow(
        id="1",
        name="claude",
        type="anthropic",
        base_url="http://127.0.0.1:9/v1/",
        keys=(Secret("a"), Secret("b")),
        enabled=False,
        headers=(("X-Org", Secret("o")),),
        allow_private=True,
    )
    other = row(2, keys=(), key_env="OPENAI_KEY")
    third = row(3, keys=(), client_keys=True)
    table = ProviderTable().updated([full, other, third])
    assert table.rejected == ()
    assert table.providers == (
        Provider(
            name="claude",
            type="anthropic",
            base_url="http://127.0.0.1:9/v1",
            keys=("a", "b"),
            enabled=False,
            headers={"x-org": "o"},
            allow_private=True,
        ),
        Provider(
            name="openai-2",
            type="openai",
            base_url="https://api2.example.com/v1",
            key_env="OPENAI_KEY",
        ),
        Provider(
            name="openai-3",
            type="openai",
            base_url="https://api3.example.com/v1",
            client_keys=True,
        ),
    )


def test_nine_rows_of_ten_are_used_and_the_tenth_is_told_with_its_reason() -> None:
    rows = [row(number) for number in range(10)]
    rows[4] = row(4, type="model-of-the-future")
    table = ProviderTable().updated(rows)
    assert len(table.providers) == 9
    (rejection,) = table.rejected
    assert rejection.name == "openai-4"
    assert rejection.reason.startswith("type: is none of the known types")


def test_the_last_good_form_of_a_rejected_row_stays_in_its_place() -> None:
    before = ProviderTable().updated([row(1), row(2), row(3)])
    after = before.updated([row(1), row(2, base_url="ftp://no"), row(3, name="moved")])
    assert names(after) == ["openai-1", "openai-2", "moved"]
    assert after.providers[1] is before.providers[1]
    assert [rejection.name for rejection in after.rejected] == ["openai-2"]
    again = after.updated([row(1), row(2, base_url="ftp://no"), row(3, name="moved")])
    assert again.providers == after.providers
    assert again.rejected == after.rejected


def test_a_mended_row_is_used_again() -> None:
    good = ProviderTable().updated([row(1)])
    bad = good.updated([row(1, type="?")])
    mended = bad.updated([row(1, base_url="https://new.example.com")])
    assert mended.rejected == ()
    assert str(mended.providers[0].base_url) == "https://new.example.com"


def test_a_removed_row_takes_its_last_good_form_with_it() -> None:
    good = ProviderTable().updated([row(1), row(2)])
    bad = good.updated([row(1), row(2, type="?")])
    gone = bad.updated([row(1)])
    assert names(gone) == ["openai-1"]
    assert gone.updated([row(1), row(2, type="?")]).providers == gone.providers


def test_a_bad_row_that_says_disabled_disables_the_last_good_form() -> None:
    good = ProviderTable().updated([row(1)])
    off = good.updated([row(1, type="?", enabled=False)])
    assert [provider.enabled for provider in off.providers] == [False]
    assert off.rejected
    on = off.updated([row(1)])
    assert on.providers == good.providers


def test_a_name_belongs_to_the_row_that_can_be_used() -> None:
    before = ProviderTable().updated([row(1, name="a"), row(2, name="b")])
    after = before.updated([row(1, name="a", type="?"), row(2, name="a")])
    assert names(after) == ["a"]
    assert str(after.providers[0].base_url) == "https://api2.example.com/v1"


def test_of_two_rows_with_one_name_or_one_id_the_first_is_used() -> None:
    table = ProviderTable().updated([row(1, name="a"), row(2, name="a"), row(1, name="c")])
    assert names(table) == ["a"]
    assert [rejection.reason for rejection in table.rejected] == [
        "another row has the same name",
        "another row has the same id",
    ]


def test_a_row_that_stays_gives_the_same_object_and_is_not_checked_again() -> None:
    before = ProviderTable().updated([row(1), row(2)])
    builder = TableBuilder(before)
    assert builder.add(row(1)) is False
    assert builder.add(row(2, name="other")) is True
    assert builder.finish().providers[0] is before.providers[0]


def test_no_secret_and_no_url_stands_in_a_rejection() -> None:
    bad = row(1, name="x\n", base_url="https://user:hunter2@example.com", keys=(Secret("sk ew"),))
    (rejection,) = ProviderTable().updated([bad]).rejected
    assert "hunter2" not in repr(rejection)
    assert "sk ew" not in repr(rejection)
    assert "\n" not in rejection.name


row_sets = st.lists(
    st.builds(
        row,
        st.integers(0, 4),
        name=st.sampled_from(["a", "b", "c", "BAD"]),
        type=st.sampled_from(["openai", "anthropic", "?"]),
        enabled=st.booleans(),
    ),
    max_size=6,
)


@hypothesis.given(st.lists(row_sets, min_size=1, max_size=4))
def test_whatever_comes_names_are_unique_and_every_row_is_accounted_for(
    sets: list[list[ProviderRow]],
) -> None:
    table = ProviderTable()
    for rows in sets:
        table = table.updated(rows)
        assert len(set(names(table))) == len(names(table))
        assert len(table.providers) + len(table.rejected) >= len(rows)
        good = [one for one in rows if one.name != "BAD" and one.type != "?"]
        assert len(table.rejected) <= len(rows)
        if len({one.id for one in rows}) == len(rows) and len({one.name for one in rows}) == len(
            rows
        ):
            assert len(table.rejected) == len(rows) - len(good)
            for one in good:
                made = next(found for found in table.providers if found.name == one.name)
                assert made.enabled == one.enabled
                assert made.type == one.type
