"""A scanner that finds a few values in a JSON document of any length. Pure.

Theory of operation. A document that is too long to be decoded is read as it passes. Only objects
and lists that a wanted path leads through are followed; of everything else, only the ends of
strings and the brackets are looked for. So a list of a million numbers, or a string of a megabyte,
costs a search for one byte; each string and each escaped quote costs a step. What is kept between
two pieces is a token of at most two kilobytes and a stack as deep as the deepest path.

It reads every valid document as a decoder does. What it finds in an invalid one is up to the bytes
that there are, and never an error.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Any, Final

import attrs
import msgspec

from bridgepool.gateway.providers._usage_fields import PathNode, tree_of
from bridgepool.gateway.usage._tokens import Findings

_MAX_TOKEN: Final = 2048  # bytes of a name or a value that is wanted
MAX_STEPS: Final = 1_000_000
"""Steps on all documents of an answer: what would take more is given up."""
_BYTES_PER_STEP: Final = 32  # that are looked at one by one
_MAX_FOLLOWED: Final = 100_000  # tokens of objects and lists that a path leads through
# What each byte changes of the number of open brackets, as signed bytes.
_BRACKETS: Final = bytes(
    {0x7B: 1, 0x5B: 1, 0x7D: 255, 0x5D: 255}.get(byte, 0) for byte in range(256)
)
_token: Final = re.compile(rb'["{}\[\],:]|[^\s"{}\[\],:]+')
_decode: Final = msgspec.json.Decoder().decode


@attrs.define(eq=False)
class Scanner:
    """Scans one document, in pieces, for the paths of its findings."""

    findings: Findings
    _max_steps: int = MAX_STEPS
    """Then the document is given up: none may occupy the program."""
    ended: bool = attrs.field(default=False, init=False)
    """Whether the document is complete."""
    # the objects and lists that are open, and that a path leads through
    _open: list[tuple[PathNode, bool]] = attrs.field(factory=list, init=False)
    _skipping: int = attrs.field(default=0, init=False)  # open brackets that no path leads through
    _node: PathNode | None = attrs.field(default=None, init=False)  # of the next value
    _at_name: bool = attrs.field(default=False, init=False)  # the next string is a name
    _in_string: bool = attrs.field(default=False, init=False)
    _escaped: bool = attrs.field(default=False, init=False)  # the last byte was a backslash
    # what is kept of a string or a literal that has begun; None if it is not wanted
    _kept: bytearray | None = attrs.field(default=None, init=False)
    _in_literal: bool = attrs.field(default=False, init=False)
    steps: int = attrs.field(default=0, init=False)
    """How much work it was so far."""
    _followed: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        """Begin at the root."""
        self._node = tree_of(self.findings.fields)

    def feed(self, data: bytes) -> None:
        """Scan one piece."""
        at, end = 0, len(data)
        while at < end and not self.ended:
            if self._in_string:
                at = self._pass_string(data, at)
                continue
            if self._in_literal and data[at] in b' \t\r\n"{}[],:':
                self._end_literal()
            if not self._step():
                return
            if self._skipping:
                at = self._skip(data, at)
                continue
            found = _token.search(data, at)
            if found is None:
                return
            self._followed += 1
            at = found.end()
            self._take(found[0])

    def _step(self) -> bool:
        """Count a step; return whether there may be more."""
        self.steps += 1
        if self.steps > self._max_steps or self._followed > _MAX_FOLLOWED:
            self.ended = True
        return not self.ended

    def _skip(self, data: bytes, at: int) -> int:
        """Go on where no path leads through, up to a string or the last bracket; return where."""
        quote = data.find(b'"', at)
        end = quote if quote >= 0 else len(data)
        closing = data.count(b"}", at, end) + data.count(b"]", at, end)
        if closing < self._skipping:
            self._skipping += data.count(b"{", at, end) + data.count(b"[", at, end) - closing
        else:
            changes = memoryview(data[at:end].translate(_BRACKETS)).cast("b")
            depths = list(accumulate(changes, initial=self._skipping))
            self.steps += len(depths) // _BYTES_PER_STEP
            if 0 in depths:
                self._skipping, self.ended = 0, not self._open
                return at + depths.index(0)
            self._skipping = depths[-1]
        if quote >= 0:
            self._in_string, self._kept = True, None
        return end + 1

    def _take(self, token: bytes) -> None:
        if token == b'"':
            wanted = self._at_name or (self._node is not None and self._node.field is not None)
            self._in_string, self._kept = True, bytearray() if wanted else None
        elif token in (b"{", b"["):
            self._open_bracket(is_object=token == b"{")
        elif token in (b"}", b"]"):
            self._close_bracket()
        elif token == b",":
            if self._open:
                node, is_object = self._open[-1]
                self._at_name, self._node = is_object, None if is_object else node.each
        elif token != b":":
            self._begin_literal(token)

    def _open_bracket(self, *, is_object: bool) -> None:
        node = self._node
        if node is None or not (node.names if is_object else node.each):
            self._skipping = 1
        else:
            self._open.append((node, is_object))
            self._at_name, self._node = is_object, None if is_object else node.each

    def _close_bracket(self) -> None:
        if self._open:
            self._open.pop()
        self.ended = not self._open

    def _pass_string(self, data: bytes, at: int) -> int:
        """Go on in a string; return where."""
        start = at
        if self._escaped:
            self._escaped = False
            at += 1
        while True:
            quote = data.find(b'"', at)
            end = quote if quote >= 0 else len(data)
            is_escaped = False
            if end > at and data[end - 1] == 0x5C:
                piece = data[at:end]
                is_escaped = (len(piece) - len(piece.rstrip(b"\\"))) % 2 == 1
            at = end
            if quote < 0:
                self._escaped = is_escaped  # what is escaped comes next
                break
            if not is_escaped:
                break
            if not self._step():
                return len(data)
            at += 1
        if self._kept is not None:
            self._kept += data[start:at]
            if len(self._kept) > _MAX_TOKEN:
                self._kept = None
        if at < len(data):
            at += 1
            self._end_string()
        return at

    def _end_string(self) -> None:
        self._in_string = False
        text = _value(b"".join((b'"', self._kept, b'"'))) if self._kept is not None else None
        if self._at_name:
            names = self._open[-1][0].names
            self._at_name, self._node = False, names.get(text) if text is not None else None
        elif text is not None and self._node is not None and self._node.field is not None:
            self.findings.note(self._node.field, text)

    def _begin_literal(self, token: bytes) -> None:
        wanted = self._node is not None and self._node.field is not None
        if self._in_literal:  # it goes on, in another piece
            if self._kept is not None:
                self._kept += token
        else:
            self._in_literal, self._kept = True, bytearray(token) if wanted else None
        if self._kept is not None and len(self._kept) > _MAX_TOKEN:
            self._kept = None

    def _end_literal(self) -> None:
        self._in_literal = False
        if self._kept is not None and self._node is not None and self._node.field is not None:
            self.findings.note(self._node.field, _value(bytes(self._kept)))


def _value(text: bytes) -> Any:
    try:
        return _decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
