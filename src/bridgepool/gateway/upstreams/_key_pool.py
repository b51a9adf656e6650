"""Which key of a provider the next request uses. Pure.

Theory of operation. A key is *free*, or it *cools down* until a time on the clock, after a 429
(rate-limited) or a 401 (refused). A rate-limited key is free again when its time has passed. A
refused key is then *tried*: by one request at a time, until an answer other than 401 makes it free,
or another 401 doubles its time. Only the request that tries it changes the state of a refused key:
the others were sent before it was refused, however late their answers come.

States belong to fingerprints, and live in a `KeyPool` for as long as a table lists its provider.
What a runtime has is a `KeyRing`: its keys in their order. Rings of an old and a new form of a
provider share the states of the keys that both have.

A key that no ring in use has is *retired*. A few of them are remembered, so that one can see when
they were used last.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Collection, Iterable
from typing import Final

import attrs

from bridgepool._secret import Secret
from bridgepool.gateway.providers._key_fingerprint import fingerprint, hint

FIRST_REFUSAL: Final = 60.0
"""Seconds that a key cools down after its first 401; doubled by each further one."""
LONGEST_REFUSAL: Final = 3600.0
"""Seconds that a refused key cools down at most."""
MAX_RETIRED: Final = 16
"""Keys of a provider that are remembered after they were taken out."""


class Cooling(enum.Enum):
    """Why a key cools down."""

    RATE_LIMITED = "rate_limited"
    """The provider answered 429."""
    REFUSED = "refused"
    """The provider answered 401."""


@attrs.define(eq=False)
class KeyState:
    """What is known about one key."""

    fingerprint: str
    hint: str
    """The key, masked."""
    in_flight: int = 0
    """Requests that use it now."""
    last_used: float = -math.inf
    """When a request took it last."""
    cooling: Cooling | None = None
    """Why it cools down, or has to be tried; None if it is free."""
    until: float = -math.inf
    """When it has cooled down."""
    refusals: int = 0
    """401s since an answer of another status."""
    tried: bool = False
    """A request tries whether the provider takes it again."""

    def can_be_taken(self, now: float) -> bool:
        """Return whether a request may use it."""
        if self.cooling is None:
            return True
        return now >= self.until and not self.tried


@attrs.frozen(eq=False)
class ProviderKey:
    """A key of a provider and its state."""

    secret: Secret
    state: KeyState


@attrs.define(eq=False)
class KeyUse:
    """One request's use of a key; `end` it exactly once."""

    key: ProviderKey
    _tries: bool  # it is the one request that tries a refused key

    @property
    def secret(self) -> Secret:
        """The key."""
        return self.key.secret

    def accepted(self) -> None:
        """Note an answer of any status but 401 and 429."""
        if self._tries:
            self._set_free()

    def rate_limited(self, now: float, seconds: float) -> None:
        """Note a 429: the key cools down for so many seconds, and not for less than before."""
        state = self.key.state
        if self._tries:
            self._set_free()
        state.cooling = state.cooling or Cooling.RATE_LIMITED
        state.until = max(state.until, now + seconds)

    def refused(self, now: float) -> bool:
        """Note a 401: the key cools down for 60 s, or twice as long as the last time.

        Returns:
            False if this was known: the request was sent before the first 401 came.
        """
        state = self.key.state
        if state.cooling is Cooling.REFUSED and not self._tries:
            return False
        state.refusals += 1
        seconds = min(FIRST_REFUSAL * 2 ** min(state.refusals - 1, 16), LONGEST_REFUSAL)
        state.cooling = Cooling.REFUSED
        state.until = max(state.until, now + seconds)
        self._stop_trying()
        return True

    def end(self) -> None:
        """Note the end of the request."""
        self.key.state.in_flight -= 1
        if self._tries:
            self._stop_trying()

    def _set_free(self) -> None:
        state = self.key.state
        state.cooling, state.until, state.refusals = None, -math.inf, 0
        self._stop_trying()

    def _stop_trying(self) -> None:
        if self._tries:
            self._tries = self.key.state.tried = False


@attrs.define(eq=False)
class KeyRing:
    """The keys of one runtime, in their order. From `KeyPool.open_ring`, and closed by it."""

    keys: tuple[ProviderKey, ...]
    _pool: KeyPool
    _round_robin: bool

    def take(self, now: float, without: Collection[KeyState] = ()) -> KeyUse | None:
        """Take the next key; None if all are out.

        Args:
            now: The time.
            without: Keys that this request has tried already.
        """
        for key in self._in_turn() if self._round_robin else self.keys:
            state = key.state
            if state.can_be_taken(now) and state not in without:
                return self._use(key, now)
        return None

    def _use(self, key: ProviderKey, now: float) -> KeyUse:
        state = key.state
        tries = state.cooling is Cooling.REFUSED
        if tries:
            state.tried = True
        elif state.cooling is not None:  # it has cooled down
            state.cooling, state.until = None, -math.inf
        state.in_flight += 1
        state.last_used = now
        self._pool.last_taken = state.fingerprint
        return KeyUse(key, tries)

    def _in_turn(self) -> Iterable[ProviderKey]:
        last = self._pool.last_taken
        for place, key in enumerate(self.keys):
            if key.state.fingerprint == last:
                return (*self.keys[place + 1 :], *self.keys[: place + 1])
        return self.keys

    def rate_limited_for(self, now: float) -> float | None:
        """Return for how many seconds none of its keys is free; None if all were refused."""
        times = [
            key.state.until - now for key in self.keys if key.state.cooling is not Cooling.REFUSED
        ]
        return max(0.0, min(times)) if times else None


@attrs.define(eq=False)
class KeyPool:
    """The states of the keys of one provider."""

    states: dict[str, KeyState] = attrs.field(factory=dict)
    """By fingerprint; the retired ones, too."""
    last_taken: str = ""
    """The fingerprint of the key that a request took last."""
    rings: set[KeyRing] = attrs.field(factory=set)
    """The rings of the open runtimes."""

    def open_ring(self, secrets: Iterable[Secret], *, round_robin: bool = False) -> KeyRing:
        """Return the ring of a runtime; close it with the runtime."""
        keys = tuple(ProviderKey(secret, self._state(secret)) for secret in secrets)
        ring = KeyRing(keys, self, round_robin)
        self.rings.add(ring)
        return ring

    def remember(self, taken_out: Iterable[Secret]) -> None:
        """Note keys that were taken out, so that one that no request has used is shown, too."""
        for secret in taken_out:
            self._state(secret)
        self._forget_oldest()

    def _state(self, secret: Secret) -> KeyState:
        name = fingerprint(secret)
        state = self.states.get(name)
        if state is None:
            state = self.states[name] = KeyState(name, hint(secret))
        return state

    def close_ring(self, ring: KeyRing) -> None:
        """Forget a ring, and all but the latest of its keys that no other ring has."""
        self.rings.discard(ring)
        if self.rings:  # else the next form of the provider may have them all
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        held = {key.state.fingerprint for ring in self.rings for key in ring.keys}
        retired = [state for name, state in self.states.items() if name not in held]
        retired.sort(key=lambda state: (state.in_flight > 0, state.last_used))
        for state in retired[:-MAX_RETIRED]:
            if not state.in_flight:
                del self.states[state.fingerprint]
