import contextlib

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgepool import ProviderSnapshot, ReloadError, Secret
from bridgepool.gateway.providers import (
    OPENAI,
    PROVIDER_TYPES,
    Provider,
    ProviderFileError,
    hash_key,
    new_client_key,
    parse_provider_file,
)

HASH = hash_key(new_client_key())
GOOD = f"""
# the providers
[[providers]]
name = "openai"
type = "openai"
base_url = "https://api.openai.com/v1"
keys = ["sk-hunter2"]
enabled = true

[[providers]]
name = "claude"
type = "anthropic"
base_url = "https://api.anthropic.com"
key_env = "ANTHROPIC_API_KEY"
enabled = false
headers = {{ x-team = "hunter2" }}

[[clients]]
id = "alice"
key_hash = "{HASH}"
"""


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(ProviderFileError) as caught:
        parse_provider_file(text, "the/file.toml")
    assert "hunter2" not in str(caught.value)
    assert isinstance(caught.value, ReloadError)
    assert caught.value.path == "the/file.toml"
    assert str(caught.value) == f"the/file.toml: {'; '.join(caught.value.problems)}"
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return caught.value.problems


def row(**fields: str) -> str:
    good = {"name": '"a"', "type": '"openai"', "base_url": '"https://a.example"', "keys": "[]"}
    chosen = {key: value for key, value in {**good, **fields}.items() if value}
    return "[[providers]]\n" + "".join(f"{key} = {value}\n" for key, value in chosen.items())


def test_a_good_file_gives_providers_in_order_and_clients() -> None:
    file = parse_provider_file(GOOD)
    assert file.providers == (
        Provider(
            name="openai",
            type="openai",
            base_url="https://api.openai.com/v1",
            keys=[Secret("sk-hunter2")],
        ),
        Provider(
            name="claude",
            type="anthropic",
            base_url="https://api.anthropic.com",
            key_env="ANTHROPIC_API_KEY",
            enabled=False,
            headers={"x-team": "hunter2"},
        ),
    )
    assert [client.id for client in file.clients.rows] == ["alice"]
    assert file.snapshot == ProviderSnapshot(file.providers, None)
    assert parse_provider_file(GOOD) == file
    assert "hunter2" not in repr(file)


def test_no_providers_are_meant_only_when_the_file_says_so() -> None:
    assert parse_provider_file("providers = []").providers == ()
    for empty in ("", "\n", "# half wri", "allow_private = true"):
        assert problems(empty) == (
            "has no [[providers]]; write providers = [] if that is intended",
        )


def test_private_addresses_are_allowed_for_one_row_or_for_all() -> None:
    inside = {"base_url": '"http://127.0.0.1:8000/v1"'}
    assert parse_provider_file(row(**inside, allow_private="true")).providers[0].allow_private
    assert parse_provider_file("allow_private = true\n" + row(**inside)).providers[0].allow_private
    assert "allow_private = true" in problems(row(**inside))[0]
    assert problems("allow_private = true\n" + row(**inside, allow_private="false"))


def test_a_client_may_have_several_keys() -> None:
    other = hash_key(new_client_key())
    text = f'providers = []\n[[clients]]\nid = "a"\nkey_hashes = ["{HASH}", "{other}"]'
    assert parse_provider_file(text).clients.rows[0].key_hashes == (HASH, other)


def test_a_syntax_error_names_its_line() -> None:
    assert problems('[[providers]]\nname = "a\nkeys = ["sk-hunter2"]')[0].startswith(
        "line 2, column 10: is not TOML: "
    )
    assert problems('[[providers]]\nkeys = ["hunter2"')[0].startswith("end of document: is not")
    assert "given twice" in problems("hunter2 = 1\nhunter2 = 2")[0]
    assert "given twice" in problems("[hunter2]\n[hunter2]")[0]
    assert "given twice" in problems("x = { hunter2 = 1, hunter2 = 2 }")[0]


