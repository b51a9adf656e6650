"""Drafts and patches as they are read from tables of JSON or TOML. Pure.

A provider is written as in a provider file. Beside plain texts, which are new values, a key may
be ``{"id": "key_…"}``, which keeps one that is stored, and a header ``{"keep": true}``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from bridgepool._secret import Secret
from bridgepool.gateway.control._errors import InvalidChangeError
from bridgepool.gateway.control._records import (
    HeaderValue,
    KeyChange,
    KeyRef,
    KeyValue,
    ProviderDraft,
    ProviderPatch,
)
from bridgepool.gateway.providers._fields import FIELD_NAMES, REQUIRED_FIELDS
from bridgepool.gateway.providers._file_rows import provider_readers, read_fields
from bridgepool.gateway.providers._provider import KEYS_LIMIT, build_provider


def parse_draft(row: object, where: str = "") -> ProviderDraft:
    """Read a whole provider.

    Args:
        row: A parsed table; a value that is missing has its default.
        where: Goes before each problem.

    Raises:
        InvalidChangeError: A field is unknown, missing or of the wrong type; no values.
    """
    return ProviderDraft(**_fields(row, where, REQUIRED_FIELDS))


def parse_patch(row: object) -> ProviderPatch:
    """Read what is to be different in a provider; as `parse_draft`, but nothing is required."""
    return ProviderPatch(**_fields(row, "", ()))


def fields_of(change: ProviderDraft | ProviderPatch) -> Mapping[str, object]:
    """Return the fields that a draft or a patch gives, by name."""
    if isinstance(change, ProviderPatch):
        return change.fields
    return {name: getattr(change, name) for name in FIELD_NAMES}


# What is read has no closer static type; every value was checked.
def _fields(row: object, where: str, required: Iterable[str]) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise InvalidChangeError(where + "is not a table of a provider's fields")
    fields, problems = read_fields(row, _READERS, required)
    if problems:
        # What stands in for a field that was not read, or not given, adds no mistake.
        plain = {name: fields[name] for name in fields if name not in ("type", "keys", "headers")}
        _, more = build_provider({"allow_private": True, **plain}, (), KEYS_LIMIT)
        raise InvalidChangeError(*(where + problem for problem in (*problems, *more)))
    return fields


def _read_keys(value: object) -> tuple[KeyChange, ...]:
    keys = [_key(item) for item in value] if isinstance(value, list | tuple) else [None]
    good = tuple(key for key in keys if key is not None)
    if len(good) < len(keys):
        raise ValueError('is not a list of strings, {"value": …} and {"id": …}')
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


def _read_headers(value: object) -> dict[str, HeaderValue]:
    if not isinstance(value, Mapping) or not all(map(_is_header, value.items())):
        raise ValueError('is not a table of strings and {"keep": true}')
    return {name: Secret(item) if isinstance(item, str) else None for name, item in value.items()}


def _is_header(pair: tuple[object, object]) -> bool:
    name, item = pair
    return isinstance(name, str) and (
        (isinstance(item, str) and item != "") or item == {"keep": True}
    )


_READERS: Final = provider_readers(_read_keys, _read_headers, null=True)
