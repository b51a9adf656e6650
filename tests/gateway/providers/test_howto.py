"""The page about the provider file is true."""

import re
from pathlib import Path

import pytest

from bridgepool.gateway.providers import ANTHROPIC, OPENAI, parse_provider_file
from bridgepool.gateway.providers._fields import FIELD_NAMES

PAGE = (Path(__file__).parents[3] / "docs/howto/providers-file.md").read_text(encoding="utf-8")
FILES = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", FILES)
def test_every_file_on_the_page_is_good_once_its_keys_are_filled_in(text: str) -> None:
    parse_provider_file(text.replace("…", "0"))


def test_every_open_route_is_on_the_page() -> None:
    assert len(FILES) >= 5
    for kind in (OPENAI, ANTHROPIC):
        for route in kind.routes:
            assert f"`{route.path.decode('ascii')}`" in PAGE


def test_every_field_of_a_provider_is_on_the_page() -> None:
    table = PAGE.partition("## Fields of a provider\n")[2].partition("\n\nAn upstream")[0]
    assert tuple(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == FIELD_NAMES
