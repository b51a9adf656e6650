"""Price tables: what tokens cost, what unknown models cost, what is refused."""

import re
from pathlib import Path

import pytest

from bridgepool.gateway._price_file import read_price_table
from bridgepool.gateway.limits._prices import PriceTableError, parse_prices
from bridgepool.gateway.serving._listening import StartError
from tests.examples.support import ROOT

ROW = '[[models]]\nmodel = "a*"\ninput = 1\noutput = 2\n'


def test_the_sample_has_a_price_for_each_model_of_the_pages_at_their_providers() -> None:
    """Its provider was a type, and it had no row for the model of the README."""
    table = parse_prices((ROOT / "examples" / "prices.toml").read_text(encoding="utf-8"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "howto" / "providers-file.md").read_text(encoding="utf-8")
    asked = re.findall(r'"model": "(gpt[^"]*)"', readme)
    names = re.findall(r'name = "(.*?)".*\ntype = "(.*?)"', page)
    assert asked
    assert {kind for _name, kind in names} == {"openai", "anthropic"}
    for name, kind in names:
        for model in asked if kind == "openai" else ["claude-sonnet-5"]:
            assert table.price_of(name, model) is not table.unknown, (name, model)
    million = 10**6
    assert table.currency == "USD"
    assert table.cost("openai", "gpt-5-mini-2026", million, million) == pytest.approx(2.25)
    with_cache = table.cost("claude-eu", "claude-sonnet-5", million, 0, 500_000, 250_000)
    assert with_cache == pytest.approx(0.25 * 3 + 0.5 * 0.3 + 0.25 * 3.75)
    assert table.cost("other", "claude-sonnet-5", million, million) == pytest.approx(50)
    assert table.cost("openai", "", million, 0) == pytest.approx(10)


def test_without_a_price_for_others_they_cost_as_much_as_the_dearest() -> None:
    table = parse_prices(ROW + '[[models]]\nmodel = "b"\ninput = 3\noutput = 1\ncached_read = 0')
    assert table.cost("p", "a", 10**6, 10**6) == 3
    assert table.cost("p", "b", 10**6, 0, cached_read=10**6) == 0
    assert table.cost("p", "unknown", 10**6, 10**6) == 5
    assert table.price_of("p", "unknown") is table.unknown


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "has no [[models]]"),
        ("models = []", "has no [[models]]"),
        ("[[models", "is not TOML"),
        ("[[models]]\nmodel = 1", "row 1: model: is not a pattern"),
        ('[[models]]\nmodel = "a"\ninput = 1', "row 1: output: is missing"),
        ("[[models]]\ninput = 1\noutput = 1", "row 1: model: is missing"),
        (ROW + ROW.replace("1", "-1"), "row 2: input: is not a number, 0 or more"),
        (ROW.replace("2", "nan"), "row 1: output: is not a number, 0 or more"),
        (ROW.replace("2", "true"), "row 1: output: is not a number, 0 or more"),
        (ROW + "price = 1", "row 1: price: is not one of cached_read, cached_write, input"),
        (ROW + "[unknown]\ninput = 1", "[unknown]: output: is missing"),
        ("unknown = 1\n" + ROW, "unknown: is not a table"),
        ("currency = 1\n" + ROW, "currency: is not a name"),
        ('currency = ""\n' + ROW, "currency: is not a name"),
        ("x = 1\n" + ROW, "x: is not one of currency, models, unknown"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_the_reason(text: str, problem: str) -> None:
    with pytest.raises(PriceTableError, match=re.escape(problem)):
        parse_prices(text)


def test_all_that_is_wrong_with_a_table_is_reported_at_once() -> None:
    text = 'curency = "EUR"\n' + ROW.replace("input = 1", 'input = "1"') + "[unknown]\noutput = -1"
    with pytest.raises(PriceTableError) as refused:
        parse_prices(text)
    assert str(refused.value).split("; ") == [
        "curency: is not one of currency, models, unknown",
        "[[models]] row 1: input: is not a number, 0 or more",
        "[unknown]: input: is missing",
        "[unknown]: output: is not a number, 0 or more",
    ]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"\xff", "is not UTF-8"),
        (b"", "has no [[models]]"),
    ],
)
def test_a_price_table_that_cannot_be_used_is_named(
    content: bytes | None, problem: str, tmp_path: Path
) -> None:
    file = tmp_path / "prices.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(StartError) as refused:
        read_price_table(file)
    assert str(refused.value) == f"--price-table {file}: {problem}"
