"""The demo's terminal output: one column per client, side by side, so that overlap shows."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from typing import TextIO

import attrs
import trio

_RESET = "\x1b[0m"
_STYLES = {
    "plain": "",
    "dim": "\x1b[2m",
    "bold": "\x1b[1m",
    "good": "\x1b[32m",
    "bad": "\x1b[31m",
    "change": "\x1b[33m",
    "north": "\x1b[36m",
    "south": "\x1b[35m",
}
_TIME = 7  # columns
_COLUMN = 17  # columns


def wants_colour(out: TextIO) -> bool:
    """Return whether to use colours: on a terminal, unless NO_COLOR is set (https://no-color.org)."""
    return out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


@attrs.define(eq=False)
class Screen:
    """Prints the demo's output."""

    out: TextIO = attrs.field(factory=lambda: sys.stdout)
    _columns: tuple[str, ...] = attrs.field(init=False, default=())
    _start: float = attrs.field(factory=trio.current_time)
    _width: int = attrs.field(factory=lambda: min(shutil.get_terminal_size().columns, 96))
    _colour: bool = attrs.field(
        default=attrs.Factory(lambda self: wants_colour(self.out), takes_self=True)
    )

    def _styled(self, text: str, style: str) -> str:
        return f"{_STYLES[style]}{text}{_RESET}" if self._colour and _STYLES[style] else text

    def _print(self, line: str) -> None:
        print(line, file=self.out, flush=True)

    def _clock(self) -> str:
        return self._styled(f"{trio.current_time() - self._start:5.2f}  ", "dim")

    def title(self, text: str) -> None:
        """Print a heading."""
        self._print(self._styled(text, "bold"))

    def text(self, text: str = "") -> None:
        """Print a paragraph, wrapped to the terminal."""
        self._print("\n".join(textwrap.wrap(text, self._width)))

    def section(self, text: str, *columns: str) -> None:
        """Print the heading of a section and of its columns, if it has any."""
        self._columns = columns
        self._print("")
        self.title(text)
        if columns:
            names = "".join(name.ljust(_COLUMN) for name in columns)
            self._print(self._styled(" " * _TIME + names.rstrip(), "dim"))

    def event(self, column: str, text: str, style: str = "plain") -> None:
        """Print one event of one client, in its column."""
        indent = " " * (_COLUMN * self._columns.index(column))
        self._print(self._clock() + indent + self._styled(text, style))

    def change(self, text: str, style: str = "change") -> None:
        """Print an action of the operator, across all columns."""
        line = f"── {text} "
        fill = "─" * max(0, self._width - _TIME - len(line))
        self._print(self._clock() + self._styled(line + fill, style))

    def check(self, text: str, *, holds: bool) -> None:
        """Print one claim of the demo, and whether it held."""
        mark, style = ("✓", "good") if holds else ("✗", "bad")
        self._print(f"  {self._styled(mark, style)} {text}")
