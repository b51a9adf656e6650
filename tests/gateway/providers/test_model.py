from typing import Any

import attrs
import pytest

from bridgepool import Secret
from bridgepool.gateway.providers import InvalidProviderError, Provider, ProviderKeyError

GOOD: dict[str, Any] = {
    "name": "openai",
    "type": "openai",
    "base_url": "https://api.openai.com/v1",
    "keys": ["sk-hunter2"],
}


def provider(**changes: Any) -> Provider:
    return Provider(**{**GOOD, **changes})


def test_a_plain_provider_is_enabled_public_and_calls_with_its_keys() -> None:
    made = provider()
    assert made.enabled
    assert not made.allow_private
    assert made.keys == (Secret("sk-hunter2"),)
    assert made.resolve_keys({}) == made.keys


def test_two_spellings_of_one_provider_are_equal_and_hash_alike() -> None:
    other = provider(base_url="HTTPS://API.openai.com:443/v1/", keys=(Secret("sk-hunter2"),))
    assert other == provider()
    assert len({other, provider(), provider(base_url=other.base_url)}) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"type": "anthropic"},
        {"base_url": "https://api.openai.com/v2"},
        {"keys": ["sk-other"]},
        {"keys": ["sk-hunter2", "sk-other"]},
        {"keys": [], "key_env": "KEY"},
        {"keys": [], "client_keys": True},
        {"enabled": False},
        {"headers": {"openai-organization": "org"}},
        {"allow_private": True},
    ],
)
def test_a_change_of_anything_makes_another_provider(change: dict[str, Any]) -> None:
    assert provider(**change) != provider()


def test_every_field_is_covered_by_equality() -> None:
    assert all(field.eq for field in attrs.fields(Provider))


@pytest.mark.parametrize("name", ["a", "openai", "a-b-2", "0", "a" * 64])
def test_names_are_words_joined_by_a_dash(name: str) -> None:
    assert provider(name=name).name == name


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "A"}, "name"),
        ({"name": "a_b"}, "name"),
        ({"name": "-a"}, "name"),
        ({"name": "a-"}, "name"),
        ({"name": "a--b"}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": "a\n"}, "name"),
        ({"name": "a" * 65}, "name"),
        ({"name": "ä"}, "name"),
        ({"base_url": "hunter2"}, "base_url"),
        ({"base_url": "http://127.0.0.1:8000/v1"}, "base_url"),
        ({"base_url": "http://localhost/v1"}, "base_url"),
        ({"base_url": "http://[::1]/v1"}, "base_url"),
        ({"keys": "sk-hunter2"}, "keys"),
        ({"keys": [""]}, "keys"),
        ({"keys": ["hunter2\r\nx-evil: 1"]}, "keys"),
        ({"keys": ["hunter2 "]}, "keys"),
        ({"keys": ["hunter2é"]}, "keys"),
        ({"keys": ["hunter2", "hunter2"]}, "keys"),
        ({"keys": [f"key-{number}" for number in range(65)]}, "keys"),
        ({"key_env": "KEY"}, "key_env"),
        ({"keys": [], "key_env": "sk-hunter2"}, "key_env"),
        ({"keys": [], "key_env": ""}, "key_env"),
        ({"client_keys": True}, "client_keys"),
        ({"keys": [], "key_env": "KEY", "client_keys": True}, "client_keys"),
        ({"headers": {"x y": "hunter2"}}, "headers"),
        ({"headers": {"": "hunter2"}}, "headers"),
        ({"headers": {"X-A": "1", "x-a": "hunter2"}}, "headers"),
        ({"headers": {"Host": "hunter2"}}, "headers"),
        ({"headers": {"authorization": "hunter2"}}, "headers"),
        ({"headers": {"x-bridgepool-key": "hunter2"}}, "headers"),
        ({"headers": {"transfer-encoding": "hunter2"}}, "headers"),
        ({"headers": {"x-a": "hunter2\r\nx-b: 1"}}, "headers"),
        ({"headers": {"x-a": " hunter2"}}, "headers"),
        ({"headers": {"x-a": ""}}, "headers"),
    ],
)
def test_a_field_that_is_not_usable_is_named_and_no_secret_is_repeated(
    change: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidProviderError) as caught:
        provider(**change)
    assert caught.value.field == field
    assert str(caught.value) == f"{field}: {caught.value.problem}"
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/v1", "http://localhost", "http://[::1]"])
def test_an_address_inside_is_allowed_when_the_operator_says_so(url: str) -> None:
    assert provider(base_url=url, allow_private=True).base_url.host_is_private


def test_a_key_in_the_environment_is_looked_up_when_it_is_asked_for() -> None:
    made = provider(keys=[], key_env="OPENAI_API_KEY")
    assert made.resolve_keys({"OPENAI_API_KEY": " sk-env\n"}) == (Secret("sk-env"),)


@pytest.mark.parametrize("value", [None, "", "  ", "a b", "hunter2\x00", "hunter2\udc80"])
def test_a_variable_without_a_usable_key_is_that_providers_own_trouble(value: str | None) -> None:
    made = provider(keys=[], key_env="OPENAI_API_KEY")
    with pytest.raises(ProviderKeyError, match="OPENAI_API_KEY") as caught:
        made.resolve_keys({} if value is None else {"OPENAI_API_KEY": value})
    assert (caught.value.provider, caught.value.variable) == ("openai", "OPENAI_API_KEY")
    assert caught.value.status_hint == 503
    assert "hunter2" not in str(caught.value)


def test_header_names_are_kept_in_lower_case_and_their_values_are_secrets() -> None:
    made = provider(headers={"OpenAI-Organization": "org-hunter2"})
    assert made.headers == (("openai-organization", Secret("org-hunter2")),)
    assert "hunter2" not in repr(made)