@pytest.mark.parametrize("text", ["x = " + "[" * 100_000, "x = " + "9" * 10_000])
def test_what_is_beyond_the_parser_is_refused_like_any_other_mistake(text: str) -> None:
    assert "beyond all bounds" in problems(text)[0]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("providers = 3", "providers: is not an array of tables ([[providers]])"),
        ("providers = [1]", "providers: is not an array of tables ([[providers]])"),
        ("[providers]\na = 1", "providers: is not an array of tables ([[providers]])"),
        ("providers = []\nclients = 1", "clients: is not an array of tables ([[clients]])"),
        ("providers = []\nallow_private = 1", "allow_private: is not true or false"),
        (
            "providers = []\nallow_privat = true",
            "allow_privat: is not a known field (did you mean allow_private?)",
        ),
        ("provider = []\nproviders = []", "provider: is not a known field (did you mean provid"),
        (row(name=""), "[[providers]] row 1: name: is missing"),
        (row(type=""), "[[providers]] row 1 (a): type: is missing"),
        (row(keys=""), "[[providers]] row 1 (a): keys: is missing; give keys or key_env, or"),
        (row(name="3"), "[[providers]] row 1: name: is not a string"),
        (row(name='"A"'), "[[providers]] row 1 (A): name: is not [a-z0-9] words"),
        (row(enabled='"yes"'), "[[providers]] row 1 (a): enabled: is not true or false"),
        (row(keys='"hunter2"'), "[[providers]] row 1 (a): keys: is not a list of strings"),
        (row(keys="[1]"), "[[providers]] row 1 (a): keys: is not a list of strings"),
        (row(headers="{ a = 1 }"), "[[providers]] row 1 (a): headers: is not a table of strings"),
        (
            row(base_ulr='"x"'),
            "[[providers]] row 1 (a): base_ulr: is not a known field (did you mean base_url?)",
        ),
        (row(zzz="1"), "[[providers]] row 1 (a): zzz: is not a known field"),
        (row(key_env='"KEY"'), "[[providers]] row 1 (a): key_env: is given beside keys"),
        (row(base_url='"https://u:hunter2@a/"'), "[[providers]] row 1 (a): base_url: has a user"),
        (row() + row(name='"b"', type='"x"'), "[[providers]] row 2 (b): type: is none of the"),
        (row(type='"openia"'), "[[providers]] row 1 (a): type: is none of the known types (anth"),
        (row(type='""'), "[[providers]] row 1 (a): type: is none of the known types (anthropic, "),
        (row() + row(), "[[providers]]: the name a is there twice"),
        ("providers = []\n[[clients]]", "[[clients]] row 1: id: is missing"),
        (
            'providers = []\n[[clients]]\nid = "al"',
            "[[clients]] row 1 (al): key_hash: give either key_hash or",
        ),
        (
            f'providers = []\n[[clients]]\nid = "al"\nkey_hash = "{HASH}"\nkey_hashes = []',
            "[[clients]] row 1 (al): key_hash: give either key_hash or",
        ),
        (
            'providers = []\n[[clients]]\nid = "al"\nkey_hash = "hunter2"',
            "[[clients]] row 1 (al): key_hash: has a value that `bridgepool hash-key` did not",
        ),
        (
            f'providers = []\n[[clients]]\nid = "al"\nkey_hash = "{HASH}"\n' * 1
            + f'[[clients]]\nid = "bo"\nkey_hash = "{HASH}"',
            "[[clients]]: key_hashes: key ",
        ),
    ],
)
def test_a_mistake_is_told_with_its_row_and_field(text: str, problem: str) -> None:
    told = problems(text)
    assert any(one.startswith(problem) for one in told), told


def test_all_mistakes_are_told_at_once() -> None:
    text = row(name='"A"') + row(name='"b"', enabled="1", zzz="1") + '[[clients]]\nid = "c"\n'
    assert [one.split(": ")[0] for one in problems(text)] == [
        "[[providers]] row 1 (A)",
        "[[providers]] row 2 (b)",
        "[[providers]] row 2 (b)",
        "[[clients]] row 1 (c)",
    ]


def test_all_mistakes_of_one_row_are_told_at_once() -> None:
    text = row(
        name='"A"',
        type='"openia"',
        base_url='"http://127.0.0.1"',
        keys='["hunter2 "]',
        headers='{ host = "hunter2" }',
    )
    assert [one.split(": ")[1] for one in problems(text)] == [
        *("type", "name", "keys", "headers", "base_url"),
    ]


def test_a_field_of_the_wrong_type_hides_no_other_mistake_of_its_row() -> None:
    text = row(
        name="5",
        base_url='"http://127.0.0.1"',
        allow_private='"yes"',
        retries="99",
        breaker_window='"long"',
        fallback='["a", "a"]',
        zzz="1",
    )
    assert [one.split(": ", 1)[1] for one in problems(text)] == [
        "zzz: is not a known field",
        "allow_private: is not true or false",
        "name: is not a string",
        "breaker_window: is not a number",
        "retries: is not from 0 to 10",
        "fallback: has the same name twice",
    ]
    both = 'allow_private = "yes"\n' + row(base_url='"http://127.0.0.1"')
    assert problems(both) == ("allow_private: is not true or false",)
    assert [one.split(": ")[1] for one in problems("[[providers]]\nretries = -1")] == [
        *("name", "type", "base_url", "keys", "retries"),
    ]


def test_a_type_of_the_program_is_known_when_the_program_says_so() -> None:
    own = attrs.evolve(OPENAI, name="own")
    text = row(type='"own"')
    assert problems(text)
    [made] = parse_provider_file(text, types=(*PROVIDER_TYPES, own)).providers
    assert made.type == "own"


def test_of_very_many_mistakes_the_first_are_told() -> None:
    told = problems(row(name='"A"') * 50)
    assert len(told) == 21
    assert told[-1] == "and 30 more"


def test_a_key_that_was_put_in_the_place_of_a_name_is_not_repeated() -> None:
    problems(row(name='"sk_' + "hunter2" * 6 + '"'))
    problems(row(**{"sk-hunter2": "1"}))
    problems("providers = []\n" + "hunter2" * 6 + " = 1")


@given(st.text(max_size=200))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with contextlib.suppress(ProviderFileError):
        parse_provider_file(text)


@given(st.integers(0, len(GOOD)), st.integers(0, len(GOOD)))
def test_any_part_of_a_file_is_parsed_or_refused_without_a_secret(start: int, end: int) -> None:
    try:
        parse_provider_file(GOOD[start:end])
    except ProviderFileError as error:
        told = str(error)
    else:
        return
    assert "hunter2" not in told


def test_how_many_keys_a_row_may_have_can_be_said() -> None:
    keys = ", ".join(f'"sk-{number}"' for number in range(6))
    text = row(name='"a"', keys=f"[{keys}]")
    with pytest.raises(ProviderFileError, match="more than 5 keys"):
        parse_provider_file(text)
    [made] = parse_provider_file(text, max_keys=6).providers
    assert len(made.keys) == 6
