"""Redaction of paths and methods for the access log and error messages. Pure.

Theory of operation. A client may put anything into a path, by mistake a key: a base URL with the
key in it, key and path swapped, percent-encoded or not. A rule that looks for keys misses the next
kind of key. So this is an allow-list: a segment is shown if it is the name of a provider or a word
of the APIs' own paths; ``*`` replaces every other segment. A key is neither, in any encoding.

That also hides the ids of models, responses and batches, on purpose: the id of a stored response
is enough to read, continue and delete it with the key that all clients share. A request can be
found by time, client and key in the access log, and in the provider's own log.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from bridgepool.gateway.providers import ProviderType

HIDDEN: Final = "*"
"""Replaces a segment or a method that is not shown."""

_WORD: Final = re.compile(rb"(?=.{1,24}\Z)[a-z]+(?:_[a-z]+)*|v[0-9]{1,2}(?:alpha|beta)?[0-9]?")
_MAX_SEGMENTS: Final = 12  # the rest counts as one segment

# Words below open routes.
_BELOW: Final = "cancel compact input_items input_tokens items results"
# Words of closed routes and of probes, so that the log shows which ones clients ask for.
_CLOSED: Final = (
    "api assistants batches checkpoints content engines events files fine_tuning healthz hello "
    "jobs metrics organization organizations readyz realtime runs sessions steps threads uploads "
    "vector_stores"
)


_METHODS: Final = {
    name.encode("ascii"): name
    for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")
}


@attrs.define(eq=False)
class PathRedactor:
    """Redacts paths by the words of provider types.

    Args:
        types: The types in force.
    """

    _types: Iterable[ProviderType]
    words: frozenset[str] = attrs.field(init=False)
    """The words of the APIs' paths; also the empty text, between two slashes in a row."""
    # All fixed paths below a provider's name: most requests are for exactly one of them.
    _routes: Mapping[bytes, str] = attrs.field(init=False)
    _shown: Mapping[bytes, str] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        paths = [kind.prefix + route.path for kind in self._types for route in kind.routes]
        self._routes = {path: path.decode("ascii") for path in paths}
        known = {word for path in self._routes.values() for word in path.split("/")}
        self.words = frozenset(known.union(_BELOW.split(), _CLOSED.split()))
        self._shown = {word.encode("ascii"): word for word in self.words}

    def redact(self, path: bytes, provider: str = "-") -> str:
        """Return the redacted path, in ASCII. Takes half a microsecond for a fixed route.

        Args:
            path: The path of the request without its query.
            provider: The provider that its first segment names; ``-`` if none is known.
        """
        if provider != "-":
            route = self._routes.get(path[len(provider) + 1 :])
            if route is not None:
                return f"/{provider}{route}"
        shown = [self._shown.get(segment, HIDDEN) for segment in path.split(b"/", _MAX_SEGMENTS)]
        if provider != "-":
            shown[1] = provider
        return "/".join(shown)

    def describe(self, path: bytes) -> str:
        """Return a path for the client that sent it, in ASCII: named, unless it may hold a key.

        A segment of small letters, or a version, is shown as well: a key has digits or capitals.
        """
        return "/".join(
            [
                segment.decode("ascii")
                if segment in self._shown or _WORD.fullmatch(segment)
                else HIDDEN
                for segment in path.split(b"/", _MAX_SEGMENTS)
            ]
        )


def redact_method(method: bytes) -> str:
    """Return the method if it is one of HTTP's own, else ``*``: clients can send any token."""
    return _METHODS.get(method, HIDDEN)
