"""Where the answers of an API tell what a request has used. Pure.

A provider type declares it as data (`UsageFields`); `bridgepool.gateway.usage` reads by it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import GenericAlias
from typing import Any, Final, TypedDict

import attrs
import msgspec

TEXTS: Final = ("model", "response_id", "finish", "event")
COUNTS: Final = ("input", "output", "total", "cached_read", "cached_write", "reasoning")
Paths = tuple[str, ...]


@attrs.frozen(eq=False)
class PathNode:
    """Where reading stands in a document: what a value is, and what may be below it."""

    field: str | None
    """The field of `UsageFields` that a value here is of."""
    names: Mapping[str, PathNode]
    """By the names in an object."""
    each: PathNode | None
    """For every element of a list."""
    kept: Any
    """The type that a value here is decoded to. Every JSON value fits; of an object, only what is
    at `names` is kept."""


@attrs.frozen(kw_only=True)
class UsageFields:
    """Where the answers of an API tell what a request has used.

    A path names the way into a JSON document, its names joined by dots; ``*`` stands for every
    element of a list. One set of paths serves whole answers and the events of streams. Counts of
    one answer only grow, so the largest of several is taken; of texts, the last.
    """

    answers: re.Pattern[bytes]
    """The paths below the base URL that are read, of POST requests; matched as a whole. Those that
    return an earlier answer once more must not be among them."""
    stream_option: re.Pattern[bytes] | None = None
    """The paths whose streams tell usage only if the request asks for it by
    ``stream_options.include_usage``; see `ProviderFields.include_usage`."""
    input: Paths = ()
    """Tokens of the input, cached ones included; see `input_without_cached`."""
    output: Paths = ()
    """Tokens of the output, reasoning included."""
    total: Paths = ()
    """Tokens of both together: those of the input where an answer tells nothing else, as some
    embeddings and rerankings do."""
    cached_read: Paths = ()
    """Tokens of the input that were read from a cache."""
    cached_write: Paths = ()
    """Tokens of the input that were written to a cache."""
    reasoning: Paths = ()
    """Tokens of the output that were used for reasoning."""
    input_without_cached: bool = False
    """The API counts cached tokens beside `input`, so they are added to it."""
    model: Paths = ()
    """The model that answered."""
    response_id: Paths = ()
    """The API's own id of the answer."""
    finish: Paths = ()
    """Why the output ended."""
    unfinished: frozenset[str] = frozenset()
    """Values at `finish` with which it has not ended."""
    tools: Paths = ()
    """Names of the tools that the model called."""
    event: Paths = ()
    """The type of an event."""
    final_events: frozenset[str] = frozenset()
    """The types of events that are the last of a stream."""
    _tree: PathNode = attrs.field(init=False, repr=False, eq=False)
    _decode: Callable[[bytes | bytearray], object] = attrs.field(init=False, repr=False, eq=False)

    @_tree.default
    def _grow(self) -> PathNode:
        paths: dict[Paths, str] = {
            tuple(path.split(".")): field
            for field in (*COUNTS, *TEXTS, "tools")
            for path in getattr(self, field)
        }
        return _node(paths)

    @_decode.default
    def _make_decoder(self) -> Callable[[bytes | bytearray], object]:
        return msgspec.json.Decoder(self._tree.kept).decode


def tree_of(fields: UsageFields) -> PathNode:
    """Return all paths as one tree."""
    return fields._tree


def decoder_of(fields: UsageFields) -> Callable[[bytes | bytearray], object]:
    """Return what decodes a JSON document, without what is at none of the paths."""
    return fields._decode


def _node(paths: Mapping[Paths, str]) -> PathNode:
    below: dict[str, dict[Paths, str]] = {}
    for path, field in paths.items():
        if path:
            below.setdefault(path[0], {})[path[1:]] = field
    nodes = {name: _node(inner) for name, inner in below.items()}
    each = nodes.pop("*", None)
    return PathNode(paths.get(()), nodes, each, _kept(nodes, each))


def _kept(names: Mapping[str, PathNode], each: PathNode | None) -> Any:
    inside = {name: node.kept for name, node in names.items()}
    # mypy knows typed dicts only by names that stand in the source; these come from the paths.
    objects: Any = TypedDict("Kept", inside, total=False) if inside else dict  # type: ignore[operator]
    lists: Any = list if each is None else GenericAlias(list, each.kept)
    return objects | lists | str | int | float | bool | None
