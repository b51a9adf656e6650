"""One provider that can be called: its upstream connections and the key in use."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import attrs
import trio

from bridgepool._secret import Secret
from bridgepool.gateway.providers import Provider, ProviderType, address_is_private
from bridgepool.gateway.providers._provider_type import find_type
from bridgepool.http import (
    Dial,
    UpstreamClient,
    UpstreamLimits,
    default_dial,
    open_upstream_client,
    peer_address,
    upstream_ssl_context,
)


@attrs.frozen(eq=False)
class ProviderRuntime:
    """One provider that can be called."""

    provider: Provider
    kind: ProviderType
    client: UpstreamClient
    """Its connections."""
    key: Secret | None
    """The key in use; None where the upstream wants none or clients bring theirs."""


def check_provider(provider: Provider, types: Iterable[ProviderType]) -> None:
    """Raise what `open_provider_runtime` would; opens nothing."""
    find_type(provider.type, types)
    provider.resolve_keys(os.environ)
    if provider.base_url.scheme == "https":
        upstream_ssl_context()


@asynccontextmanager
async def open_provider_runtime(
    provider: Provider, *, types: Iterable[ProviderType], limits: UpstreamLimits
) -> AsyncIterator[ProviderRuntime]:
    """Open what is needed to call a provider; nothing is connected yet.

    Raises:
        InvalidProviderError: its type is none of `types`.
        ProviderKeyError: its key is in an environment variable that is not usable.
        ImportError: TLS needs a package that is not installed.
    """
    kind = find_type(provider.type, types)
    keys = provider.resolve_keys(os.environ)
    async with open_upstream_client(
        str(provider.base_url), limits=limits, dial=dial_provider(provider)
    ) as client:
        yield ProviderRuntime(provider, kind, client, keys[0] if keys else None)


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
        address = peer_address(stream)
        if address is not None and not address_is_private(address[0]):
            return stream
        await trio.aclose_forcefully(stream)
        if address is None:
            raise OSError("it closed the connection at once")
        raise OSError(
            f"its name resolves to {address[0]}, inside this network; "
            "set allow_private = true if that is intended"
        )

    return dial_public
