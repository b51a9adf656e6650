"""Whose credentials a request carries: the client's come off, the provider's go on. Pure.

Headers are tuples of ``(name, value)`` pairs of bytes, names in lower case, as everywhere in
`bridgepool.http`.
"""

from typing import Final
from urllib.parse import unquote_to_bytes

import attrs

from bridgepool._secret import Secret
from bridgepool.gateway.providers._access_keys import CLIENT_KEYS, holds_access_key
from bridgepool.gateway.providers._provider import Provider
from bridgepool.gateway.providers._provider_type import Headers, ProviderType

GATEWAY_KEY_HEADER: Final = b"x-bridgepool-key"

# What authenticates to an upstream, whatever its type, so that a client's key for one never
# reaches another; and where the SDKs of those APIs put the one key that they have.
_UPSTREAM_KEYS: Final = (b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key")
_PROTOCOLS: Final = b"sec-websocket-protocol"
# A browser can set no header of a websocket's handshake; OpenAI's SDK puts its key here instead.
_KEY_PROTOCOL: Final = b"openai-insecure-api-key."
CREDENTIAL_PROTOCOLS: Final = (_KEY_PROTOCOL, b"openai-organization.", b"openai-project.")
"""What the protocols of a websocket begin with that are a key, or choose the account of one."""
KEY_HEADERS: Final = (GATEWAY_KEY_HEADER, *_UPSTREAM_KEYS, _PROTOCOLS)
"""Where a client may put its gateway key, in the order in which they are tried."""
_KEY_HEADER_SET: Final = frozenset(KEY_HEADERS)
# What only ever speaks to the gateway or to a proxy on the way; never for an upstream.
_NEVER_PASSED: Final = frozenset(
    {GATEWAY_KEY_HEADER, b"proxy-authorization", b"cookie", b"sec-websocket-protocol"}
)
# What chooses, or tells, the account that a key works for. With the central key that is the
# operator's choice, made in the provider's `headers`, and not for the eyes of clients.
ACCOUNT_HEADERS: Final = frozenset(
    b"""
    anthropic-organization-id anthropic-workspace-id ocp-apim-subscription-key
    openai-organization openai-project x-goog-user-project
    """.split()
)
# What makes a server use another method or path than those that the gateway has checked.
_OVERRIDES: Final = frozenset(
    b"""
    x-envoy-original-path x-host x-http-method x-http-method-override x-method-override
    x-middleware-subrequest x-original-host x-original-method x-original-uri x-original-url
    x-rewrite-url x-script-name x-sendfile-type x-waws-unencoded-url
    """.split()
)
_OVERRIDE_PREFIX: Final = b"x-accel-"
# The same in a query. Dots, hyphens and spaces stand for underscores, as some servers read them.
_QUERY_NAMES: Final = frozenset(
    b"""
    _method access_token api_key apikey auth_token key ocp_apim_subscription_key
    subscription_key x_api_key x_goog_api_key x_goog_user_project x_http_method_override
    """.split()
)
_AS_UNDERSCORE: Final = bytes.maketrans(b".- ", b"___")

CLIENT_CREDENTIALS: Final = _NEVER_PASSED | ACCOUNT_HEADERS | frozenset(_UPSTREAM_KEYS)
"""The headers of a client that do not reach an upstream that is called with a central key."""
_WITHHELD: Final = CLIENT_CREDENTIALS | _OVERRIDES


@attrs.frozen
class ClientToken:
    """The key by which a client wants to be known to the gateway."""

    token: bytes = attrs.field(repr=False)
    """The key as sent; not yet checked."""
    header: bytes
    """Where it stood."""

    @property
    def brings_own_key(self) -> bool:
        """Whether the usual headers were left free for the client's own upstream key."""
        return self.header == GATEWAY_KEY_HEADER


def find_client_tokens(headers: Headers) -> tuple[ClientToken, ...]:
    """Find what may be the client's gateway key, in the order in which it is to be tried.

    That is ``X-Bridgepool-Key``, then ``Authorization: Bearer``, ``X-Api-Key``, ``Api-Key`` and
    ``X-Goog-Api-Key``, then the protocols of a websocket. Many clients send a second credential
    beside their key, such as that of a session. So when one of them has the form of a gateway key,
    those without it are left out: they are for somebody else. A header that comes twice is not
    trusted.
    """
    found: dict[bytes, bytes | None] = {}
    for name, value in headers:
        if name in _KEY_HEADER_SET:
            found[name] = _key_in(name, value) if name not in found else None
    tokens = [ClientToken(found[name] or b"", name) for name in KEY_HEADERS if found.get(name)]
    if len(tokens) > 1:
        ours = [each for each in tokens if CLIENT_KEYS.id_of(each.token) is not None]
        return tuple(ours or tokens)
    return tuple(tokens)


def _key_in(header: bytes, value: bytes) -> bytes | None:
    if header == b"authorization":
        scheme, _, value = value.partition(b" ")
        if scheme.lower() != b"bearer":
            return None
    elif header == _PROTOCOLS:
        for protocol in value.split(b","):
            if protocol.strip().startswith(_KEY_PROTOCOL):
                return protocol.strip()[len(_KEY_PROTOCOL) :]
        return None
    return value.strip()


def websocket_protocols(headers: Headers) -> tuple[bytes, ...]:
    """Return the protocols that a client offers for a websocket, in its order."""
    offered = b",".join([value for name, value in headers if name == _PROTOCOLS])
    return tuple(filter(None, (protocol.strip() for protocol in offered.split(b","))))


def uses_own_key(headers: Headers, provider: Provider, kind: ProviderType) -> bool:
    """Return whether a client that may bring its own upstream key uses it for this provider.

    With ``client_keys = "prefer"`` that depends on whether the request has one; a gateway key is
    none.
    """
    if provider.client_keys != "prefer":
        return bool(provider.client_keys)
    return any(
        (name in _UPSTREAM_KEYS or name == kind.key_header)
        and value.strip() != b""
        and not holds_access_key(value)
        for name, value in headers
    )


def passes_own_key(provider: Provider, own_key: bool) -> bool:
    """Return whether a request is made with the client's own upstream key, not a central one."""
    return own_key and provider.client_keys is not False


def withhold_fields(
    headers: Headers, provider: Provider, kind: ProviderType, *, own_key: bool = False
) -> Headers:
    """Take out of a client's headers, or trailers, what must not reach a provider.

    With a central key that is every credential, whatever chooses the account, and what makes a
    server use another method or path than those that were checked. A field that holds a key of
    ours never passes. See `swap_credentials` for the arguments.
    """
    if passes_own_key(provider, own_key):
        drop = _NEVER_PASSED
        prefixes: tuple[bytes, ...] = ()
    else:
        drop = _WITHHELD if kind.key_header in _WITHHELD else _WITHHELD | {kind.key_header}
        prefixes = (_OVERRIDE_PREFIX,)
    if provider.headers:
        drop = drop.union(name.encode("ascii") for name, _ in provider.headers)
    kept = [
        field for field in headers if field[0] not in drop and not field[0].startswith(prefixes)
    ]
    if holds_access_key(b"\n".join([value for _, value in kept])):
        kept = [field for field in kept if not holds_access_key(field[1])]
    return tuple(kept)


def withhold_parameters(query: bytes, provider: Provider, *, own_key: bool = False) -> bytes:
    """Take out of a client's query what `withhold_fields` takes out of its headers.

    What stays is kept byte for byte.
    """
    central = not passes_own_key(provider, own_key)
    kept = []
    for part in query.split(b"&"):
        pieces = part.split(b";")  # some servers separate by it
        passing = [piece for piece in pieces if _passes(piece, central=central)]
        if passing:
            kept.append(b";".join(passing))
    return b"&".join(kept)


def _passes(parameter: bytes, *, central: bool) -> bool:
    if central and _query_name(parameter) in _QUERY_NAMES:
        return False
    return not holds_access_key(parameter)


def _query_name(part: bytes) -> bytes:
    name = unquote_to_bytes(unquote_to_bytes(part.partition(b"=")[0].replace(b"+", b" ")))
    return name.partition(b"[")[0].strip().translate(_AS_UNDERSCORE).lower()


def swap_credentials(
    headers: Headers,
    provider: Provider,
    kind: ProviderType,
    key: Secret | None,
    *,
    own_key: bool = False,
) -> Headers:
    """Take the client's credentials out and put the provider's in.

    Args:
        headers: The request's headers, in lower case.
        provider: Where the request goes; its fixed `headers` take the place of the client's.
        kind: The provider's type.
        key: One of the provider's keys; None for an upstream without one.
        own_key: The client's own upstream key is to be passed on: the provider takes
            `client_keys`, and the client is known to the gateway by another header (or there
            are no clients configured). Ignored unless the provider has `client_keys`.

    Returns:
        New headers; the order of those that stay is kept, ours come last.
    """
    kept = list(withhold_fields(headers, provider, kind, own_key=own_key))
    if key is not None and not passes_own_key(provider, own_key):
        kept.append((kind.key_header, kind.key_prefix + key.reveal().encode("ascii")))
    fixed = provider.headers
    kept.extend((name.encode("ascii"), value.reveal().encode("ascii")) for name, value in fixed)
    return tuple(kept)
