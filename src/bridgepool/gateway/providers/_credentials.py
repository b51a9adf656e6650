"""Whose credentials a request carries: the client's come off, the provider's go on. Pure.

Headers are tuples of ``(name, value)`` pairs of bytes, names in lower case, as everywhere in
`bridgepool.http`.
"""

from typing import Final

import attrs

from bridgepool._secret import Secret
from bridgepool.gateway.providers._provider import Provider
from bridgepool.gateway.providers._provider_type import Headers, ProviderType

GATEWAY_KEY_HEADER: Final = b"x-bridgepool-key"

# Where a client may put its gateway key.
_TOKEN_HEADERS: Final = frozenset({GATEWAY_KEY_HEADER, b"authorization", b"x-api-key"})
# What only ever speaks to the gateway or to a proxy on the way; never for an upstream.
_NEVER_PASSED: Final = frozenset({GATEWAY_KEY_HEADER, b"proxy-authorization", b"cookie"})
# What authenticates to an upstream, whatever its type, so that a client's key for one never
# reaches another.
_UPSTREAM_KEYS: Final = frozenset({b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key"})
# What chooses the account that a key works for. With the central key that is the operator's
# choice, made in the provider's `headers`.
_ACCOUNT: Final = frozenset({b"openai-organization", b"openai-project"})

CLIENT_CREDENTIALS: Final = _NEVER_PASSED | _UPSTREAM_KEYS | _ACCOUNT
"""The headers of a client that do not reach an upstream that is called with a central key."""


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


def find_client_token(headers: Headers) -> ClientToken | None:
    """Find the client's gateway key.

    It is taken from ``X-Bridgepool-Key`` when that is there, else from ``Authorization:
    Bearer``, else from ``X-Api-Key``. A header that comes twice is not trusted.
    """
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _TOKEN_HEADERS:
            if name in found:
                return None
            found[name] = value
    if GATEWAY_KEY_HEADER in found:
        return _token(found[GATEWAY_KEY_HEADER], GATEWAY_KEY_HEADER)
    if b"authorization" in found:
        scheme, _, token = found[b"authorization"].partition(b" ")
        return _token(token, b"authorization") if scheme.lower() == b"bearer" else None
    if b"x-api-key" in found:
        return _token(found[b"x-api-key"], b"x-api-key")
    return None


def _token(value: bytes, header: bytes) -> ClientToken | None:
    value = value.strip()
    return ClientToken(value, header) if value else None


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
    drop = _NEVER_PASSED if own_key and provider.client_keys else CLIENT_CREDENTIALS
    fixed = provider.headers
    if fixed:
        drop = drop.union(name.encode("ascii") for name, _ in fixed)
    if key is not None and kind.key_header not in drop:
        drop |= {kind.key_header}
    kept = [header for header in headers if header[0] not in drop]
    if key is not None:
        kept.append((kind.key_header, kind.key_prefix + key.reveal().encode("ascii")))
    kept.extend((name.encode("ascii"), value.reveal().encode("ascii")) for name, value in fixed)
    return tuple(kept)
