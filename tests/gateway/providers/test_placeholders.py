"""Placeholders of other tools are refused as keys and header values, and never sent as such."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridgepool.gateway.providers import (
    InvalidProviderError,
    Provider,
    ProviderFileError,
    ProviderKeyError,
    parse_provider_file,
)

PLACEHOLDERS = [
    "$OPENAI_API_KEY",
    "${OPENAI_API_KEY}",
    "${OPENAI_API_KEY:-sk-default}",
    "$(OPENAI_API_KEY)",
    "${{secrets.OPENAI_API_KEY}}",
    "%OPENAI_API_KEY%",
    "{{openai_api_key}}",
    "{$OPENAI_API_KEY}",
    "{OPENAI_API_KEY}",
    "{env.OPENAI_API_KEY}",
    "{env:OPENAI_API_KEY}",
    "{file:/run/secrets/openai}",
    "os.environ/OPENAI_API_KEY",
    "os.environ['OPENAI_API_KEY']",
    "env:OPENAI_API_KEY",
    "file:///run/secrets/openai",
    "op://vault/openai/key",
    "<OPENAI_API_KEY>",
]
KEYS = [
    "sk-proj-Ab_9",
    "sk-ant-api03-a-b_c",
    "AIzaSyA-1",
    "a.b.c",
    "key$",
    "pa$$word",
    "100%",
    "<",
    '"',
    "it's",
]


def provider(**fields: object) -> Provider:
    row = {"name": "ai", "type": "openai", "base_url": "https://api.openai.com/v1"}
    return Provider(**{**row, **fields})  # type: ignore[arg-type]  # any field


@pytest.mark.parametrize("text", PLACEHOLDERS)
def test_a_placeholder_is_refused_as_a_key_and_not_quoted(text: str) -> None:
    with pytest.raises(
        InvalidProviderError, match=r"^keys: has a placeholder .* key_env$"
    ) as caught:
        provider(keys=["sk-good", text])
    assert text not in str(caught.value)


@pytest.mark.parametrize("text", PLACEHOLDERS)
@pytest.mark.parametrize("scheme", ["", "Bearer "])
def test_a_placeholder_is_refused_as_the_value_of_a_header(scheme: str, text: str) -> None:
    with pytest.raises(InvalidProviderError, match=r"^headers: has a placeholder for x-team "):
        provider(headers={"x-team": scheme + text})


@pytest.mark.parametrize("text", KEYS)
def test_what_only_looks_a_little_like_one_is_a_key(text: str) -> None:
    assert provider(keys=[text], headers={"x-team": text}).keys


@pytest.mark.parametrize("text", ["https://app.example/", "$5", "{}", "a {b} c", "team <a@b.c> x"])
def test_a_header_may_hold_what_no_key_does(text: str) -> None:
    assert provider(headers={"x-team": text}).headers


@pytest.mark.parametrize("text", PLACEHOLDERS)
def test_a_variable_that_holds_a_placeholder_makes_its_provider_unusable(text: str) -> None:
    with pytest.raises(ProviderKeyError, match="variable KEY holds a placeholder") as caught:
        provider(key_env="KEY").resolve_keys({"KEY": text})
    assert text not in str(caught.value)


@pytest.mark.parametrize("text", ['"sk-5ecre7"', "'sk-5ecre7'"])
def test_a_key_in_quotes_is_refused_and_not_sent_with_them(text: str) -> None:
    """`docker run --env-file` and other readers of such files keep the quotes of a value."""
    with pytest.raises(InvalidProviderError, match=r"^keys: has a key in quotes") as of_row:
        provider(keys=["sk-good", text])
    with pytest.raises(ProviderKeyError, match="variable KEY holds a key in quotes") as of_variable:
        provider(key_env="KEY").resolve_keys({"KEY": text})
    assert "5ecre7" not in f"{of_row.value} {of_variable.value}"


def test_a_provider_file_with_a_placeholder_names_the_row_and_the_field() -> None:
    text = (
        '[[providers]]\nname = "ai"\ntype = "openai"\nbase_url = "https://a.example"\n'
        'keys = ["os.environ/SECRET_NAME"]\nheaders = { x-team = "${SECRET_TEAM}" }\n'
    )
    with pytest.raises(ProviderFileError) as caught:
        parse_provider_file(text)
    first, second = caught.value.problems
    assert first.startswith("[[providers]] row 1 (ai): keys: has a placeholder")
    assert "key_env" in first
    assert second.startswith("[[providers]] row 1 (ai): headers: has a placeholder for x-team")
    assert "SECRET" not in str(caught.value)


def test_no_example_and_no_page_shows_a_placeholder_as_a_key() -> None:
    for page in (Path(__file__).parents[3] / "docs").rglob("*.md"):
        assert 'keys = ["$' not in page.read_text(encoding="utf-8"), page
