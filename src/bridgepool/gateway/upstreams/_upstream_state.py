"""The state of each upstream, by the name of its provider, for as long as a table lists it."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from bridgepool.gateway.upstreams._key_pool import KeyPool
from bridgepool.gateway.upstreams._resilience import ResilienceState


@attrs.define(eq=False)
class UpstreamState:
    """What is remembered about one provider across all of its forms."""

    keys: KeyPool = attrs.field(factory=KeyPool)
    """Its keys."""
    resilience: ResilienceState = attrs.field(factory=ResilienceState)
    """Its breakers, retries and running requests."""
    users: int = 0
    """Forms of it that a table lists."""


@attrs.define(eq=False)
class UpstreamStates:
    """The states of all providers that a table lists."""

    _states: dict[str, UpstreamState] = attrs.field(factory=dict)  # name -> state

    def lease(self, name: str) -> UpstreamState:
        """Return the state of a provider that a table lists now; `release` it exactly once."""
        state = self._states.get(name)
        if state is None:
            state = self._states[name] = UpstreamState()
        state.users += 1
        return state

    def release(self, name: str) -> None:
        """Return a state; with its last user it is forgotten."""
        state = self._states[name]
        state.users -= 1
        if not state.users:
            del self._states[name]

    def items(self) -> Iterable[tuple[str, UpstreamState]]:
        """Return all of them, with the names of their providers."""
        return self._states.items()

    def get(self, name: str) -> UpstreamState | None:
        """Return the state of a provider; None if no table lists it."""
        return self._states.get(name)
