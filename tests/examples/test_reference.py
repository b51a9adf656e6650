"""The reference shows docstrings as they were written: `docs/conf.py` corrects what makes it."""

from __future__ import annotations

import runpy
from typing import Any

import pytest
from sphinx.ext.napoleon.docstring import GoogleDocstring

from bridgepool import JSON, ReplaceOutcome
from bridgepool.http import HttpLimits
from bridgepool.remote import PROTOCOL
from tests.examples.support import ROOT

CONF: dict[str, Any] = runpy.run_path(str(ROOT / "docs" / "conf.py"))


def shown(what: Any, text: str) -> str:
    lines = text.splitlines()
    CONF["_hide_colons"](None, what, "name", None, None, lines)
    lines = GoogleDocstring(lines, what=what, name="name").lines()
    CONF["_restore_colons"](None, what, "name", None, None, lines)
    return "\n".join(lines)


@pytest.mark.parametrize("what", ["attribute", "property", "data"])
def test_what_stands_before_a_colon_is_not_taken_for_the_type_of_an_attribute(what: str) -> None:
    assert shown(what, "Its providers are equal: every bridge stays.").strip() == (
        "Its providers are equal: every bridge stays."
    )


def test_what_stands_before_a_colon_is_not_taken_for_the_type_of_a_return_value() -> None:
    page = shown("function", "Do it.\n\nArgs:\n    key: Which.\n\nReturns:\n    None: it is gone.")
    assert ":returns: None: it is gone." in page
    assert ":param key: Which." in page
    assert "rtype" not in page


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("bridgepool.JSON", JSON, "What `json.dumps` takes."),
        ("bridgepool.remote.PROTOCOL", PROTOCOL, "What this release speaks, at both ends."),
    ],
)
def test_a_constant_is_described_by_the_text_below_it(name: str, value: object, says: str) -> None:
    lines = ["A version of the protocol."]  # of its class
    CONF["_describe_constant"](None, "data", name, value, None, lines)
    assert "\n".join(lines).strip() == says


def test_defaults_are_shown_as_values() -> None:
    written = "(*, idle_timeout: float = attr_dict['idle_timeout'].default)"
    signature = CONF["_show_defaults"](None, "class", "", HttpLimits, None, written, None)
    assert signature == ("(*, idle_timeout: float = 75.0)", None)
    enum = CONF["_show_defaults"](None, "class", "", ReplaceOutcome, None, "(value)", None)
    assert enum == ("", None)
