"""The rows of AI providers: what a gateway makes of them, and what it keeps of bad ones."""

from collections.abc import Iterable
from typing import Any

import attrs
import msgspec

from bridgepool import Secret
from bridgepool.gateway._protocol import (
    STORED_ROWS,
    ProviderTable,
    named,
    provider_rows,
    provider_table,
)
from bridgepool.gateway.providers import OPENAI, PROVIDER_TYPES, Provider, ProviderType
from bridgepool.gateway.providers._wire import ProviderRow, row_document, row_from_provider
from bridgepool.remote import RowTable


def row(number: int = 1, **changes: Any) -> ProviderRow:
    plain = ProviderRow(
        id=str(number),
        name=f"openai-{number}",
        type="openai",
        base_url=f"https://api{number}.example.com/v1",
        keys=(Secret(f"sk-{number}"),),
    )
    return attrs.evolve(plain, **changes)


def made(*rows: ProviderRow, before: ProviderTable | None = None) -> ProviderTable:
    return (before or provider_table()).updated(named(rows))


def sent_table(types: Iterable[ProviderType] = PROVIDER_TYPES) -> RowTable[bytes, Provider]:
    rows = provider_rows(types, stand_ins=True)
    return RowTable(rows.read, rows.kept, rows.substituted)


def names(table: ProviderTable) -> list[str]:
    return [provider.name for provider in table.providers]


