"""Refusals: the gateway's own error responses.

A refusal is a value, not an exception: most come from everyday look-ups. SDKs read errors from
different bodies, so a refusal is rendered in the `ErrorForm` of the type of the provider that it
concerns, or of the type that recognises the request.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import attrs
import msgspec

from bridgepool.gateway.providers import ErrorDetails, ErrorForm, ProviderType
from bridgepool.gateway.proxy._request_id import REQUEST_ID_HEADER
from bridgepool.http import BodyTooLarge, Headers, RemoteProtocolError

_MAX_MODEL: Final = 100  # characters of a model in a message
_MAX_NAMES: Final = 20  # of providers in a message


class Retry(enum.Enum):
    """What a refusal tells clients about retries."""

    CLIENT_DECIDES = "client decides"
    """Nothing: the SDK's own rule for the status applies."""
    USELESS = "useless"
    """No retry: the same request fails until an operator acts."""
    SOON = "soon"
    """Retry after the time in `Retry-After`."""


@attrs.frozen
class Refusal:
    """One error response of the gateway."""

    status: int
    """The HTTP status."""
    code: str
    """The error, for programs and logs: `provider_disabled`, `upstream_timeout` …"""
    message: str
    """The same for people. Shown to clients: holds no address, key or setting."""
    retry: Retry = Retry.CLIENT_DECIDES
    retry_after: int = 1
    """Whole seconds, with `Retry.SOON`."""
    headers: Headers = ()
    """More fields of the answer."""


NOT_READY = Refusal(503, "not_ready", "The gateway has no providers yet.", Retry.SOON)
SHUTTING_DOWN = Refusal(503, "shutting_down", "The gateway is shutting down.", Retry.SOON)
BRIDGE_FAILED = Refusal(503, "bridge_failed", "The gateway could not serve this client.")
TOO_MANY_CONNECTIONS = Refusal(
    503,
    "too_many_connections",
    "The gateway has too many connections, in total or from this address.",
    Retry.SOON,
)
GATEWAY_OVERLOADED = Refusal(
    503, "gateway_overloaded", "The gateway has too many requests at the moment.", Retry.SOON
)
USAGE_UNAVAILABLE = Refusal(
    503, "usage_unavailable", "The gateway cannot record usage at the moment.", Retry.SOON
)
WRONG_CLIENT_KEY = Refusal(
    401, "invalid_api_key", "The gateway does not know this API key.", Retry.USELESS
)
NO_CLIENT_KEY = Refusal(
    401,
    "no_api_key",
    "The request has no API key. Send the gateway's key for you in one of: "
    "Authorization (Bearer), X-Api-Key, Api-Key, X-Goog-Api-Key, X-Bridgepool-Key.",
    Retry.USELESS,
)
ORIGIN_NOT_ALLOWED = Refusal(
    403,
    "origin_not_allowed",
    "Web pages of this origin may not call the gateway. Its option --cors-origin allows one.",
    Retry.USELESS,
)
WEBSOCKET_NOT_SUPPORTED = Refusal(
    426,
    "websocket_not_supported",
    "The gateway does not relay websockets on this path; use HTTP.",
    Retry.USELESS,
    # RFC 9110 section 15.5.22 requires it: the protocol that is spoken here.
    headers=((b"upgrade", b"HTTP/1.1"),),
)
UPSTREAM_WITHOUT_WEBSOCKETS = attrs.evolve(
    WEBSOCKET_NOT_SUPPORTED,
    message="The provider does not speak websockets on this path; use HTTP.",
)
TOO_MANY_WEBSOCKETS = Refusal(
    426,
    "too_many_websockets",
    "Too many websockets are open, in total or of this client; use HTTP.",
    Retry.USELESS,
    headers=((b"upgrade", b"HTTP/1.1"),),
)
WEBSOCKET_VERSION = Refusal(
    426,
    "websocket_version",
    "The gateway relays websockets of version 13 only.",
    Retry.USELESS,
    headers=((b"upgrade", b"websocket"), (b"sec-websocket-version", b"13")),
)
AUTHORIZATION_UNAVAILABLE = Refusal(
    503,
    "authorization_unavailable",
    "The gateway cannot check this API key at the moment.",
    Retry.SOON,
)
UPSTREAM_UNREACHABLE = Refusal(502, "upstream_unreachable", "The provider cannot be reached.")
UPSTREAM_BAD_ANSWER = Refusal(
    502, "upstream_bad_answer", "The provider's answer could not be understood."
)
UPSTREAM_CUT = Refusal(502, "upstream_cut", "The provider ended its answer before it was complete.")
UPSTREAM_TIMEOUT = Refusal(504, "upstream_timeout", "The provider did not answer in time.")
UPSTREAM_BUSY = Refusal(
    503, "upstream_busy", "All connections to the provider are in use.", Retry.SOON
)
PROVIDER_OVERLOADED = Refusal(
    503,
    "provider_overloaded",
    "Too many requests to the provider are running at the moment.",
    Retry.SOON,
)
UPSTREAM_FAILED = Refusal(502, "upstream_failed", "The provider failed.")
CLIENT_SHARE_EXCEEDED = Refusal(
    429,
    "client_share_exceeded",
    "Too many requests of this client to the provider are running at the same time.",
    Retry.SOON,
)
UPSTREAM_REDIRECTS = Refusal(
    502, "upstream_redirects", "The provider redirects elsewhere.", Retry.USELESS
)
PROVIDER_KEY_REFUSED = Refusal(
    502, "provider_key_refused", "The provider refused the gateway's key for it.", Retry.USELESS
)
PROVIDER_KEYS_EXHAUSTED = Refusal(
    429,
    "provider_keys_exhausted",
    "The provider limits the rate of every key that the gateway has for it.",
    Retry.SOON,
)
OWN_KEY_MISSING = Refusal(
    401,
    "own_key_missing",
    "This provider is called with your own key: send your gateway key in X-Bridgepool-Key.",
    Retry.USELESS,
)
DRAIN_DEADLINE = Refusal(
    503, "drain_deadline", "The provider was replaced and this request outlived the drain."
)
BODY_TOO_LARGE = Refusal(413, "body_too_large", "The request's body is too large.", Retry.USELESS)
INTERNAL = Refusal(500, "internal_error", "The gateway failed; its log says why.")


