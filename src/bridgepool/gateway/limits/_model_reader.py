"""Reads which models the JSON body of a request names, as it arrives. Pure.

Theory of operation. The gateway and the upstream read the same bytes, and a rule on models holds
only if both find the same models in them. So the reader is strict: it takes RFC 8259's JSON in
UTF-8 and nothing else, and refuses a body that two parsers could read differently. That is a name
on the way to a model that stands twice in an object, or is written otherwise (another case, an
invisible character), since some parsers take the last of two, some the first, and some ignore case.

It is a push-down automaton over tokens. Memory is bounded by the nesting: a text is kept only where
it names a field on the way to a model, or is one.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable
from enum import Enum, auto
from functools import lru_cache
from typing import Final, TypeAlias
from urllib.parse import unquote_to_bytes

import attrs

ModelPath: TypeAlias = tuple[str | None, ...]
"""The way to a model: names of fields, and None for each item of a list."""

_MAX_DEPTH: Final = 200
_MAX_NAME: Final = 512  # bytes of a name or a model that are kept, escapes and all
_SPACE: Final = re.compile(rb"[ \t\r\n]*")
# A part of a string, up to its end or to an escape that is not complete yet.
_TEXT: Final = re.compile(
    rb"[^\"\\\x00-\x1f]*(?:\\(?:[\"\\/bfnrt]|u[0-9a-fA-F]{4})[^\"\\\x00-\x1f]*)*"
)
_ESCAPE: Final = re.compile(rb"\\(?:u[0-9a-fA-F]{0,3})?")
_SCALAR: Final = re.compile(rb"[-+.0-9A-Za-z]+")
_SCALARS: Final = re.compile(
    rb"true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
)
_LONGEST_SCALAR: Final = 4096
_QUOTE: Final = 0x22


class AmbiguousBodyError(ValueError):
    """It is not certain which models a body names; the text says why, and repeats nothing."""


@attrs.define(eq=False)
class _Node:
    """One step on the way to models."""

    names: dict[str, _Node] = attrs.field(factory=dict)
    each: _Node | None = None
    is_model: bool = False


class _Want(Enum):
    """What may come next."""

    VALUE = auto()
    VALUE_OR_END = auto()
    NAME = auto()
    NAME_OR_END = auto()
    COLON = auto()
    COMMA_OR_END = auto()
    NOTHING = auto()


@attrs.define(eq=False)
class _Frame:
    """An object or list that is open."""

    is_list: bool
    node: _Node | None
    seen: set[str] = attrs.field(factory=set)  # names on the way to a model, in an object


def _tree(paths: Iterable[ModelPath]) -> _Node:
    root = _Node()
    for path in paths:
        node = root
        for step in path:
            if step is None:
                node.each = node.each or _Node()
                node = node.each
            else:
                node = node.names.setdefault(step, _Node())
        node.is_model = True
    return root


class _Object(list[tuple[str, object]]):
    """The fields of a parsed object, with those that are there twice."""


def _refuse_constant(_: str) -> object:
    raise AmbiguousBodyError("it is not JSON")


_decoder: Final = json.JSONDecoder(object_pairs_hook=_Object, parse_constant=_refuse_constant)


def read_whole(data: bytes, paths: Iterable[ModelPath]) -> tuple[str, ...]:
    """Return the models that a body names; as a `ModelReader`, for one that is short.

    Python's parser is as strict as the reader and much quicker, but it holds all of the body.

    Raises:
        AmbiguousBodyError: It is not certain which models the body names.
    """
    try:
        document = _decoder.decode(data.decode("utf-8"))
    except AmbiguousBodyError:
        raise
    except (ValueError, RecursionError):
        raise AmbiguousBodyError("it is not JSON in UTF-8") from None
    if type(document) is not _Object:
        raise AmbiguousBodyError("it is not a JSON object")
    models: list[str] = []
    _find(document, _cached_tree(tuple(paths)), models)
    return tuple(models)


@lru_cache(maxsize=100)
def _cached_tree(paths: tuple[ModelPath, ...]) -> _Node:
    return _tree(paths)


def read_parameter(query: bytes, name: str) -> str | None:
    """Return the model that a parameter of a query names; None if it is not there.

    Raises:
        AmbiguousBodyError: It is not certain which model it names.
    """
    found: list[str] = []
    for part in re.split(rb"[&;]", query):
        key, _, value = (
            unquote_to_bytes(each.replace(b"+", b" ")) for each in part.partition(b"=")
        )
        near = "".join(filter(str.isprintable, key.decode("latin-1"))).strip().casefold()
        if near.partition("[")[0] != name:
            continue
        if key != name.encode():
            raise AmbiguousBodyError(f"it has a parameter that is {name!r} in another spelling")
        try:
            found.append(value.decode())
        except UnicodeDecodeError:
            raise AmbiguousBodyError("its query is not UTF-8") from None
    if len(found) > 1:
        raise AmbiguousBodyError(f"it has the parameter {name!r} twice")
    return _checked_model(found[0]) if found else None


def _find(value: object, node: _Node, models: list[str]) -> None:
    if isinstance(value, str):
        models.append(_checked_model(value if node.is_model else None))
    elif type(value) is _Object and node.names:
        seen: set[str] = set()
        for name, inner in value:
            found = _checked_name(name, node, seen)
            if found is not None:
                _find(inner, found, models)
    elif type(value) is list and node.each is not None:
        for inner in value:
            _find(inner, node.each, models)
    elif value is not None:
        if isinstance(value, list):
            raise AmbiguousBodyError("it has another kind of value where a model is named")
        raise AmbiguousBodyError("it has a value other than a text for a model")


def _checked_model(name: str | None) -> str:
    if name is None:
        raise AmbiguousBodyError("it has a text where models are listed or described")
    if not 0 < len(name) <= _MAX_NAME or not name.isprintable():
        raise AmbiguousBodyError("it names a model with characters that no model has")
    return name


def _checked_name(name: str, node: _Node, seen: set[str]) -> _Node | None:
    """Return the node of a field; None if it is not on the way to a model."""
    if name not in node.names:
        # What any parser could take for the name: it may drop what it cannot read.
        near = "".join(filter(str.isprintable, name[:_MAX_NAME])).strip().casefold()
        if near in node.names:
            raise AmbiguousBodyError(f"it has a field that is {near!r} in another spelling")
        return None
    if name in seen:
        raise AmbiguousBodyError(f"it has the field {name!r} twice")
    seen.add(name)
    return node.names[name]


@attrs.define(eq=False, on_setattr=attrs.setters.NO_OP)  # a converter makes assignments slow
class ModelReader:
    """The reader of one body: feed it all, then `finish`."""

    _tree: _Node = attrs.field(converter=_tree)
    models: list[str] = attrs.field(factory=list, init=False)
    """The models that were found so far, in the order of the body."""
    _stack: list[_Frame] = attrs.field(factory=list, init=False)
    _want: _Want = attrs.field(default=_Want.VALUE, init=False)
    _node: _Node | None = attrs.field(default=None, init=False)  # of the value that comes next
    _rest: bytes = attrs.field(default=b"", init=False)  # of a token that is not complete
    _text: bytearray | None = attrs.field(default=None, init=False)  # of an open string
    _is_name: bool = attrs.field(default=False, init=False)  # that string is a name
    _utf8: codecs.IncrementalDecoder = attrs.field(
        factory=codecs.getincrementaldecoder("utf-8"), init=False
    )

    def __attrs_post_init__(self) -> None:
        """Expect the document."""
        self._node = self._tree

    def feed(self, data: bytes) -> None:
        """Read the next bytes.

        Raises:
            AmbiguousBodyError: It is not certain which models the body names.
        """
        try:
            self._utf8.decode(data)
        except UnicodeDecodeError:
            raise AmbiguousBodyError("it is not JSON in UTF-8") from None
        data, at = self._rest + data, 0
        self._rest = b""
        while True:
            if self._text is not None:
                at = self._read_text(data, at)
                if self._text is not None:
                    return
            space = _SPACE.match(data, at)
            at = space.end() if space is not None else at
            if at == len(data):
                return
            char = data[at : at + 1]
            if char == b'"':
                self._open_text()
                at += 1
            elif char in b"{}[]:,":
                self._read_mark(char)
                at += 1
            else:
                scalar = _SCALAR.match(data, at)
                if scalar is None:
                    raise AmbiguousBodyError("it is not JSON in UTF-8")
                if scalar.end() - at > _LONGEST_SCALAR:
                    raise AmbiguousBodyError("it has a number that is too long")
                if scalar.end() == len(data):  # the rest of it may follow
                    self._rest = data[at:]
                    return
                self._read_scalar(scalar[0])
                at = scalar.end()

    def finish(self) -> tuple[str, ...]:
        """Return the models that the body names, once it has ended.

        Raises:
            AmbiguousBodyError: It is not complete.
        """
        if self._want is not _Want.NOTHING or self._rest:
            raise AmbiguousBodyError("it is not a complete JSON object")
        return tuple(self.models)

    # -- strings

    def _open_text(self) -> None:
        self._is_name = self._want in (_Want.NAME, _Want.NAME_OR_END)
        if not self._is_name:
            self._expect_value()
        self._text = bytearray()

    def _read_text(self, data: bytes, at: int) -> int:
        text = self._text
        part = _TEXT.match(data, at)
        if text is None or part is None:
            raise AssertionError("a part of a text may be empty, so there is always one")
        if self._keeps_text() and len(text) <= _MAX_NAME:
            text += part[0][: _MAX_NAME + 1 - len(text)]
        at = part.end()
        if at == len(data):
            return at
        if data[at] == _QUOTE:
            self._text = None
            self._close_text(bytes(text))
            return at + 1
        escape = _ESCAPE.fullmatch(data, at)
        if escape is None:
            raise AmbiguousBodyError("it is not JSON in UTF-8")
        self._rest = data[at:]
        return len(data)

    def _keeps_text(self) -> bool:
        if self._is_name:
            node = self._stack[-1].node
            return node is not None and bool(node.names)
        return self._node is not None

    def _close_text(self, raw: bytes) -> None:
        if self._is_name:
            self._close_name(raw)
            return
        node = self._node
        if node is not None:
            if not node.is_model:
                _checked_model(None)
            name = _decode(raw) if len(raw) <= _MAX_NAME else ""
            self.models.append(_checked_model(name or ""))
        self._end_value()

    def _close_name(self, raw: bytes) -> None:
        frame = self._stack[-1]
        self._want, self._node = _Want.COLON, None
        if frame.node is None or not frame.node.names:
            return
        name = _decode(raw) if len(raw) <= _MAX_NAME else None
        if name is not None:  # else it is too long for one
            self._node = _checked_name(name, frame.node, frame.seen)

    # -- everything else

    def _expect_value(self) -> None:
        if self._want not in (_Want.VALUE, _Want.VALUE_OR_END):
            raise AmbiguousBodyError("it is not JSON")
        if not self._stack:
            raise AmbiguousBodyError("it is not a JSON object")

    def _read_scalar(self, token: bytes) -> None:
        self._expect_value()
        if not _SCALARS.fullmatch(token):
            raise AmbiguousBodyError("it is not JSON")
        if self._node is not None and token != b"null":
            raise AmbiguousBodyError("it has a value other than a text for a model")
        self._end_value()

    def _read_mark(self, mark: bytes) -> None:
        want = self._want
        if mark == b":" and want is _Want.COLON:
            self._want = _Want.VALUE
        elif mark == b"," and want is _Want.COMMA_OR_END and self._stack:
            frame = self._stack[-1]
            self._want = _Want.VALUE if frame.is_list else _Want.NAME
            self._node = frame.node.each if frame.is_list and frame.node is not None else None
        elif mark in b"{[" and want in (_Want.VALUE, _Want.VALUE_OR_END):
            self._open(is_list=mark == b"[")
        elif mark in b"}]" and self._may_end(is_list=mark == b"]"):
            self._stack.pop()
            self._end_value()
        else:
            raise AmbiguousBodyError("it is not JSON")

    def _open(self, *, is_list: bool) -> None:
        node = self._node
        if is_list and not self._stack:
            raise AmbiguousBodyError("it is not a JSON object")
        if node is not None and (node.is_model or (node.each is None) == is_list):
            raise AmbiguousBodyError("it has another kind of value where a model is named")
        if len(self._stack) == _MAX_DEPTH:
            raise AmbiguousBodyError("it is nested too deeply")
        self._stack.append(_Frame(is_list, node))
        self._want = _Want.VALUE_OR_END if is_list else _Want.NAME_OR_END
        self._node = node.each if is_list and node is not None else None

    def _may_end(self, *, is_list: bool) -> bool:
        first = _Want.VALUE_OR_END if is_list else _Want.NAME_OR_END
        here = bool(self._stack) and self._stack[-1].is_list == is_list
        return here and self._want in (first, _Want.COMMA_OR_END)

    def _end_value(self) -> None:
        self._want = _Want.COMMA_OR_END if self._stack else _Want.NOTHING
        self._node = None


def _decode(raw: bytes) -> str | None:
    """Return the text of the inside of a string; None if it is not UTF-8."""
    try:
        return str(json.loads(b'"' + raw + b'"'))
    except ValueError:
        return None
