"""What an answer tells of the use that a request made. Pure."""

from __future__ import annotations

from typing import Any, Final

import attrs

from bridgepool.gateway.providers import UsageFields
from bridgepool.gateway.providers._usage_fields import COUNTS, PathNode, tree_of

_MAX_COUNT: Final = 10**12  # of tokens in one answer; what is more is an error
_MAX_TEXT: Final = 128  # characters of a name or an id; what is longer is not taken
MAX_TOOLS: Final = 32


@attrs.frozen
class Tokens:
    """Numbers of tokens; None where the answer did not tell."""

    input: int | None = None
    """Of the whole input, with those of a cache."""
    output: int | None = None
    """Of the whole output, with those of reasoning."""
    cached_read: int | None = None
    """Part of `input`: read from a cache."""
    cached_write: int | None = None
    """Part of `input`: written to a cache."""
    reasoning: int | None = None
    """Part of `output`: reasoning."""


@attrs.frozen
class Usage:
    """What one answer told."""

    tokens: Tokens = Tokens()
    complete: bool = False
    """Whether these are the final counts: the answer came to its end, and has told tokens."""
    model: str = ""
    """The model that answered."""
    response_id: str = ""
    """The upstream's id of the answer."""
    finish: str = ""
    """Why the output ended, in the upstream's words."""
    tools: tuple[str, ...] = ()
    """Names of the tools that the model called, each once; the first 32."""


@attrs.define(eq=False)
class Findings:
    """What was found so far in one answer."""

    fields: UsageFields
    tree: PathNode = attrs.field(init=False, repr=False)
    """The paths of `fields`."""
    ended: bool = False
    """Whether the output has come to its end."""
    event: str = ""
    """The type of the last event."""
    _counts: dict[str, int] = attrs.field(factory=dict, init=False)
    _texts: dict[str, str] = attrs.field(factory=dict, init=False)
    _tools: dict[str, None] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        """Look the paths up."""
        self.tree = tree_of(self.fields)

    def read(self, node: PathNode, value: Any) -> None:
        """Take what a decoded value has of the paths below `node`."""
        kind = type(value)
        if kind is dict:
            names = node.names
            for name, inner in value.items():
                below = names.get(name)
                if below is None or inner is None:
                    continue
                if below.names or below.each is not None:
                    self.read(below, inner)
                elif below.field is not None:
                    self.note(below.field, inner)
        elif kind is list:
            if node.each is not None:
                for inner in value:
                    self.read(node.each, inner)
        elif node.field is not None:
            self.note(node.field, value)

    def note(self, field: str, value: object) -> None:
        """Take one value of a field; one that cannot be of it is left out."""
        if field in COUNTS:
            if type(value) is float and value.is_integer():
                value = int(value)  # JSON has one kind of number
            if type(value) is int and 0 <= value <= _MAX_COUNT:
                self._counts[field] = max(value, self._counts.get(field, 0))
        elif isinstance(value, str) and 0 < len(value) <= _MAX_TEXT:
            if field == "event":
                self.event = value
                self.ended = self.ended or value in self.fields.final_events
            elif field == "tools":
                if len(self._tools) < MAX_TOOLS:
                    self._tools[_printable(value)] = None
            elif field != "finish":
                self._texts[field] = value
            elif value not in self.fields.unfinished:
                self._texts[field] = value
                self.ended = True

    def text(self, field: str) -> str:
        """Return the text of a field; empty if none was found."""
        return _printable(self._texts.get(field, ""))

    def result(self) -> Usage:
        """Return what was found."""
        counts = dict(self._counts)
        total = counts.pop("total", None)
        if total is not None and "input" not in counts and "output" not in counts:
            counts["input"] = total
        if self.fields.input_without_cached and "input" in counts:
            counts["input"] += counts.get("cached_read", 0) + counts.get("cached_write", 0)
        texts = {name: _printable(text) for name, text in self._texts.items()}
        told = "input" in counts or "output" in counts
        return Usage(Tokens(**counts), self.ended and told, tools=tuple(self._tools), **texts)


def _printable(text: str) -> str:
    """Return a text that does no harm on a terminal and in a database."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else "?" for one in text)