def unknown_provider(names: Sequence[str]) -> Refusal:
    """Refuse a path that begins with no provider's name.

    Without that name: the path may begin with a key that was put there by mistake.

    Args:
        names: Those of the providers that there are for this client, whom the gateway knows.
    """
    shown = ", ".join(names[:_MAX_NAMES]) + (" …" if len(names) > _MAX_NAMES else "")
    there_are = f"The providers are: {shown}." if names else "There is none now."
    return Refusal(
        404,
        "unknown_provider",
        f"There is no provider of the name that the path begins with. {there_are}",
        Retry.USELESS,
    )


def unknown_route(name: str, method: str, path: str, similar: str | None = None) -> Refusal:
    """Refuse a path that the provider does not open.

    Args:
        name: the provider's.
        method: redacted.
        path: below the provider's name, without what may be a key: clients log error messages.
        similar: a route that a client with a slip in its base URL meant.
    """
    hint = f" It has {similar!r}: correct the base URL." if similar is not None else ""
    return Refusal(
        404,
        "unknown_route",
        f"Provider {name!r} has no route {method} {path!r} on this gateway.{hint}",
        Retry.USELESS,
    )


KEY_EXPIRED = Refusal(403, "key_expired", "This API key has expired.", Retry.USELESS)
MODEL_MISSING = Refusal(
    403,
    "model_not_allowed",
    "This client may use certain models only, and the request names none.",
    Retry.USELESS,
)
NO_PRICE_TABLE = Refusal(
    503,
    "no_price_table",
    "This client has a budget of money, and the gateway has no price table.",
    Retry.USELESS,
)
TOO_MANY_BODIES = Refusal(
    503, "too_many_bodies", "The gateway holds too many request bodies.", Retry.SOON
)


def provider_not_allowed(name: str) -> Refusal:
    """Refuse a provider that the client may not use."""
    message = f"This client may not use the provider {name!r}."
    return Refusal(403, "provider_not_allowed", message, Retry.USELESS)


def route_not_allowed(pattern: str) -> Refusal:
    """Refuse a route that the client may not use."""
    message = f"This client may not use the route {pattern!r}."
    return Refusal(403, "route_not_allowed", message, Retry.USELESS)


def model_not_allowed(name: str) -> Refusal:
    """Refuse a model that the client may not use."""
    message = f"This client may not use the model {name[:_MAX_MODEL]!r}."
    return Refusal(403, "model_not_allowed", message, Retry.USELESS)


def model_not_readable(why: str, status: int = 400) -> Refusal:
    """Refuse a body that does not tell for certain which models it is for."""
    message = f"This client may use certain models only, and the body cannot be read: {why}."
    return Refusal(status, "model_not_readable", message, Retry.USELESS)


def rate_limited(rule: str, retry_after: int, headers: Headers) -> Refusal:
    """Refuse a request beyond a client's rate."""
    message = f"This client has reached its limit of {rule}; retry in {retry_after} s."
    return Refusal(429, "rate_limited", message, Retry.SOON, retry_after, headers)


def no_share(rule: str, retry_after: int, headers: Headers) -> Refusal:
    """Refuse a request of a client with a budget of which more is left, but not at this gateway."""
    message = (
        f"The gateway cannot get a share of this client's budget of {rule} at the moment; "
        f"retry in {retry_after} s."
    )
    return Refusal(429, "rate_limited", message, Retry.SOON, retry_after, headers)


def budget_exceeded(rule: str, next_begins: str, headers: Headers) -> Refusal:
    """Refuse a request beyond a client's budget; the next one begins at that time."""
    message = f"This client has spent its budget of {rule}; the next begins at {next_begins}."
    return Refusal(429, "budget_exceeded", message, Retry.USELESS, headers=headers)


