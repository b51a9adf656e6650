"""What a provider asks for when its requests fail or come in crowds, and what is known about that.

The wishes belong to one form of a provider. What is known (its breakers, its retry budget, its
running requests) belongs to its name, and outlives every edit. Pure.
"""

from __future__ import annotations

from operator import itemgetter

import attrs

from bridgepool.gateway.providers import Provider
from bridgepool.gateway.upstreams._admission import Admission, AdmissionRules
from bridgepool.gateway.upstreams._breaker import Breaker, BreakerRules, Breakers
from bridgepool.gateway.upstreams._retry_budget import RetryBudget


@attrs.define(eq=False)
class ResilienceState:
    """What is known about all forms of one provider."""

    breakers: Breakers = attrs.field(factory=Breakers)
    budget: RetryBudget = attrs.field(factory=RetryBudget)
    admission: Admission = attrs.field(factory=Admission)


@attrs.frozen(eq=False)
class Resilience:
    """What one form of a provider asks for; without arguments, nothing."""

    state: ResilienceState = attrs.field(factory=ResilienceState)
    endpoint: str = ""
    """Its base URL."""
    breaker_rules: BreakerRules | None = None
    """None without breakers."""
    retries: int = 0
    """The most attempts after the first."""
    retry_on: frozenset[str] = frozenset()
    """The failures that are tried again."""
    retry_budget: float = 0.0
    """The most retries, as a part of recent requests."""
    fallback: tuple[str, ...] = ()
    """The providers to try when it cannot serve a request."""
    admission_rules: AdmissionRules | None = None
    """None without a limit."""
    in_use: bool = attrs.field(init=False)
    """Whether it asks for anything."""

    @in_use.default
    def _find_in_use(self) -> bool:
        asked = (self.breaker_rules, self.retries, self.fallback, self.admission_rules)
        return any(asked)

    def breaker(self, route_class: str) -> Breaker | None:
        """Return the breaker of a class of its routes; None without breakers."""
        if self.breaker_rules is None:
            return None
        return self.state.breakers.get(self.endpoint, route_class)

    def admits(self, route_class: str, now: float) -> bool:
        """Return whether the breaker of a class of its routes would admit a request."""
        rules, breaker = self.breaker_rules, self.breaker(route_class)
        return rules is None or breaker is None or breaker.would_admit(rules, now)

    def breakers(self) -> list[tuple[str, Breaker]]:
        """Return the breakers that there are, with the classes of their routes, in order."""
        if self.breaker_rules is None:
            return []
        return sorted(self.state.breakers.of_endpoint(self.endpoint).items(), key=itemgetter(0))

    def document(self, now: float) -> dict[str, object]:
        """Return the state for people and programs, as plain values; None for what is off."""
        state = self.state
        breakers = {name: breaker.document(now) for name, breaker in self.breakers()}
        return {
            "breakers": breakers if self.breaker_rules is not None else None,
            "retries": state.budget.document(now) if self.retries else None,
            "admission": state.admission.document() if self.admission_rules is not None else None,
            "fallback": list(self.fallback),
        }


def resilience_of(provider: Provider, state: ResilienceState) -> Resilience:
    """Return what a provider asks for."""
    return Resilience(
        state,
        str(provider.base_url),
        BreakerRules(provider.breaker_failures, provider.breaker_window, provider.breaker_open)
        if provider.breaker
        else None,
        provider.retries,
        frozenset(provider.retry_on),
        provider.retry_budget,
        provider.fallback,
        admission_rules_of(provider) if provider.max_concurrent else None,
    )


def admission_rules_of(provider: Provider) -> AdmissionRules:
    """Return how many requests of a provider may run and wait."""
    return AdmissionRules(provider.max_concurrent, provider.max_waiting, provider.wait_timeout)
