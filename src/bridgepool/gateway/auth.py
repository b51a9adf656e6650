"""Who is asking: a client by its key, or, on a gateway without clients, anyone on this machine."""

from __future__ import annotations

import ipaddress

import attrs

from bridgepool.gateway.bridge import ANYONE, BridgeKey
from bridgepool.gateway.refusals import WRONG_CLIENT_KEY, Refusal, Retry
from bridgepool.http import Headers
from bridgepool.providers import Clients, find_client_token

NOT_FROM_HERE = Refusal(
    403,
    "not_from_here",
    "This gateway has no clients configured, so it serves programs on its own machine only.",
    Retry.USELESS,
)


@attrs.frozen
class Identity:
    """A client that may be served."""

    key: BridgeKey
    own_key: bool
    """The usual credential headers hold the client's own upstream key, not ours: it may be
    passed on to a provider that takes `client_keys`."""


_ANYONE = Identity(ANYONE, own_key=True)


def identify(headers: Headers, clients: Clients, *, allow_anyone: bool) -> Identity | Refusal:
    """Tell who sent a request.

    Args:
        headers: the request's.
        clients: those in force now.
        allow_anyone: whether a gateway without clients is open. Then the client must be a
            local program: a web page that reaches this machine from a browser (by a foreign
            origin, or by a name rebound to a loopback address) is refused.
    """
    if not clients:
        if not allow_anyone:
            return WRONG_CLIENT_KEY
        return _ANYONE if _is_local_program(headers) else NOT_FROM_HERE
    found = find_client_token(headers)
    caller = clients.authenticate(found.token) if found is not None else None
    if found is None or caller is None:
        return WRONG_CLIENT_KEY
    return Identity(BridgeKey(caller.client_id, caller.key_id), found.brings_own_key)


def _is_local_program(headers: Headers) -> bool:
    for name, value in headers:
        if name == b"host" and not _is_loopback(value):
            return False
        if name == b"origin" and not _is_loopback(value.partition(b"://")[2]):
            return False
        if name == b"sec-fetch-site" and value == b"cross-site":
            return False
    return True


def _is_loopback(authority: bytes) -> bool:
    text = authority.decode("latin-1")
    if text.startswith("["):
        host = text[1:].partition("]")[0]
    else:
        host = text.rpartition(":")[0] if ":" in text else text
    return is_loopback(host)


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address means this machine and nobody else."""
    host = host.lower().removesuffix(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