def no_budget(rule: str, headers: Headers) -> Refusal:
    """Refuse any request of a client whose budget is 0."""
    message = f"This client's budget is 0 ({rule}): only lists of models are answered."
    return Refusal(429, "budget_exceeded", message, Retry.USELESS, headers=headers)


def unexpected_body(method: str) -> Refusal:
    """Refuse a body on a method that takes none; `method` is redacted."""
    message = f"A {method} request takes no body here."
    return Refusal(400, "unexpected_body", message, Retry.USELESS)


def bad_handshake() -> Refusal:
    """Refuse a websocket whose handshake has no sound key."""
    message = "The handshake of the websocket has no Sec-WebSocket-Key of 16 bytes."
    return Refusal(400, "bad_websocket_handshake", message, Retry.USELESS)


def provider_disabled(name: str) -> Refusal:
    """Refuse a request to a disabled provider."""
    return Refusal(503, "provider_disabled", f"Provider {name!r} is disabled.", Retry.USELESS)


def provider_misconfigured(name: str) -> Refusal:
    """Refuse a request to a provider without a runtime; the reason is in the log only."""
    return Refusal(
        503, "provider_misconfigured", f"Provider {name!r} is misconfigured.", Retry.USELESS
    )


def circuit_open(retry_after: float) -> Refusal:
    """Refuse a request to a provider that failed again and again."""
    message = "The provider has failed repeatedly; requests to it are paused."
    seconds = max(1, math.ceil(retry_after))
    return Refusal(503, "circuit_open", message, Retry.SOON, seconds)


def authorization_unavailable(retry_after: float) -> Refusal:
    """Refuse a key that cannot be verified because the authority is unreachable."""
    return attrs.evolve(AUTHORIZATION_UNAVAILABLE, retry_after=max(1, math.ceil(retry_after)))


def provider_keys_exhausted(seconds: float) -> Refusal:
    """Refuse a request for which no key is left, until the first of them is free again."""
    return attrs.evolve(PROVIDER_KEYS_EXHAUSTED, retry_after=max(1, math.ceil(seconds)))


def bad_body(error: RemoteProtocolError) -> Refusal:
    """Refuse a request body that is malformed, too large or too slow."""
    if isinstance(error, BodyTooLarge):
        return BODY_TOO_LARGE
    return Refusal(error.status_hint, "bad_request_body", f"The request's body: {error}")


_INVALID_CODES: Final = {
    408: "request_timeout",
    414: "target_too_long",
    417: "expectation_failed",
    431: "headers_too_large",
    501: "not_supported",
    505: "version_not_supported",
}


def invalid_request(error: RemoteProtocolError) -> Refusal:
    """Refuse input that is not an acceptable request."""
    status = error.status_hint
    retry = Retry.CLIENT_DECIDES if status == 408 else Retry.USELESS
    code = _INVALID_CODES.get(status, "bad_request")
    return Refusal(status, code, f"The request cannot be read: {error}.", retry)


def find_error_form(types: Iterable[ProviderType], path: bytes, headers: Headers) -> ErrorForm:
    """Guess from the request how its client reads errors, when the provider is unknown.

    Args:
        types: Those in force; at least one.
        path: the request's path without query.
        headers: names in lower case.
    """
    known = tuple(types)
    return next((kind for kind in known if kind.recognises(path, headers)), known[0]).errors


def render(refusal: Refusal, form: ErrorForm, request_id: str) -> tuple[Headers, bytes]:
    """Return headers and body of a refusal; the server adds the content-length."""
    body = msgspec.json.encode(_document(refusal, form, request_id))
    own_id = request_id.encode("ascii")
    headers: list[tuple[bytes, bytes]] = [
        (b"content-type", b"application/json"),
        (REQUEST_ID_HEADER, own_id),
    ]
    if form.request_id_header != REQUEST_ID_HEADER:
        headers.append((form.request_id_header, own_id))
    if refusal.retry is Retry.USELESS:
        headers.append((b"x-should-retry", b"false"))
    elif refusal.retry is Retry.SOON:
        headers.append((b"retry-after", b"%d" % refusal.retry_after))
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    headers.extend(refusal.headers)
    return tuple(headers), body


def render_event(
    refusal: Refusal, form: ErrorForm, request_id: str, sequence_number: int = 0
) -> bytes:
    """Return the server-sent event that ends a stream which cannot be completed.

    SDKs raise their own error for it. The stream is cut after it nevertheless, so that a client
    that does not know the event notices that the response is incomplete.
    """
    details = _details(refusal, request_id, sequence_number)
    document = (form.event_document or form.document)(details)
    name = f"event: {form.event_name}\n" if form.event_name is not None else ""
    return f"{name}data: {msgspec.json.encode(document).decode()}\n\n".encode()


def _document(refusal: Refusal, form: ErrorForm, request_id: str) -> Mapping[str, object]:
    return form.document(_details(refusal, request_id))


def _details(refusal: Refusal, request_id: str, sequence_number: int = 0) -> ErrorDetails:
    return ErrorDetails(refusal.status, refusal.code, refusal.message, request_id, sequence_number)
