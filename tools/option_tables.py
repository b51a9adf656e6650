"""Write the tables of options in `docs/reference/command-line.md` from the options' declarations.

    python -m tools.option_tables

Run it after a change of `bridgepool.gateway._options`; a test fails while the page differs.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, cast

from cyclopts import App, Group
from cyclopts.argument import Argument

from bridgepool.gateway._control_options import ControlPlaneOptions
from bridgepool.gateway._options import GatewayOptions
from bridgepool.gateway.commands import app

PAGE: Final = Path(__file__).parent.parent / "docs" / "reference" / "command-line.md"
_PROGRAMS: Final = {"gateway": GatewayOptions, "control-plane": ControlPlaneOptions}
_BLOCK: Final = re.compile(r"(<!-- options: (\S+) -->\n).*?(<!-- end of options -->)", re.DOTALL)


def with_tables(page: str) -> str:
    """Return the page with its tables of options written anew."""
    return _BLOCK.sub(lambda block: block[1] + _tables(block[2]) + block[3], page)


def _tables(program: str) -> str:
    documentation = dict(_field_docstrings(_PROGRAMS[program]))
    command: App = app[program]
    tables: dict[str, list[str]] = {}
    for argument in command.assemble_argument_collection():
        if argument.name in documentation:
            [group] = cast("Sequence[Group]", argument.parameter.group)
            tables.setdefault(group.name, []).append(_row(argument, documentation[argument.name]))
    titled = len(tables) > 1
    return "\n".join(
        ("" if not titled else f"{title}:\n\n")
        + "| option | default | |\n|---|---|---|\n"
        + "".join(rows)
        for title, rows in tables.items()
    )


def _field_docstrings(options: type) -> Iterator[tuple[str, str]]:
    [declaration] = ast.parse(inspect.getsource(options)).body
    assert isinstance(declaration, ast.ClassDef)
    for field, text in zip(declaration.body, declaration.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            name = "--" + ast.unparse(field.target).replace("_", "-")
            yield name, " ".join(str(ast.literal_eval(text.value)).split())


def _row(argument: Argument, text: str) -> str:
    value = "" if argument.hint is bool else f" {_placeholder(argument)}"
    return f"| `{argument.name}{value}` | {_default(argument)} | {text} |\n"


def _placeholder(argument: Argument) -> str:
    if argument.parameter.metavar:
        return argument.parameter.metavar
    return "PATH" if "Path" in str(argument.hint) else "TEXT"


def _default(argument: Argument) -> str:
    default, show = argument.field_info.default, argument.parameter.show_default
    if default in (None, "", ()) and not callable(show):
        return ""
    if default is False:
        return "off"
    if callable(show):
        text = str(show(default))
        return text if " " in text else f"`{text}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
