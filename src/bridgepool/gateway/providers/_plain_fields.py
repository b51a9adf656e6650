"""Plain fields: declared once on an attrs class, with what is said of them to people and programs.

A plain field has the same value in each form of a row: as people write it, as the store keeps it,
as the wire carries it, as it is used. What reads, checks, describes or asks for such fields goes
through the `PlainField`s of the class, which `plain_fields` derives from its declaration. A value
is a text, a number, true or false, or a list of texts; None stands for none where that is allowed.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import attrs

TEXTS: Final = tuple[str, ...]
"""The kind of a list of texts."""
_KINDS: Final[Mapping[object, str]] = MappingProxyType(
    {
        str: "a string",
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        TEXTS: "a list of strings",
    }
)
_TIME: Final = "a time with its zone, such as 2030-01-31T00:00:00Z"


def about(
    help: str,
    *,
    pattern: str | None = None,
    max_length: int | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    is_time: bool = False,
) -> dict[str, object]:
    """Describe a field: the metadata of its `attrs.field`; see `PlainField`."""
    return {
        "help": help,
        "pattern": pattern,
        "max_length": max_length,
        "minimum": minimum,
        "maximum": maximum,
        "choices": choices,
        "is_time": is_time,
    }


@attrs.frozen
class PlainField:
    """What is known of a plain field."""

    name: str
    kind: Any
    """``str``, ``bool``, ``int``, ``float`` or `TEXTS`."""
    optional: bool
    """Whether it may be None."""
    default: object
    """`attrs.NOTHING` if it is required."""
    help: str
    """One sentence for people."""
    pattern: str | None
    """Of the whole text, where it has one; checked by its class, with a message of its own."""
    max_length: int | None
    """Of a text, or of each text of a list; checked by its class where it has a pattern."""
    minimum: float | None
    """The smallest number."""
    maximum: float | None
    """The largest number."""
    choices: tuple[str, ...]
    """What a text, or each text of a list, may be; empty for anything. A field that is true or
    false may be one of these, too."""
    is_time: bool
    """A text that is an RFC 3339 time, kept in UTC."""

    @property
    def required(self) -> bool:
        """Whether it has to be given."""
        return self.default is attrs.NOTHING

    @property
    def wanted(self) -> str:
        """Name what it takes, such as ``a string``."""
        if self.kind is bool and self.choices:
            return ", ".join(["true, false", *self.choices])
        return _TIME if self.is_time else _KINDS[self.kind]

    @property
    def is_bounded(self) -> bool:
        """Whether `problem` can find anything."""
        bounds = (self.minimum, self.maximum, self.choices or None, self.is_time or None)
        length = self.max_length if self.pattern is None else None
        return any(bound is not None for bound in (*bounds, length))

    def read(self, value: object, *, null: bool = False) -> object:
        """Read a value as people wrote it, in TOML or JSON.

        Args:
            value: What was parsed.
            null: None is a value, if the field may be None.

        Returns:
            The value as it is used.

        Raises:
            ValueError: It is of another type; says what is wanted, and repeats nothing.
        """
        null = null and self.optional
        if value is None and null:
            return None
        if self.kind == TEXTS and isinstance(value, list | tuple):
            value = tuple(value)
        if self.is_time and isinstance(value, datetime):  # as TOML has it
            value = value.isoformat()
        if not self._is_of_kind(value):
            raise ValueError(f"is not {self.wanted}{' or null' if null else ''}")
        texts = value if isinstance(value, tuple) else (value,)
        if not all(text.isprintable() for text in texts if isinstance(text, str)):
            raise ValueError("has a character that cannot be printed")
        return utc_text(str(value)) if self.is_time else value

    def _is_of_kind(self, value: object) -> bool:
        if self.kind == TEXTS:
            return isinstance(value, tuple) and all(isinstance(text, str) for text in value)
        if self.kind is bool and type(value) is str:
            return value in self.choices
        return type(value) is self.kind or (self.kind is float and type(value) is int)

    def problem(self, value: object) -> str | None:
        """Return how a value of the field's type breaks its bounds; None if it does not."""
        if isinstance(value, int | float):
            low, high = self.minimum, self.maximum
            if (low is not None and not value >= low) or (high is not None and not value <= high):
                return _bounds(low, high)
        texts = value if isinstance(value, tuple) else (value,)
        for text in texts:
            if not isinstance(text, str):
                continue
            if self.choices and text not in self.choices:
                return f"is not one of {', '.join(self.choices)}"
            if self.is_time and moment(text) is None:
                return f"is not {self.wanted}"
            limit = self.max_length if self.pattern is None else None
            if limit is not None and not 0 < len(text) <= limit:
                return f"has a text that is empty or longer than {limit} characters"
        return None


def _bounds(low: float | None, high: float | None) -> str:
    low, high = (int(one) if one is not None and one == int(one) else one for one in (low, high))
    if low is None:
        return f"is more than {high}"
    return f"is less than {low}" if high is None else f"is not from {low} to {high}"


def plain_fields(form: type[attrs.AttrsInstance]) -> Mapping[str, PlainField]:
    """Return the plain fields of an attrs class, by name, in their order.

    Each is declared with `about` as its metadata.
    """
    annotations = get_type_hints(form)
    return MappingProxyType(
        {field.name: _plain(field, annotations[field.name]) for field in attrs.fields(form)}
    )


def _plain(field: attrs.Attribute[Any], annotation: object) -> PlainField:
    kinds = [annotation]
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = list(get_args(annotation))
    optional = types.NoneType in kinds
    # A literal text beside true and false is one of the choices.
    kinds = [one for one in kinds if one is not types.NoneType and get_origin(one) is not Literal]
    [kind] = kinds
    if kind not in _KINDS:
        raise TypeError(f"the field {field.name} is not of a plain type: {annotation}")
    return PlainField(field.name, kind, optional, field.default, **field.metadata)


def moment(text: str) -> datetime | None:
    """Return the moment that an RFC 3339 text names; None if it names none."""
    try:
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.tzinfo is not None and "T" in text.upper() else None
    except (ValueError, OverflowError):
        return None


def utc_text(text: str) -> str:
    """Return the text of the same moment in UTC; a text that names no moment stays as it is."""
    found = moment(text)
    return found.isoformat().replace("+00:00", "Z") if found is not None else text
