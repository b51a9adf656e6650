"""The metrics of breakers, retries and limits of running requests, read from the state of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from bridgepool.gateway.metrics import _declarations as names
from bridgepool.gateway.metrics._exposition import family
from bridgepool.gateway.proxy._runtimes import ProviderEntry
from bridgepool.gateway.upstreams._admission import Admission
from bridgepool.gateway.upstreams._breaker import Breaker, BreakerState
from bridgepool.gateway.upstreams._resilience import Resilience

_Samples: TypeAlias = Iterator[tuple[Sequence[str], float]]


def resilience_lines(
    whole: Admission, entries: Sequence[ProviderEntry], now: float
) -> Iterator[str]:
    """Yield the lines for Prometheus.

    Args:
        whole: The limit of the whole gateway.
        entries: The providers in force.
        now: Trio's time.
    """
    asking = [
        (entry.provider.name, entry.runtime._resilience)
        for entry in entries
        if entry.runtime is not None and entry.runtime._resilience.in_use
    ]
    breakers = [
        (name, route_class, breaker)
        for name, resilience in asking
        for route_class, breaker in resilience.breakers()
    ]
    admissions = [("", whole)] if whole.rules.limit else []
    admissions += [
        (name, resilience.state.admission)
        for name, resilience in asking
        if resilience.admission_rules is not None
    ]
    yield from family(names.BREAKER_STATE, _breaker_states(breakers, now))
    yield from family(
        names.BREAKER_OPENINGS,
        (((name, route_class), breaker.openings) for name, route_class, breaker in breakers),
    )
    yield from family(names.RETRIES, _retries(asking))
    yield from family(names.ADMISSION, _running(admissions))
    yield from family(
        names.ADMISSION_REFUSED, (((name,), admission.refused) for name, admission in admissions)
    )


def _breaker_states(breakers: Sequence[tuple[str, str, Breaker]], now: float) -> _Samples:
    for name, route_class, breaker in breakers:
        found = breaker.state_at(now)
        for state in BreakerState:
            yield (name, route_class, state.value), found is state


def _retries(asking: Sequence[tuple[str, Resilience]]) -> _Samples:
    for name, resilience in asking:
        if resilience.retries:
            budget = resilience.state.budget
            yield (name, "sent"), budget.granted
            yield (name, "over_budget"), budget.refused


def _running(admissions: Sequence[tuple[str, Admission]]) -> _Samples:
    for name, admission in admissions:
        yield (name, "running"), admission.running
        yield (name, "waiting"), admission.waiting
