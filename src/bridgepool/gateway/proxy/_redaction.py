"""What the gateway's log and its own answers repeat of a request. Pure.

Theory of operation. A client may put anything into a path, by mistake a key: a base URL with the
key in it, key and path swapped, percent-encoded or not. Rules that look for keys miss the next
kind of them, and an upstream's own may look like anything. So it is the other way round: a
segment is shown if it is the name of a provider, or a word that the APIs themselves are made of;
whatever else stands there is ``*``. A key is neither, in no encoding.

That hides the ids of models, responses, batches and the like, on purpose: who knows the id of a
stored response can read, continue and delete it by the key that all clients share. What a client
got can be found by the time, client and key of the line, and in the provider's own log.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from bridgepool.gateway.providers import ProviderType

HIDDEN: Final = "*"
"""Stands for what is not shown."""

_MOST_SEGMENTS: Final = 12  # what comes behind is one more

# Below open routes.
_BELOW: Final = "cancel compact input_items input_tokens items results"
# Of routes that are closed: clients that ask for them are to be understood.
_CLOSED: Final = (
    "assistants batches checkpoints content engines events files fine_tuning healthz jobs metrics "
    "organization organizations readyz realtime runs sessions steps threads uploads vector_stores"
)


_METHODS: Final = {
    name.encode("ascii"): name
    for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")
}


@attrs.define(eq=False)
class PathRedactor:
    """Shows paths, by the words of the provider types in force.

    Args:
        types: Those types.
    """

    _types: Iterable[ProviderType]
    words: frozenset[str] = attrs.field(init=False)
    """What paths of the APIs are made of; also the empty text, of two slashes in a row."""
    # All fixed paths below a provider's name: most requests are for one of them, as it stands.
    _routes: Mapping[bytes, str] = attrs.field(init=False)
    _shown: Mapping[bytes, str] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        paths = [kind.prefix + route.path for kind in self._types for route in kind.routes]
        self._routes = {path: path.decode("ascii") for path in paths}
        known = {word for path in self._routes.values() for word in path.split("/")}
        self.words = frozenset(known.union(_BELOW.split(), _CLOSED.split()))
        self._shown = {word.encode("ascii"): word for word in self.words}

    def redact(self, path: bytes, provider: str = "-") -> str:
        """Return a path as it may be shown, in ASCII. Half a microsecond for a fixed route.

        Args:
            path: As it came, without its query.
            provider: The provider that its first segment names; ``-`` if none is known.
        """
        if provider != "-":
            route = self._routes.get(path[len(provider) + 1 :])
            if route is not None:
                return f"/{provider}{route}"
        shown = [self._shown.get(segment, HIDDEN) for segment in path.split(b"/", _MOST_SEGMENTS)]
        if provider != "-":
            shown[1] = provider
        return "/".join(shown)


def redact_method(method: bytes) -> str:
    """Return a method as it may be shown: any token can be sent as one."""
    return _METHODS.get(method, HIDDEN)
