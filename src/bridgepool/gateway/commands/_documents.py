"""Providers in files, for `bridgepool providers apply` and `export`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bridgepool.gateway.commands._root import fail
from bridgepool.gateway.control._documents import parse_draft
from bridgepool.gateway.control._errors import InvalidChangeError
from bridgepool.gateway.control._records import ProviderDraft
from bridgepool.gateway.providers import ProviderFileError
from bridgepool.gateway.providers._file import TOP_FIELDS, parse_toml
from bridgepool.gateway.providers._file_rows import unknown_field


def read_drafts(path: Path) -> list[ProviderDraft]:
    """Read the providers of a file; ends the program with all that is wrong with it."""
    shown = "standard input" if str(path) == "-" else str(path)
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{shown}: cannot be read: {getattr(error, 'strerror', None) or 'is not UTF-8'}")
    try:
        data = parse_toml(text, shown)
    except ProviderFileError as error:
        fail(str(error))
    problems = [unknown_field(name, TOP_FIELDS) for name in data if name not in TOP_FIELDS]
    rows = data.get("providers")
    if not isinstance(rows, list):
        fail(f"{shown}: has no [[providers]]; write providers = [] if that is intended")
    if "clients" in data:
        print(f"{shown}: its clients are ignored; use `bridgepool keys`", file=sys.stderr)
    drafts: list[ProviderDraft] = []
    for number, row in enumerate(rows, start=1):
        if isinstance(row, dict):
            row = {"allow_private": data.get("allow_private", False), **row}
        try:
            drafts.append(parse_draft(row, f"[[providers]] row {number}: "))
        except InvalidChangeError as error:
            problems += error.problems
    if problems:
        fail(f"{shown}: {'; '.join(problems)}")
    return drafts


def drafts_to_toml(drafts: Iterable[Mapping[str, Any]]) -> str:
    """Write the providers of an export as a file, which holds no secret."""
    import tomli_w

    head = "# For `bridgepool providers apply`: what has an id or `keep` stays as it is stored.\n\n"
    return head + tomli_w.dumps({"providers": [_without_null(draft) for draft in drafts]})


def _without_null(draft: Mapping[str, Any]) -> dict[str, Any]:
    """Write what JSON writes as null, which TOML does not have."""
    row = {name: value for name, value in draft.items() if value is not None}
    return row | {"headers": {name: {"keep": True} for name in draft["headers"]}}
