"""Drafts and patches as tables of JSON or TOML, for the API, the command line and exports. Pure.

A provider is written as in a provider file. Beside plain texts, which are new values, a key may
be ``{"id": "key_…"}``, which keeps one that is stored, and a header ``{"keep": true}``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from bridgepool._secret import Secret
from bridgepool.gateway.control._errors import InvalidChangeError
from bridgepool.gateway.control._records import (
    HeaderValue,
    KeyChange,
    KeyRef,
    KeyValue,
    ProviderDraft,
    ProviderPatch,
    ProviderView,
    Unset,
)
from bridgepool.gateway.providers._file_rows import is_flag, is_text, unknown_field

_CHECKS: Final[Mapping[str, tuple[Callable[[object], bool], str]]] = {
    "name": (is_text, "a string"),
    "type": (is_text, "a string"),
    "base_url": (is_text, "a string"),
    "key_env": (lambda value: value is None or is_text(value), "a string or null"),
    "client_keys": (is_flag, "true or false"),
    "enabled": (is_flag, "true or false"),
    "allow_private": (is_flag, "true or false"),
}
_FIELDS: Final = ("keys", "headers", *_CHECKS)
_REQUIRED: Final = ("name", "type", "base_url")


def parse_draft(row: object, where: str = "") -> ProviderDraft:
    """Read a whole provider.

    Args:
        row: A parsed table; a value that is missing has its default.
        where: Goes before each problem.

    Raises:
        InvalidChangeError: A field is unknown, missing or of the wrong type; no values.
    """
    fields, problems = _fields(row)
    if isinstance(row, Mapping):
        problems += [f"{name}: is missing" for name in _REQUIRED if name not in row]
    if problems:
        raise InvalidChangeError(*(where + problem for problem in problems))
    return ProviderDraft(**fields)


def parse_patch(row: object, where: str = "") -> ProviderPatch:
    """Read what is to be different in a provider; as `parse_draft`, but nothing is required."""
    fields, problems = _fields(row)
    if problems:
        raise InvalidChangeError(*(where + problem for problem in problems))
    return ProviderPatch(**fields)


def draft_document(draft: ProviderDraft | ProviderPatch) -> dict[str, object]:
    """Write a draft or a patch, with the secrets that it holds; that of an export holds none."""
    document: dict[str, object] = {}
    for field in attrs.fields(type(draft)):
        value = getattr(draft, field.name)
        if isinstance(value, Unset):
            continue
        if field.name == "keys":
            document["keys"] = [_key_document(key) for key in value]
        elif field.name == "headers":
            document["headers"] = {
                name: {"keep": True} if text is None else text.reveal()
                for name, text in value.items()
            }
        elif value is not None or isinstance(draft, ProviderPatch):  # TOML has no null
            document[field.name] = value
    return document


def view_document(view: ProviderView) -> dict[str, object]:
    """Write a masked provider, for showing it."""
    document: dict[str, object] = attrs.asdict(view)
    document["keys"] = [{"id": key.id, "hint": key.hint} for key in view.keys]
    document["created"] = view.created.isoformat()
    document["updated"] = view.updated.isoformat()
    return document


# What is read has no closer static type; every value is checked before use.
def _fields(row: object) -> tuple[dict[str, Any], list[str]]:
    if not isinstance(row, Mapping):
        return {}, ["is not a table of a provider's fields"]
    fields: dict[str, Any] = {}
    problems: list[str] = []
    for name, value in row.items():
        if name == "keys":
            fields[name] = _keys(value, problems)
        elif name == "headers":
            fields[name] = _headers(value, problems)
        elif name not in _CHECKS:
            problems.append(unknown_field(str(name), _FIELDS))
        else:
            check, wanted = _CHECKS[name]
            if not check(value):
                problems.append(f"{name}: is not {wanted}")
            fields[name] = value
    return fields, problems


def _keys(value: object, problems: list[str]) -> tuple[KeyChange, ...]:
    keys = [_key(item) for item in value] if isinstance(value, list | tuple) else [None]
    good = tuple(key for key in keys if key is not None)
    if len(good) < len(keys):
        problems.append('keys: is not a list of strings, {"value": …} and {"id": …}')
    return good


def _key(item: object) -> KeyChange | None:
    if isinstance(item, str) and item:
        return KeyValue(Secret(item))
    if isinstance(item, Mapping) and len(item) == 1:
        [(name, text)] = item.items()
        if name == "id" and isinstance(text, str):
            return KeyRef(text)
        if name == "value" and isinstance(text, str) and text:
            return KeyValue(Secret(text))
    return None


def _headers(value: object, problems: list[str]) -> dict[str, HeaderValue]:
    headers: dict[str, HeaderValue] = {}
    good = isinstance(value, Mapping)
    for name, item in value.items() if isinstance(value, Mapping) else ():
        if isinstance(name, str) and isinstance(item, str) and item:
            headers[name] = Secret(item)
        elif isinstance(name, str) and item == {"keep": True}:
            headers[name] = None
        else:
            good = False
    if not good:
        problems.append('headers: is not a table of strings and {"keep": true}')
    return headers


def _key_document(key: KeyChange) -> dict[str, str]:
    return {"id": key.id} if isinstance(key, KeyRef) else {"value": key.value.reveal()}
