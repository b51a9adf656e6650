"""Fields that are lists, that have bounds or choices: wherever a provider is read or sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bridgepool.gateway.control._documents import parse_draft
from bridgepool.gateway.control._errors import InvalidChangeError
from bridgepool.gateway.control._records import ProviderPatch
from bridgepool.gateway.control.operations._providers import _FIELDS
from bridgepool.gateway.control.store import Store
from bridgepool.gateway.control.store._provider_settings import Rules
from bridgepool.gateway.providers import (
    PROVIDER_TYPES,
    InvalidProviderError,
    Provider,
    ProviderFileError,
    parse_provider_file,
)
from bridgepool.gateway.providers._wire import (
    ALWAYS_SENT,
    ProviderRow,
    provider_from_row,
    row_document,
    row_from_provider,
)
from tests.gateway.control.stores import ADA, draft, opened

SET: dict[str, Any] = {
    "breaker": True,
    "breaker_failures": 3,
    "breaker_window": 5,
    "breaker_open": 1.5,
    "retries": 2,
    "retry_on": ["timeout", "503"],
    "retry_budget": 0.5,
    "fallback": ["other", "third"],
    "max_concurrent": 7,
    "max_waiting": 0,
    "wait_timeout": 0.25,
}
WRONG = [
    ("breaker", 1, "is not true or false"),
    ("breaker_failures", 0, "is not from 1 to 1000"),
    ("breaker_failures", 2.0, "is not a whole number"),
    ("breaker_window", float("nan"), "is not from 0.1 to 3600"),
    ("breaker_open", float("inf"), "is not from 0.1 to 3600"),
    ("breaker_open", 10**400, "is not from 0.1 to 3600"),
    ("retries", -1, "is not from 0 to 10"),
    ("retry_budget", True, "is not a number"),
    ("retry_on", "503", "is not a list of strings"),
    ("retry_on", [503], "is not a list of strings"),
    ("retry_on", ["404"], "is not one of connect, timeout, cut, 500, 502, 503, 504, 529"),
    ("fallback", ["Not A Name"], "is not a list of names of providers"),
    ("fallback", ["two", "two"], "has the same name twice"),
    ("fallback", ["one", "two"], "has the provider itself"),
    ("fallback", [f"p{n}" for n in range(9)], "has more than 8 names"),
]


def fields(**more: Any) -> dict[str, Any]:
    return {"name": "one", "type": "openai", "base_url": "https://one.example/v1", **more}


def toml(**more: Any) -> str:
    text = "".join(f"{name} = {json.dumps(value)}\n" for name, value in fields(**more).items())
    text = text.replace("NaN", "nan").replace("Infinity", "inf")
    return f"[[providers]]\nkeys = []\n{text}"


def as_used(provider: Any) -> dict[str, Any]:
    values = {name: getattr(provider, name) for name in SET}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def test_a_file_and_the_api_read_them() -> None:
    [provider] = parse_provider_file(toml(**SET)).providers
    assert as_used(provider) == SET
    assert as_used(parse_draft(fields(**SET))) == SET
    assert hash(provider) == hash(Provider(**fields(**SET)))


def test_retries_of_no_failure_are_refused_in_files_and_stores() -> None:
    wrong: dict[str, Any] = {"retries": 2, "retry_on": []}
    with pytest.raises(ProviderFileError, match="retry_on: is empty, so nothing would be retried"):
        parse_provider_file(toml(**wrong))
    with pytest.raises(InvalidChangeError, match="retry_on"):
        Rules(5, PROVIDER_TYPES).content_of_draft(parse_draft(fields(**wrong)))
    assert parse_provider_file(toml(retry_on=[])).providers[0].retry_on == ()


@pytest.mark.parametrize(("name", "value", "problem"), WRONG)
def test_a_value_that_is_none_of_the_field_is_refused_in_files_and_stores(
    name: str, value: object, problem: str
) -> None:
    with pytest.raises(ProviderFileError) as in_file:
        parse_provider_file(toml(**{name: value}))
    assert any(f"{name}: {problem}" in text for text in in_file.value.problems)
    with pytest.raises(InvalidChangeError) as in_store:
        Rules(5, PROVIDER_TYPES).content_of_draft(parse_draft(fields(**{name: value})))
    assert [text.startswith(f"{name}: {problem}") for text in in_store.value.problems] == [True]


@pytest.mark.parametrize(("name", "value", "problem"), WRONG[-5:])
def test_a_value_beyond_its_bounds_makes_no_provider(
    name: str, value: object, problem: str
) -> None:
    with pytest.raises(InvalidProviderError) as made:
        Provider(**fields(**{name: value}))
    assert (made.value.field, problem in str(made.value)) == (name, True)


def test_a_file_says_that_a_fallback_is_of_another_type_and_takes_unknown_names() -> None:
    first = toml(fallback=["later", "two"])
    second = toml().replace('"one"', '"two"')
    assert len(parse_provider_file(first + second).providers) == 2
    with pytest.raises(ProviderFileError, match="the fallback two of one is of another type"):
        parse_provider_file(first + second.replace('"openai"', '"anthropic"'))


def test_a_row_has_them_only_where_they_are_used() -> None:
    bare = row_document(row_from_provider(Provider(**fields())))
    assert set(bare) == {"id", *ALWAYS_SENT}
    full = Provider(**fields(**SET))
    document = row_document(row_from_provider(full))
    assert set(document) == {"id", *ALWAYS_SENT, *SET}
    row = msgspec.convert(msgspec.json.decode(msgspec.json.encode(document)), ProviderRow)
    assert provider_from_row(row) == full


def test_the_description_of_the_api_says_what_they_may_be() -> None:
    assert _FIELDS["retry_budget"]["type"] == "number"
    assert (_FIELDS["retry_budget"]["minimum"], _FIELDS["retry_budget"]["maximum"]) == (0, 1)
    assert _FIELDS["retry_on"]["items"] == {
        "type": "string",
        "enum": ["connect", "timeout", "cut", "500", "502", "503", "504", "529"],
    }
    assert _FIELDS["fallback"]["type"] == "array"


async def test_a_store_keeps_them_and_a_seed_with_them_is_no_drift(tmp_path: Path) -> None:
    async with opened(f"{tmp_path}/store.db") as store:
        for text in (toml(), toml(**SET)):
            await seeded(store, text)
        await store.add_provider(ADA, draft("two", "key", **SET))
        views = {view.name: as_used(view) for view in await store.list_providers()}
    assert views == {"one": SET, "two": SET}


async def seeded(store: Store, text: str) -> None:
    await store.seed(parse_provider_file(text))
    again = await store.seed(parse_provider_file(text))
    assert (again.applied, again.drift) == ((), ())


async def test_a_store_refuses_a_fallback_of_another_type_and_takes_unknown_names(
    tmp_path: Path,
) -> None:
    other, two = draft("claude", "key", type="anthropic"), draft("two", type="anthropic")
    async with opened(f"{tmp_path}/store.db") as store:
        await store.add_provider(ADA, other)
        for change in (
            store.add_provider(ADA, draft("one", "key", fallback=("later", "claude"))),
            store.apply_providers(ADA, [draft("one", "key", fallback=("claude",))]),
            store.apply_providers(ADA, [draft("one", fallback=("two",)), two]),
        ):
            with pytest.raises(InvalidChangeError, match=r"fallback: .* is of another type"):
                await change
        await store.add_provider(ADA, draft("one", "key", fallback=("later",)))
        with pytest.raises(InvalidChangeError, match="fallback: claude is of another type"):
            await store.update_provider(ADA, "one", ProviderPatch(fallback=("claude",)))
        await store.add_provider(ADA, draft("later", "key"))
        await store.update_provider(ADA, "one", ProviderPatch(enabled=False))
