"""Which paths of a provider are open, and how a path is read so that none slips past the rules.

Theory of operation. The gateway and the upstream read the same bytes; a path is dangerous where
the two could read it differently, because the central key may do far more than the open routes
offer. So a path is not repaired but refused when any reading of it has a dot segment, an empty
segment, or a byte that some server treats as a separator (backslash, ";", "?", "#", a second
layer of percent-encoding, anything outside ASCII). The fixed part of a route must be there byte
for byte; only below a route that is open as a subtree may a segment carry percent-encodings, and
there it is passed on as it came (model names hold an encoded slash).
"""

import re
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

import attrs

from bridgepool.gateway.providers._error_form import ErrorForm

# As sent, before decoding. "%" is looked at in `_is_safe_segment`.
_RAW_SEGMENT: Final = re.compile(rb"[A-Za-z0-9._~!$&'()*+,=:@%-]+")
# As any server may read it, after decoding once. No "%": nothing may be left to decode again,
# and no escape may have been incomplete.
_DECODED_SEGMENT: Final = re.compile(rb"[A-Za-z0-9._~!$&'()*+,=:@ -]+")


def methods(*names: str) -> frozenset[bytes]:
    """Spell a set of methods for a `Route`."""
    return frozenset(name.encode("ascii") for name in names)


GET: Final = methods("GET", "HEAD")
"""For a `Route` that is read."""
POST: Final = methods("POST")
"""For a `Route` that is called."""
BODIES: Final = methods("POST", "PUT", "PATCH")
"""The methods whose requests carry a body, unless a `Route` says otherwise."""


@attrs.frozen(kw_only=True)
class WebSocketMessages:
    """What the messages of a websocket say, in JSON: which ask for a response, of which model.

    With it, rules on models and limits hold for each response on a websocket.
    """

    model_parameter: str = ""
    """The parameter of the query that names the model of all responses; empty if each message that
    asks for one names it."""
    models: tuple[tuple[str | None, ...], ...] = (("model",),)
    """Where messages of the client name models; as `Route.models`."""
    asks: str = "response.create"
    """The `type` of a client's message that asks for a response."""
    begins: str = "response.created"
    """The `type` of the provider's first message of a response."""
    fails: str = "error"
    """The `type` of the provider's message in place of a response that was asked for. The limits
    take a message with usage for the end of a response."""
    ends: frozenset[str] = frozenset(
        {"response.completed", "response.done", "response.failed", "response.incomplete"}
    )
    """The `type` of the provider's last message of a response, each of them: a websocket that is to
    be closed is closed after it."""
    trails: bool = False
    """More messages that belong to a response may come after its last one, such as what was said in
    its input: the websocket is closed when no more come."""


@attrs.frozen
class Route:
    """One open route of a provider type, below the base URL."""

    path: bytes
    """Fixed, such as ``b"/chat/completions"``."""
    methods: frozenset[bytes]
    """Methods open on the path itself; may be empty."""
    below: frozenset[bytes] = frozenset()
    """Methods open on everything under it; empty when the route has no subtree."""
    bodies: frozenset[bytes] = BODIES
    """Methods whose requests may carry a body. A body on any other is refused: an upstream that
    does not read it would take it for the next request on the connection, another client's."""
    route_class: str = "other"
    """The class of requests that it belongs to, such as `generate`: what fails together. A breaker
    is for one class of one provider."""
    below_class: str | None = None
    """The class of what is under it; None if that is the same."""
    errors: ErrorForm | None = None
    """How errors look on this route; None: as those of the type."""
    websocket: bool = False
    """Whether a websocket may be opened on the path itself."""
    messages: WebSocketMessages | None = None
    """What the messages of such a websocket say. None: a client with limits, or with a rule on
    models, can open none, since its responses cannot be judged."""
    models: tuple[tuple[str | None, ...], ...] = (("model",),)
    """Where JSON bodies of its requests name models: fields by their names, None for each item of a
    list. Rules on models are judged by all of them."""
    names_model: bool = True
    """Whether each request on the path itself names a model, or the upstream would choose one."""


STORED: Final = "stored"
"""The class of requests about what one provider keeps, such as a batch: no other can serve them."""


class RouteMatch(NamedTuple):
    """An open route that a request fits."""

    route: Route
    """The route."""
    path: bytes
    """The path below the provider's base URL, to be sent as it is."""
    pattern: str
    """The pattern of the paths that the route opens, below the provider's base URL: its own path,
    or ``/*`` after it for everything under it. Rules and records name the route so."""

    @property
    def names_model(self) -> bool:
        """Whether such a request names a model, or the upstream would choose one."""
        return self.route.names_model and self.path == self.route.path

    @property
    def route_class(self) -> str:
        """The class of requests that it belongs to."""
        route = self.route
        below = route.below_class if self.path != route.path else None
        return below if below is not None else route.route_class


class Target(NamedTuple):
    """A request target of the gateway in its parts: ``/{provider}{path}?{query}``."""

    provider: str
    """The first segment. It may name no provider at all."""
    path: bytes
    """What follows it; empty, or with a leading slash."""
    query: bytes | None
    """Without the ``?``; None when there was none. Kept byte for byte."""


def split_target(target: bytes) -> Target | None:
    """Take a request target in origin form apart.

    Returns:
        None when its first segment cannot be a provider's name, so that the answer is 404.
    """
    path, mark, query = target.partition(b"?")
    if not path.startswith(b"/"):
        return None
    name, slash, rest = path[1:].partition(b"/")
    if not name or not name.isascii():
        return None
    return Target(name.decode("ascii"), slash + rest, query if mark else None)


def is_safe_tail(tail: bytes) -> bool:
    """Return whether every reading of these path segments stays below where they start."""
    return all(_is_safe_segment(segment) for segment in tail.split(b"/"))


def _is_safe_segment(segment: bytes) -> bool:
    if not _RAW_SEGMENT.fullmatch(segment):
        return False
    if b"%" not in segment:
        return segment not in (b".", b"..")
    # An encoded slash is one segment to some servers and two to others: both must be safe.
    return all(
        _DECODED_SEGMENT.fullmatch(part) is not None and part.strip() not in (b"", b".", b"..")
        for part in unquote_to_bytes(segment).split(b"/")
    )
