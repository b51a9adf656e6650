"""The usage record and its page."""

import re
from pathlib import Path

import attrs

from bridgepool.gateway import UsageRecord
from bridgepool.gateway.proxy._usage import CLIENT_KINDS

_PAGE = (Path(__file__).parents[3] / "docs/howto/usage.md").read_text()


def test_the_page_has_every_field_of_the_record_in_order() -> None:
    table = _PAGE.partition("## The fields")[2].partition("\n\nThere is")[0]
    shown = re.findall(r"^\| `(\w+)` \|", table, re.M)
    assert shown == [field.name for field in attrs.fields(UsageRecord)]


def test_the_page_names_every_kind_of_client() -> None:
    assert [kind for _, kind in CLIENT_KINDS if f"`{kind}`" not in _PAGE] == []
