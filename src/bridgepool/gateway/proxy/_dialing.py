"""Connecting to upstreams, and not to the operator's own network by accident."""

from __future__ import annotations

import ssl

import trio

from bridgepool.gateway.providers import Provider, address_is_private
from bridgepool.http import Dial, default_dial, upstream_ssl_context


def dial_provider(provider: Provider, ssl_context: ssl.SSLContext | None = None) -> Dial:
    """Return the way to connect to a provider.

    A name that leads to an address inside the operator's network (or this machine) is refused
    after the connection is made and before a request is sent, so that what was checked is what
    is used: an answer of the name server cannot change in between. Unless the provider says
    `allow_private`.

    Args:
        provider: its base URL is where to.
        ssl_context: how to do TLS; None for the system's certificates.
    """
    dial = default_dial(str(provider.base_url), ssl_context=ssl_context)
    if provider.allow_private:
        return dial

    async def dial_public() -> trio.abc.Stream:
        stream = await dial()
        address = _peer_address(stream)
        if address_is_private(address):
            await trio.aclose_forcefully(stream)
            raise OSError(
                f"its name leads to {address}, inside this network; "
                "say allow_private = true if that is meant"
            )
        return stream

    return dial_public


def check_dialing(provider: Provider) -> None:
    """Raise `ImportError` if what TLS needs is not installed, and the provider needs TLS."""
    if provider.base_url.scheme == "https":
        upstream_ssl_context()


def _peer_address(stream: trio.abc.Stream) -> str:
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    if not isinstance(stream, trio.SocketStream):
        raise AssertionError(stream)
    return str(stream.socket.getpeername()[0])
