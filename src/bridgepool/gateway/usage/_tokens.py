"""What an answer tells of the use that a request made. Pure."""

from __future__ import annotations

from typing import Final, NamedTuple

import attrs

from bridgepool._printable import printable
from bridgepool.gateway.providers import UsageFields
from bridgepool.gateway.providers._usage_fields import COUNTS, PathNode, tree_of

_COUNTS: Final = frozenset(COUNTS)
# Tokens in one answer, ten times the longest context. What is more is an error of the provider,
# and would spend the budget of the client for a month.
_MAX_COUNT: Final = 10**8
_MAX_TEXT: Final = 128  # characters of a name or an id; what is longer is not taken
MAX_TOOLS: Final = 32


class Tokens(NamedTuple):
    """Numbers of tokens; None where the answer did not report them."""

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


class Usage(NamedTuple):
    """What one answer reported."""

    tokens: Tokens = Tokens()
    """The numbers of tokens."""
    complete: bool = False
    """Whether these are the final counts: the answer came to its end, and reported tokens."""
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
    ended: bool = False
    """Whether the output has come to its end."""
    _event: str = attrs.field(default="", init=False)
    _last: object = attrs.field(default=None, init=False)  # document that was read
    _counts: dict[str, int] = attrs.field(factory=dict, init=False)
    _texts: dict[str, str] = attrs.field(factory=dict, init=False)
    _tools: dict[str, None] = attrs.field(factory=dict, init=False)

    def read(self, document: object) -> None:
        """Take what a document tells; it is decoded by `decoder_of`."""
        if document != self._last:  # most events of a stream repeat what the previous one had
            self._last = document
            self._read(tree_of(self.fields), document)

    def _read(self, node: PathNode, value: object) -> None:
        """Take what a value has of the paths at `node` and below."""
        if isinstance(value, dict):
            for name, inner in value.items():
                below = node.names.get(name)
                if below is None or inner is None:
                    continue
                if below.names or below.each is not None:
                    self._read(below, inner)
                elif below.field is not None:
                    self.note(below.field, inner)
        elif isinstance(value, list):
            if node.each is not None:
                for inner in value:
                    self._read(node.each, inner)
        elif node.field is not None:
            self.note(node.field, value)

    def note(self, field: str, value: object) -> None:
        """Take one value of a field; one that cannot be of it is left out."""
        if field in _COUNTS:
            if type(value) is float and value.is_integer():
                value = int(value)  # JSON has one kind of number
            if type(value) is int and self._counts.get(field, -1) < value <= _MAX_COUNT:
                self._counts[field] = value
        elif isinstance(value, str) and 0 < len(value) <= _MAX_TEXT:
            if field == "event":
                self._event = value
                self.ended = self.ended or value in self.fields.final_events
            elif field == "tools":
                if len(self._tools) < MAX_TOOLS:
                    self._tools[printable(value)] = None
            elif field != "finish":
                self._texts[field] = value
            elif value not in self.fields.unfinished:
                self._texts[field] = value
                self.ended = True

    def take_event(self) -> str:
        """Return the type of the last event, and forget that event."""
        event, self._event, self._last = self._event, "", None
        return event

    def text(self, field: str) -> str:
        """Return the text of a field; empty if none was found."""
        return printable(self._texts.get(field, ""))

    def result(self) -> Usage:
        """Return what was found."""
        counts = self._counts.get
        input_, output = counts("input"), counts("output")
        if input_ is None and output is None:
            input_ = counts("total")
        told = input_ is not None or output is not None
        cached_read, cached_write = counts("cached_read"), counts("cached_write")
        if self.fields.input_without_cached and input_ is not None:
            input_ += (cached_read or 0) + (cached_write or 0)
        return Usage(
            Tokens(input_, output, cached_read, cached_write, counts("reasoning")),
            self.ended and told,
            self.text("model"),
            self.text("response_id"),
            self.text("finish"),
            tuple(self._tools),
        )


def kept_text(text: str) -> str:
    """Return a name or an id as a record has it; empty if it is too long."""
    return printable(text) if len(text) <= _MAX_TEXT else ""
