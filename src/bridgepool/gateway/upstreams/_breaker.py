"""A breaker: refuses the requests of an upstream that fails again and again. Pure.

Theory of operation. A breaker is in one of three states.

    closed --failures--> open --time--> half-open --success--> closed
                           ^----------- failure ------'

*Closed*, it admits every request. It opens when `failures` of them failed within `window` seconds,
and those are at least half of all that ended from the first of them to the last: an upstream that
answers most of its requests is not cut off. *Open*, it admits none. After `first_open` seconds it
is *half-open*, and admits `PROBES` requests at a time. The first success closes it; a failure opens
it again for twice the time, up to `LONGEST_OPEN` (or `first_open`, if that is longer). The time is
doubled, too, if it was closed for less time than it was open before; else it is `first_open` again.
Probes that hang do not keep it half-open: `first_open` seconds after the last of them it admits as
many again. What the first ones do still counts.

A request that was admitted has a `Permit`, which is settled once: `succeed`, `fail`, or `release`
for what is neither, such as a client that left. A permit counts only in the state in which it was
given: what a request of before the opening does later says nothing about now. A permit that is
released gives its place back, so that a cancelled probe does not hold it.

The rules come with each request, so that an edit of them applies at once and forgets nothing.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Mapping

import attrs

PROBES = 3
"""The most requests that a half-open breaker admits at a time."""
LONGEST_OPEN = 300.0
"""The longest time for which a breaker opens, in seconds."""
_SHARE = 0.5  # of the requests that ended between the first failure and the last
_PROBE_WAIT = 1.0  # seconds, the advice while all probes are out
_MOST_ENDPOINTS = 4


class BreakerState(enum.Enum):
    """The state of a breaker."""

    CLOSED = "closed"
    """Requests are admitted."""
    OPEN = "open"
    """Requests are refused."""
    HALF_OPEN = "half_open"
    """A few requests are admitted, to see whether the upstream is well again."""


@attrs.frozen
class BreakerRules:
    """When a breaker opens, and for how long. Times in seconds."""

    failures: int = 5
    window: float = 10.0
    first_open: float = 30.0


@attrs.define(eq=False)
class Permit:
    """One admitted request; to be settled once, further calls do nothing."""

    _rules: BreakerRules
    _epoch: int  # of the breaker when it was given
    _round: int  # of probes
    _settled: bool = False


@attrs.define(eq=False)
class Breaker:
    """One breaker; see the module's theory of operation. Times are on any one clock."""

    state: BreakerState = BreakerState.CLOSED
    """The state, as of the last call."""
    openings: int = 0
    """How often it opened; only grows."""
    _epoch: int = 0  # grows with each change of state
    _ended: int = 0  # requests that succeeded or failed
    # the last failures while closed: when, and how many requests had ended then
    _failures: deque[tuple[float, int]] = attrs.field(factory=deque)
    _probes: int = 0  # permits of this round of probes that are not settled
    _round: int = 0
    _last_probe: float = 0.0
    _closed_since: float = 0.0
    _open_until: float = 0.0
    _open_time: float = 0.0  # how long it opened last

    def admit(self, rules: BreakerRules, now: float) -> Permit | None:
        """Return a permit for a request; None if it is refused."""
        if self.state is BreakerState.OPEN:
            if now < self._open_until:
                return None
            self._change(BreakerState.HALF_OPEN)
        if self.state is BreakerState.HALF_OPEN:
            if self._probes >= PROBES:
                if now - self._last_probe < rules.first_open:
                    return None
                self._round += 1
                self._probes = 0
            self._probes += 1
            self._last_probe = now
        return Permit(rules, self._epoch, self._round)

    def would_admit(self, rules: BreakerRules, now: float) -> bool:
        """Return whether `admit` would return a permit; changes nothing."""
        if self.state is BreakerState.OPEN:
            return now >= self._open_until
        if self.state is BreakerState.CLOSED or self._probes < PROBES:
            return True
        return now - self._last_probe >= rules.first_open

    def remaining(self, now: float) -> float:
        """Return the seconds after which a refused request may be worth another try."""
        if self.state is BreakerState.OPEN:
            return max(self._open_until - now, 0.0)
        return _PROBE_WAIT if self._probes >= PROBES else 0.0

    def succeed(self, permit: Permit, now: float) -> BreakerState | None:
        """Settle the permit of a request that was answered.

        Returns:
            The state, if this changed it.
        """
        if not self._settle(permit):
            return None
        self._ended += 1
        if self.state is BreakerState.CLOSED:
            return None
        self._closed_since = now
        return self._change(BreakerState.CLOSED)

    def fail(self, permit: Permit, now: float) -> BreakerState | None:
        """Settle the permit of a request that failed; returns the state, if this changed it."""
        if not self._settle(permit):
            return None
        self._ended += 1
        rules = permit._rules
        if self.state is BreakerState.HALF_OPEN:
            return self._open(rules, now, again=True)
        failures = self._failures
        failures.append((now, self._ended))
        while len(failures) > rules.failures:
            failures.popleft()
        first, ended = failures[0]
        ended_since = self._ended - ended + 1
        if len(failures) < rules.failures or now - first > rules.window:
            return None
        if rules.failures < _SHARE * ended_since:
            return None
        return self._open(rules, now, again=now - self._closed_since < self._open_time)

    def release(self, permit: Permit) -> None:
        """Settle the permit of a request that says nothing about the upstream."""
        self._settle(permit)

    def _settle(self, permit: Permit) -> bool:
        """Settle a permit; returns whether its request counts."""
        if permit._settled:
            return False
        permit._settled = True
        if permit._epoch != self._epoch:
            return False
        if self.state is BreakerState.HALF_OPEN and permit._round == self._round:
            self._probes -= 1
        return True

    def _open(self, rules: BreakerRules, now: float, *, again: bool) -> BreakerState:
        longest = max(LONGEST_OPEN, rules.first_open)
        doubled = max(2 * self._open_time, rules.first_open)
        self._open_time = min(doubled, longest) if again else rules.first_open
        self._open_until = now + self._open_time
        self.openings += 1
        return self._change(BreakerState.OPEN)

    def _change(self, state: BreakerState) -> BreakerState:
        self.state = state
        self._epoch += 1
        self._probes = 0
        self._failures.clear()
        return state

    def state_at(self, now: float) -> BreakerState:
        """Return the state that a request would find."""
        half_open = self.state is BreakerState.OPEN and now >= self._open_until
        return BreakerState.HALF_OPEN if half_open else self.state

    def document(self, now: float) -> dict[str, object]:
        """Return its state for people and programs, as plain values."""
        return {
            "state": self.state_at(now).value,
            "retry_after_seconds": round(self.remaining(now), 3),
            "probes": self._probes,
            "openings": self.openings,
        }


@attrs.define(eq=False)
class Breakers:
    """The breakers of one provider, by endpoint and class of routes.

    An endpoint is a base URL. Those of the last few are kept, so that a provider that is moved and
    moved back finds what was known.
    """

    _endpoints: dict[str, dict[str, Breaker]] = attrs.field(factory=dict)  # the latest last

    def get(self, endpoint: str, route_class: str) -> Breaker:
        """Return the breaker of a class of routes of an endpoint, which is closed if it is new."""
        breakers = self._endpoints.get(endpoint)
        if breakers is None:
            breakers = self._endpoints[endpoint] = {}
            while len(self._endpoints) > _MOST_ENDPOINTS:
                del self._endpoints[next(iter(self._endpoints))]
        breaker = breakers.get(route_class)
        if breaker is None:
            breaker = breakers[route_class] = Breaker()
        return breaker

    def of_endpoint(self, endpoint: str) -> Mapping[str, Breaker]:
        """Return the breakers of an endpoint by class of routes."""
        return self._endpoints.get(endpoint, {})
