"""Reads rows as people wrote them: finds every mistake, and repeats no value. Pure."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from bridgepool.gateway.providers._fields import FIELD_NAMES, PLAIN_FIELDS
from bridgepool.gateway.providers._plain_fields import PlainField

T = TypeVar("T")
Reader = Callable[[object], object]
"""Returns a value as it is used; raises `ValueError` with what is wrong with it."""

# Longer than any field of ours: a key that was pasted as a field name is not repeated.
_LONGEST_SHOWN: Final = 24


def read_text(value: object) -> object:
    """Read a string."""
    if not isinstance(value, str):
        raise ValueError("is not a string")
    return value


def read_texts(value: object) -> object:
    """Read a list of strings."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError("is not a list of strings")
    return value


def read_text_table(value: object) -> object:
    """Read a table of strings."""
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise ValueError("is not a table of strings")
    return value


def read_tables(value: object) -> object:
    """Read an array of tables."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError("is not an array of tables")
    return value


def provider_readers(keys: Reader, headers: Reader, *, null: bool = False) -> dict[str, Reader]:
    """Return what reads each field of a provider, in their order.

    Args:
        keys: Reads its keys.
        headers: Reads its headers.
        null: None is a value of the fields that may be None.
    """
    readers = {name: plain_reader(field, null=null) for name, field in PLAIN_FIELDS.items()}
    readers |= {"base_url": read_text, "keys": keys, "headers": headers}
    return {name: readers[name] for name in FIELD_NAMES}


def plain_reader(field: PlainField, *, null: bool = False) -> Reader:
    """Return what reads a plain field; with `null`, None where the field may be None."""
    return lambda value: field.read(value, null=null)


# What is read has no closer static type; every value is checked.
def read_fields(
    row: Mapping[str, object], readers: Mapping[str, Reader], required: Iterable[str] = ()
) -> tuple[dict[str, Any], list[str]]:
    """Read the fields of one row.

    Args:
        row: A parsed table.
        readers: Every known field, with its reader.
        required: Fields that must be there.

    Returns:
        The fields that could be read, and one text for each problem, naming the field; no values.
    """
    fields: dict[str, Any] = {}
    problems = [unknown_field(name, readers) for name in row if name not in readers]
    problems.extend(f"{name}: is missing" for name in required if name not in row)
    for name, value in row.items():
        if name in readers:
            try:
                fields[name] = readers[name](value)
            except ValueError as error:
                problems.append(f"{name}: {error}")
    return fields, problems


def unknown_field(name: object, known: Iterable[str], *, hide: bool = False) -> str:
    """Say that a field is not known, and which one may have been meant.

    Args:
        name: As it was written.
        known: The fields that there are.
        hide: The name may be a secret in the wrong place, and is not repeated.
    """
    name = str(name)
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    shown = name if len(name) <= _LONGEST_SHOWN and name.isidentifier() else "(name not shown)"
    shown = "…" if hide else shown
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"{shown}: is not a known field{hint}"


def convert_rows(
    table: str,
    rows: object,
    label: str,
    convert: Callable[[Mapping[str, object]], tuple[T | None, list[str]]],
) -> tuple[list[T], list[str]]:
    """Convert an array of tables, and go on after a bad row, so that all problems are told.

    Args:
        table: Its name, for messages.
        rows: What was parsed under that name.
        label: The field that tells rows apart for the reader, such as ``name``.
        convert: Makes one row's object, or returns None with all that is wrong with it.
    """
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return [], [f"{table}: is not an array of tables ([[{table}]])"]
    good: list[T] = []
    problems: list[str] = []
    for number, row in enumerate(rows, start=1):
        made, found = convert(row)
        if made is not None:
            good.append(made)
        problems.extend(f"{_where(table, number, row, label)}{text}" for text in found)
    return good, problems


def _where(table: str, number: int, row: Mapping[str, object], label: str) -> str:
    name = row.get(label)
    plain = isinstance(name, str) and len(name) <= _LONGEST_SHOWN and name.isprintable()
    return f"[[{table}]] row {number}{f' ({name})' if plain and name else ''}: "
