"""Typed reading of the rows of a parsed TOML file: unknown fields, types, near misses. Pure."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeVar

from bridgepool.gateway.providers._errors import InvalidProviderError

T = TypeVar("T")
Check = Callable[[object], bool]

# Longer than any field of ours: a key that was pasted as a field name is not repeated.
_LONGEST_SHOWN: Final = 24


def is_text(value: object) -> bool:
    """Tell whether a value is a TOML string."""
    return isinstance(value, str)


def is_flag(value: object) -> bool:
    """Tell whether a value is true or false."""
    return isinstance(value, bool)


def is_texts(value: object) -> bool:
    """Tell whether a value is a list of strings."""
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def is_text_table(value: object) -> bool:
    """Tell whether a value is a table of strings."""
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


_WANTED: Final[Mapping[Check, str]] = {
    is_text: "a string",
    is_flag: "true or false",
    is_texts: "a list of strings",
    is_text_table: "a table of strings",
}


def field_problems(
    row: Mapping[str, object], fields: Mapping[str, Check], required: Iterable[str] = ()
) -> list[str]:
    """Say what is wrong with the fields of one row, before any value is looked at.

    Args:
        row: A parsed table.
        fields: Every known field with the check of its type.
        required: Fields that must be there.

    Returns:
        One text for each problem, naming the field; no values.
    """
    problems = [unknown_field(name, fields) for name in row if name not in fields]
    problems.extend(f"{name}: is missing" for name in required if name not in row)
    for name, value in row.items():
        check = fields.get(name)
        if check is not None and not check(value):
            problems.append(f"{name}: is not {_WANTED[check]}")
    return problems


def unknown_field(name: str, known: Iterable[str]) -> str:
    """Say that a field is not known, and which one may have been meant."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    shown = name if len(name) <= _LONGEST_SHOWN and name.isidentifier() else "(name not shown)"
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"{shown}: is not a known field{hint}"


def convert_rows(
    table: str, rows: object, label: str, convert: Callable[[Mapping[str, object]], T]
) -> tuple[list[T], list[str]]:
    """Convert an array of tables, and go on after a bad row, so that all problems are told.

    Args:
        table: Its name, for messages.
        rows: What was parsed under that name.
        label: The field that tells rows apart for the reader, such as ``name``.
        convert: Makes one row's object; raises `RowError` or `InvalidProviderError`.
    """
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return [], [f"{table}: is not an array of tables ([[{table}]])"]
    good: list[T] = []
    problems: list[str] = []
    for number, row in enumerate(rows, start=1):
        try:
            good.append(convert(row))
        except RowError as error:
            problems.extend(f"{_where(table, number, row, label)}{text}" for text in error.problems)
        except InvalidProviderError as error:
            problems.append(f"{_where(table, number, row, label)}{error}")
    return good, problems


class RowError(Exception):
    """Carries the problems of one row to `convert_rows`; never leaves it."""

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        self.problems = problems


def _where(table: str, number: int, row: Mapping[str, object], label: str) -> str:
    name = row.get(label)
    plain = isinstance(name, str) and len(name) <= _LONGEST_SHOWN and name.isprintable()
    return f"[[{table}]] row {number}{f' ({name})' if plain and name else ''}: "
