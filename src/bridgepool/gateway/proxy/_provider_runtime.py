"""One provider that can be called: its upstream connections and the key in use."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import attrs
import trio

from bridgepool.gateway.providers import Provider, ProviderType, UnreadableProviderError
from bridgepool.gateway.providers._base_url import address_is_private
from bridgepool.gateway.providers._provider_type import find_repeated_path, find_type
from bridgepool.gateway.upstreams._key_pool import Cooling, KeyRing
from bridgepool.gateway.upstreams._resilience import Resilience, resilience_of
from bridgepool.gateway.upstreams._upstream_state import UpstreamStates
from bridgepool.http import (
    Dial,
    UpstreamClient,
    UpstreamLimits,
    default_dial,
    open_upstream_client,
    peer_address,
    upstream_ssl_context,
)

logger = logging.getLogger("bridgepool.gateway")


@attrs.frozen(eq=False)
class ProviderRuntime:
    """One provider that can be called."""

    provider: Provider
    kind: ProviderType
    client: UpstreamClient
    """Its connections."""
    _keys: KeyRing | None = None  # None: it wants none, or clients bring theirs
    _resilience: Resilience = attrs.field(factory=Resilience)

    def key_states(self) -> list[str]:
        """Return `free`, `rate_limited` or `refused` for each of its keys."""
        now = trio.current_time()
        states = [key.state for key in self._keys.keys] if self._keys is not None else []
        return [
            "free"
            if state.cooling is None
            or (state.cooling is Cooling.RATE_LIMITED and state.until <= now)
            else state.cooling.value
            for state in states
        ]


def check_provider(provider: Provider, types: Iterable[ProviderType]) -> None:
    """Raise the error that `open_provider_runtime` would raise; opens nothing.

    What may be meant, but hardly is, is logged.
    """
    kind = _check(provider, types)
    repeated = find_repeated_path(provider.base_url.path, kind)
    if repeated is not None:
        fields = {"provider": provider.name, "path": repeated}
        logger.warning("base URL ends with a part of the routes", extra=fields)
    provider.resolve_keys(os.environ)
    if provider.base_url.scheme == "https":
        upstream_ssl_context()


def _check(provider: Provider, types: Iterable[ProviderType]) -> ProviderType:
    if provider.problem is not None:
        raise UnreadableProviderError(provider.problem)
    return find_type(provider.type, types)


@asynccontextmanager
async def open_provider_runtime(
    provider: Provider,
    *,
    types: Iterable[ProviderType],
    limits: UpstreamLimits,
    states: UpstreamStates,
) -> AsyncIterator[ProviderRuntime]:
    """Open the runtime of a provider; it connects with the first request.

    Args:
        provider: the provider.
        types: what it may be.
        limits: of its connections.
        states: have the states of its keys, which outlive it.

    Raises:
        UnreadableProviderError: it stands in for a row that cannot be used.
        InvalidProviderError: its type is not one of `types`.
        ProviderKeyError: the environment variable of its key cannot be used.
        ImportError: TLS needs a package that is not installed.
    """
    kind = _check(provider, types)
    keys = provider.resolve_keys(os.environ)
    state = states.lease(provider.name)
    ring = None
    try:
        if keys:
            in_turn = provider.key_policy == "round_robin"
            ring = state.keys.open_ring(keys, round_robin=in_turn)
        async with open_upstream_client(
            str(provider.base_url), limits=limits, dial=dial_provider(provider)
        ) as client:
            resilience = resilience_of(provider, state.resilience)
            yield ProviderRuntime(provider, kind, client, ring, resilience)
    finally:
        if ring is not None:
            state.keys.close_ring(ring)
        states.release(provider.name)


def dial_provider(provider: Provider) -> Dial:
    """Return the `Dial` of a provider.

    Unless the provider has `allow_private`, a name that resolves to an address inside the
    operator's network (or of this machine) is refused. The check comes after the connection is
    made and before a request is sent, so that the checked address is the one in use.

    Args:
        provider: the provider, with its base URL.
    """
    dial = default_dial(str(provider.base_url))
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