def test_each_field_of_a_row_arrives_in_the_provider() -> None:
    full = ProviderRow(
        id="1",
        name="claude",
        type="anthropic",
        base_url="http://127.0.0.1:9/v1/",
        keys=(Secret("a"), Secret("b")),
        headers=(("X-Org", Secret("o")),),
        allow_private=True,
    )
    other = row(2, keys=(), key_env="OPENAI_KEY")
    third = row(3, keys=(), client_keys=True)
    table = made(full, other, third)
    assert table.rejected == ()
    assert table.providers == (
        Provider(
            name="claude",
            type="anthropic",
            base_url="http://127.0.0.1:9/v1",
            keys=("a", "b"),
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


def test_a_row_that_was_sent_gives_the_same_provider_as_one_that_was_not() -> None:
    rows = [row(1), row(2, keys=(), key_env="OPENAI_KEY"), row(3, enabled=False)]
    sent = [STORED_ROWS.write(one) for one in rows]
    assert [(one.id, one.name) for one in sent] == [
        ("1", "openai-1"),
        ("2", "openai-2"),
        ("3", "openai-3"),
    ]
    table = sent_table()
    table = table.updated((one.id, one.name, bytes(one.body)) for one in sent)
    assert table.providers == made(*rows).providers
    assert table.rejected == ()


def test_a_field_of_a_newer_version_is_passed_on_and_ignored_where_it_is_unknown() -> None:
    newer = row(1, unknown={"of_the_future": {"a": [1]}})
    sent = STORED_ROWS.write(newer)
    body = msgspec.msgpack.decode(sent.body)
    assert body["of_the_future"] == {"a": [1]}
    assert body["keys"] == ["sk-1"]
    table = sent_table().updated([(sent.id, sent.name, bytes(sent.body))])
    assert table.providers == made(row(1)).providers


def test_a_gateway_reads_rows_of_the_types_that_it_knows() -> None:
    own = attrs.evolve(OPENAI, name="own")
    sent = STORED_ROWS.write(row(1, type="own"))
    rows = [(sent.id, sent.name, bytes(sent.body))]
    assert [each.type for each in sent_table([own]).updated(rows).providers] == ["own"]
    assert len(sent_table().updated(rows).rejected) == 1
    assert provider_table([own]).updated(named([row(1, type="own")])).rejected == ()


def test_nine_rows_of_ten_are_used_and_the_tenth_is_told_with_its_reason() -> None:
    rows = [row(number) for number in range(10)]
    rows[4] = row(4, type="model-of-the-future")
    table = made(*rows)
    assert [one.name for one in table.providers if one.problem is not None] == ["openai-4"]
    assert len(table.providers) == 10
    (rejected,) = table.rejected
    assert rejected.name == "openai-4"
    assert rejected.reason.startswith("type: is none of the known types")


def test_a_row_that_cannot_be_used_answers_that_it_is_misconfigured() -> None:
    unreadable = row(1, base_url="", keys=(), problem="it cannot be read")
    newer = row(2, type="model-of-the-future", enabled=False)
    other = row(3, name="openai-1", type="?")  # the first of the name counts
    nobody = row(4, name="No Name", problem="it cannot be read")  # no path leads to it
    table = made(unreadable, newer, other, nobody)
    assert [(one.name, one.enabled) for one in table.providers] == [
        ("openai-1", True),
        ("openai-2", False),
    ]
    assert [one.name for one in table.rejected] == ["openai-1", "openai-2", "openai-1", "No Name"]
    [first, second] = table.providers
    assert first.problem == table.rejected[0].reason == "it cannot be read"
    assert second.problem == table.rejected[1].reason
    # A snapshot file has them as rows, and reads the same again.
    assert made(*map(row_from_provider, table.providers)).providers == table.providers
    # The row is made good, and then bad again: its last good form is served.
    good = made(row(1), before=table)
    again = made(unreadable, before=good)
    assert good.providers == again.providers == made(row(1)).providers
    assert again.rejected == table.rejected[:1]


def test_what_was_sent_unreadable_is_rejected_with_that_reason() -> None:
    table = sent_table()
    for bad, reason in (
        (bytes(STORED_ROWS.write(row(1, problem="it cannot be read")).body), "cannot be read"),
        (bytes(STORED_ROWS.write(row(1, base_url="")).body), "base_url"),  # an older control plane
        (b"\x90", "object"),
    ):
        after = table.updated([("1", "openai-1", bad)])
        [provider], [rejected] = after.providers, after.rejected
        assert (provider.name, provider.problem) == ("openai-1", rejected.reason)
        assert reason in rejected.reason


def test_a_bad_row_that_says_disabled_disables_the_provider_and_forgets_its_keys() -> None:
    good = made(row(1))
    off = made(row(1, type="?", enabled=False), before=good)
    assert [(one.enabled, one.keys) for one in off.providers] == [(False, ())]
    assert off.rejected
    assert off.good == {}
    # Bad and enabled again, it has nothing to serve with.
    bad = made(row(1, type="?"), before=off)
    assert [(one.enabled, one.keys, one.problem is None) for one in bad.providers] == [
        (True, (), False)
    ]
    on = made(row(1), before=bad)
    assert on.providers == good.providers


def test_a_good_row_that_was_disabled_leaves_nothing_to_serve_a_bad_one_with() -> None:
    off = made(row(1, enabled=False), before=made(row(1)))
    bad = made(row(1, type="?"), before=off)
    assert [one.problem is None for one in bad.providers] == [False]


def test_a_bad_row_that_was_sent_disables_the_last_good_form_too() -> None:
    table = sent_table()
    table = table.updated([("1", "openai-1", bytes(STORED_ROWS.write(row(1)).body))])
    bad = bytes(STORED_ROWS.write(row(1, type="?", enabled=False)).body)
    after = table.updated([("1", "openai-1", bad)])
    assert [(provider.enabled, provider.keys) for provider in after.providers] == [(False, ())]
    assert [each.name for each in after.rejected] == ["openai-1"]


def test_a_disabled_row_holds_no_secret_in_any_form() -> None:
    header, unknown = (("x-team", Secret("team")),), {"of_the_future": "sk-1"}
    off = row(1, enabled=False, headers=header, unknown=unknown)
    assert (off.keys, off.headers, off.unknown) == ((), (), {})
    full = row(1, headers=header, unknown=unknown)
    assert attrs.evolve(full, enabled=False) == off
    old = msgspec.msgpack.encode(  # by a control plane of before
        {**row_document(full), "enabled": False}, enc_hook=Secret.reveal
    )
    assert b"sk-1" in old
    [provider] = sent_table().updated([("1", "openai-1", old)]).providers
    assert (provider.enabled, provider.keys, provider.headers) == (False, (), ())
    disabled = Provider(
        name="a", type="openai", base_url="https://a.example", keys=["sk-1"], enabled=False
    )
    assert row_from_provider(disabled).keys == ()
    assert b"sk-1" not in bytes(provider_rows().write(disabled).body)


def test_no_secret_and_no_url_stands_in_a_rejection() -> None:
    bad = row(1, name="x\n", base_url="https://user:hunter2@example.com", keys=(Secret("sk ew"),))
    (rejected,) = made(bad).rejected
    assert "hunter2" not in repr(rejected)
    assert "sk ew" not in repr(rejected)
    assert "\n" not in rejected.name
