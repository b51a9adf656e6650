"""The providers that may stand in for one that does not serve a request.

They are those of its `fallback`, in order. One that would not take the request now is passed over:
its breaker is open, it has no key, or too many requests wait for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import attrs
import trio

from bridgepool.gateway.providers._routes import STORED
from bridgepool.gateway.proxy._call import PROVIDER_HEADER, Call, upstream_target
from bridgepool.gateway.proxy._provider_runtime import ProviderRuntime
from bridgepool.gateway.proxy._runtimes import UnavailableProvider

_FALLBACK_HEADER: Final = b"x-bridgepool-fallback"
_NAMES: Final = (PROVIDER_HEADER, _FALLBACK_HEADER)

FindRuntime: TypeAlias = Callable[[str], Awaitable[ProviderRuntime | UnavailableProvider | None]]
"""Returns what serves a provider that this client may use, by its name."""


@attrs.define(eq=False)
class StandIns:
    """The providers that may stand in, in order; they are found when one is needed."""

    _call: Call
    _find: FindRuntime
    _left: list[ProviderRuntime] | None = None  # None: not found yet

    async def next_ready(self) -> ProviderRuntime | None:
        """Return the first that would take the request now; those before it are passed over."""
        if self._left is None:
            self._left = await self._find_all()
        while self._left and not _is_ready(self._left[0], self._call.match.route_class):
            del self._left[0]
        return self._left[0] if self._left else None

    async def take(self) -> ProviderRuntime | None:
        """Return the one of `next_ready`, and remove it."""
        runtime = await self.next_ready()
        if self._left:
            del self._left[0]
        return runtime

    async def _find_all(self) -> list[ProviderRuntime]:
        call = self._call
        runtimes: list[ProviderRuntime] = []
        match, names = call.match, call.runtime._resilience.fallback
        if not names or match.route_class == STORED or match.path != match.route.path:
            return runtimes  # it may be about something that only this provider has
        for name in names:
            found = await self._find(name)
            if not isinstance(found, ProviderRuntime) or found.kind is not call.runtime.kind:
                continue
            if call.use is not None and not call.use.allow_provider(name):
                continue
            if found.provider.client_keys and found._keys is None:
                continue  # it is called with clients' keys only, and the client brought none for it
            runtimes.append(found)
        return runtimes


def call_on(call: Call, runtime: ProviderRuntime) -> Call:
    """Return a request as it goes to a provider that stands in; without the client's own key."""
    provider = runtime.provider
    name = provider.name.encode("ascii")
    headers = [(key, value) for key, value in call.extra_headers if key not in _NAMES]
    if len(headers) < len(call.extra_headers):
        headers.append((PROVIDER_HEADER, name))
    headers.append((_FALLBACK_HEADER, name))
    return attrs.evolve(
        call,
        runtime=runtime,
        target=upstream_target(call.match, call.query, provider, own_key=False),
        own_key=False,
        extra_headers=tuple(headers),
    )


def _is_ready(runtime: ProviderRuntime, route_class: str) -> bool:
    """Return whether a provider would take a request now."""
    resilience, ring, now = runtime._resilience, runtime._keys, trio.current_time()
    if not resilience.admits(route_class, now):
        return False
    if ring is not None and not any(key.state.can_be_taken(now) for key in ring.keys):
        return False
    limits, admission = resilience.admission_rules, resilience.state.admission
    if limits is None or admission.running < limits.limit:
        return True
    return admission.waiting < limits.max_waiting
