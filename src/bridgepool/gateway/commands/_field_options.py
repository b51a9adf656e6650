"""Options of commands, made of plain fields: one for each, with its help."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field, make_dataclass
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from bridgepool.gateway.commands._root import fail
from bridgepool.gateway.providers._fields import NAME_PATTERN, VARIABLE_PATTERN
from bridgepool.gateway.providers._plain_fields import TEXTS, PlainField


def make_options(
    name: str, fields: Iterable[PlainField], *, changing: bool, module: str
) -> type[Any]:
    """Make the class of the options for some fields.

    Args:
        name: Its name.
        fields: The fields.
        changing: They change what is there: one that is not given stays as it is, and one that may
            be None can be removed.
        module: Where the class is. Of a class of the module `types`, where such a class is unless
            it says otherwise, cyclopts makes one option.
    """
    options = [option for one in fields for option in _options(one, changing)]
    made = make_dataclass(name, options, kw_only=True, namespace={"__module__": module})
    return Parameter(name="*")(made)


def _options(plain: PlainField, changing: bool) -> list[tuple[str, Any, Any]]:
    listed = plain.kind == TEXTS
    choice: Any = Literal[plain.choices] if plain.choices else str
    kind: Any = plain.kind
    if listed or kind is str:
        kind = list[choice] if listed else choice
    elif plain.choices:
        kind = kind | choice
    text, default = plain.help, field(default=plain.default)
    if plain.required and not changing:
        default = field()
    if listed:
        text += " May be given several times."
    if changing or listed or plain.optional:
        kind, default = kind | None, field(default=None)
    if plain.kind is bool and changing:
        text += f" To unset it: --{_flag(plain)}=false."
    options: list[tuple[str, Any, Any]] = [
        (plain.name, Annotated[kind, Parameter(help=text, metavar=_metavar(plain))], default)
    ]
    if (plain.optional or listed) and changing:
        unset = Annotated[bool, Parameter(help=f"Remove --{_flag(plain)}.")]
        options.append((f"no_{plain.name}", unset, field(default=False)))
    return options


def _metavar(plain: PlainField) -> str | None:
    """Return what the help shows for a value: the unit of a number, what a text names."""
    if plain.kind is int:
        return "BYTES" if "bytes" in plain.help else "COUNT"
    if plain.kind is float:
        return "SECONDS" if "seconds" in plain.help else "NUMBER"
    if plain.kind is bool or plain.choices:
        return None  # the choices are shown
    if plain.is_time:
        return "TIME"
    named = {NAME_PATTERN: "NAME", VARIABLE_PATTERN: "VARIABLE"}.get(plain.pattern or "")
    return named or ("PATTERN" if plain.kind == TEXTS else plain.name.upper())


def _flag(plain: PlainField) -> str:
    return plain.name.replace("_", "-")


def given_values(options: object, fields: Mapping[str, PlainField]) -> dict[str, Any]:
    """Return the fields that options give, by name; one that is removed has its default.

    Ends the program if one is both given and removed.
    """
    given: Mapping[str, Any] = vars(options)
    values: dict[str, Any] = {}
    for name in given.keys() & fields.keys():
        value, removed = given[name], given.get(f"no_{name}")
        if removed and value is not None:
            flag = _flag(fields[name])
            fail(f"--{flag} and --no-{flag} contradict each other: give one of them")
        if value is not None:
            values[name] = tuple(value) if fields[name].kind == TEXTS else value
        elif removed:
            values[name] = fields[name].default
    return values
