"""The metrics of a gateway: counted at the end of each request, or read from its state."""

from __future__ import annotations

import math
from collections import Counter as CountBy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import attrs
import trio

from bridgepool.gateway.limits._budgets import BudgetUse
from bridgepool.gateway.limits._kinds import BUDGETS
from bridgepool.gateway.metrics import _declarations as names
from bridgepool.gateway.metrics._cells import Counter, Counters, Histogram, Histograms
from bridgepool.gateway.metrics._exposition import CONTENT_TYPE, family, write
from bridgepool.gateway.metrics._program import ProgramMetrics
from bridgepool.gateway.metrics._resilience import resilience_lines
from bridgepool.gateway.proxy._access_log import AccessRecord, Outcome
from bridgepool.gateway.proxy._app import Gateway
from bridgepool.gateway.proxy._budget_status import find_nearly_spent
from bridgepool.gateway.proxy._runtimes import ProviderEntry, ProviderState
from bridgepool.gateway.usage._spool import UsageSpool
from bridgepool.http import Headers

_NO_PROVIDER: Final = "-"  # of a record; also for no client
_FORGET_AFTER: Final = 3600.0  # seconds since a provider was in force last
_CLOSE_CODES: Final = frozenset(range(1000, 1016))  # the registered ones that may be met


@attrs.define(eq=False)
class RequestMetrics:
    """Counts requests; `observe` is a `RequestObserver`. About two microseconds for each.

    Args:
        by_client: Whether requests and tokens have a label `client`, too. There are as many more
            series, so for a bounded number of clients only.
    """

    by_client: bool = False
    _requests: Counters = attrs.field(init=False)
    _tokens: Counters = attrs.field(init=False)
    _refusals: Counters = attrs.field(init=False, factory=lambda: Counters(names.REFUSALS))
    _fallbacks: Counters = attrs.field(init=False, factory=lambda: Counters(names.FALLBACKS))
    _closed: Counters = attrs.field(init=False, factory=lambda: Counters(names.WEBSOCKETS_CLOSED))
    _duration: Histograms = attrs.field(init=False, factory=lambda: Histograms(names.DURATION))
    _first_byte: Histograms = attrs.field(init=False, factory=lambda: Histograms(names.FIRST_BYTE))
    # what a request has -> its counter: found without making any text
    _bound: dict[tuple[str, str, Outcome, int, str], Counter] = attrs.field(
        init=False, factory=dict
    )
    # provider -> its histograms
    _timed: dict[str, tuple[Histogram, Histogram]] = attrs.field(init=False, factory=dict)
    _seen: dict[str, float] = attrs.field(init=False, factory=dict)  # provider -> in force until

    def __attrs_post_init__(self) -> None:
        self._requests = Counters(self._with_client(names.REQUESTS))
        self._tokens = Counters(self._with_client(names.TOKENS))

    def _with_client(self, metric: names.Metric) -> names.Metric:
        if not self.by_client:
            return metric
        return attrs.evolve(metric, labels=(*metric.labels, "client"))

    def observe(self, record: AccessRecord) -> None:
        """Count an ended request."""
        provider = record.provider
        client = record.client if self.by_client else ""
        key = (provider, record.route, record.outcome, record.status // 100, client)
        counter = self._bound.get(key)
        if counter is None:
            counter = self._bound[key] = self._bind(*key)
        counter.value += 1
        if record.outcome is Outcome.REFUSED:
            self._refusals.child(_label(provider), record.code).value += 1
        timed = self._timed.get(provider)
        if timed is None:
            label = _label(provider)
            timed = self._duration.child(label), self._first_byte.child(label)
            self._timed[provider] = timed
        if record.first_byte:
            timed[1].observe(record.first_byte - record.started)
        if record.websocket:
            code = str(record.close_code) if record.close_code in _CLOSE_CODES else "other"
            self._closed.child(_label(provider), code).value += 1
        else:
            timed[0].observe(record.ended - record.started)
        if record.fallback_from:
            self._fallbacks.child(record.fallback_from, provider).value += 1
        if record.usage.tokens.input is not None or record.usage.tokens.output is not None:
            self._count_tokens(record, client)

    def _bind(
        self, provider: str, route: str, outcome: Outcome, status: int, client: str
    ) -> Counter:
        values = (_label(provider), route, outcome.value, f"{status}xx" if status else "")
        of_client = (_label(client),) if self.by_client else ()
        return self._requests.child(*values, *of_client)

    def _count_tokens(self, record: AccessRecord, client: str) -> None:
        provider, tokens = _label(record.provider), record.usage.tokens
        of_client = (_label(client),) if self.by_client else ()
        for kind, count in tokens._asdict().items():
            if count:
                self._tokens.child(provider, kind, *of_client).value += count

    def lines(self) -> Iterator[str]:
        """Yield the lines for Prometheus."""
        for metric in (self._requests, self._duration, self._first_byte, self._tokens):
            yield from metric.lines()
        yield from self._refusals.lines()
        yield from self._fallbacks.lines()
        yield from self._closed.lines()

    def forget_providers(self, in_force: Sequence[str], now: float) -> None:
        """Forget what was counted for providers that have not been in force for an hour.

        Otherwise a gateway whose providers come and go would grow without bound.
        """
        self._seen.update(dict.fromkeys(in_force, now))
        for name in self._timed.keys() - {_NO_PROVIDER}:  # it may have gone before the first look
            self._seen.setdefault(name, now)
        gone = {name for name, seen in self._seen.items() if now - seen > _FORGET_AFTER}
        if not gone:
            return
        for name in gone:
            del self._seen[name]
            self._timed.pop(name, None)
        self._bound = {key: cell for key, cell in self._bound.items() if key[0] not in gone}
        counters = (self._requests, self._refusals, self._tokens, self._closed)
        for metric in (*counters, self._duration, self._first_byte):
            metric.forget(lambda values: values[0] in gone)
        self._fallbacks.forget(lambda values: not gone.isdisjoint(values))


@attrs.frozen
class GatewayMetrics:
    """Writes the metrics of a gateway."""

    _gateway: Gateway
    _requests: RequestMetrics
    _program: ProgramMetrics
    _spool: UsageSpool | None = None

    async def page(self, connected: bool | None) -> tuple[int, Headers, bytes]:
        """Return status, headers and body of `/metrics`. Yields to other tasks as it goes.

        Args:
            connected: Whether there is a session with the control plane; None without one.
        """
        entries = list(self._gateway._runtimes.in_force.entries())
        self._requests.forget_providers(
            [entry.provider.name for entry in entries], trio.current_time()
        )
        budgets = await find_nearly_spent(self._gateway._uses.limiter)
        return 200, (CONTENT_TYPE,), await write(self._lines(entries, connected, budgets))

    def _lines(
        self,
        entries: Sequence[ProviderEntry],
        connected: bool | None,
        budgets: Iterable[BudgetUse],
    ) -> Iterator[str]:
        gateway = self._gateway
        reloads = gateway.reload_status
        yield from self._program.lines(
            ready=gateway.why_not_ready() is None, revision=gateway.pool.snapshot.revision
        )
        yield from self._requests.lines()
        running = dict.fromkeys(["", *(entry.provider.name for entry in entries)], 0)
        running |= CountBy(_label(record.provider) for record in gateway._recorder.running)
        yield from family(names.REQUESTS_RUNNING, _by_key(running))
        sockets = dict.fromkeys([entry.provider.name for entry in entries], 0)
        sockets |= CountBy(each.provider for each in gateway._recorder.running if each.websocket)
        yield from family(names.WEBSOCKETS, _by_key(sockets))
        yield from self._pool_lines()
        results = {
            "applied": reloads.applied,
            "unchanged": reloads.unchanged,
            "out_of_date": reloads.out_of_date,
            "failed": reloads.failures,
        }
        yield from family(names.RELOADS, _by_key(results))
        yield from family(names.FAILED_RELOADS, [((), reloads.failures_in_a_row)])
        if math.isfinite(gateway.staleness):
            yield from family(names.AGE, [((), round(gateway.staleness, 3))])
        if connected is not None:
            yield from family(names.CONTROL_CONNECTED, [((), connected)])
        yield from _provider_lines(entries)
        yield from resilience_lines(gateway._admission, entries, trio.current_time())
        yield from family(names.BUDGETS, _budgets(budgets))
        unpriced = CountBy(provider for provider, _model in gateway._uses.prices.without_price)
        yield from family(names.MODELS_WITHOUT_PRICE, _by_key(unpriced))
        if self._spool is not None:
            spool = self._spool.statistics()
            yield from family(names.SPOOL_RECORDS, [((), spool.pending)])
            yield from family(names.SPOOL_BYTES, [((), spool.pending_bytes)])
            yield from family(names.SPOOL_STORED, [((), spool.stored)])
            yield from family(names.SPOOL_FAILING, [((), self._spool.failing)])
            yield from family(names.SPOOL_DROPPED, [((), spool.dropped)])

    def _pool_lines(self) -> Iterator[str]:
        pool = self._gateway.pool.statistics()
        bridges = {
            "listed": pool.listed,
            "draining": pool.draining,
            "building": pool.building,
            "queued": pool.queued,
        }
        yield from family(names.GENERATION, [((), pool.generation)])
        yield from family(names.BRIDGES, _by_key(bridges))
        yield from family(names.LEASES, [((), pool.leased)])
        acquires = {"hit": pool.hits, "miss": pool.misses, "join": pool.joins}
        yield from family(names.ACQUIRES, _by_key(acquires))
        yield from family(
            names.BUILDS, (((outcome.value,), count) for outcome, count in pool.builds.items())
        )
        yield from family(
            names.RETIRED, (((reason.value,), count) for reason, count in pool.retired.items())
        )


def _label(text: str) -> str:
    return "" if text == _NO_PROVIDER else text


def _by_key(values: Mapping[str, int]) -> Iterator[tuple[tuple[str], int]]:
    return (((key,), value) for key, value in values.items())


def _budgets(found: Iterable[BudgetUse]) -> Iterator[tuple[tuple[str, str], int]]:
    counts = CountBy((budget.rule, budget.is_spent) for budget in found)
    for rule in BUDGETS:
        yield (rule, "spent"), counts[rule, True]
        yield (rule, "nearly_spent"), counts[rule, False]


def _provider_lines(entries: Sequence[ProviderEntry]) -> Iterator[str]:
    yield from family(
        names.PROVIDER, (((entry.provider.name, entry.provider.type), 1) for entry in entries)
    )
    yield from family(
        names.PROVIDER_STATE,
        (
            ((entry.provider.name, state.value), entry.state is state)
            for entry in entries
            for state in ProviderState
        ),
    )
    yield from family(names.UPSTREAM_CONNECTIONS, _connections(entries))
    yield from family(
        names.UPSTREAM_WAITING,
        (
            ((entry.provider.name,), entry.runtime.client.statistics().waiting)
            for entry in entries
            if entry.runtime is not None
        ),
    )
    yield from family(names.KEYS, _keys(entries))


def _connections(entries: Sequence[ProviderEntry]) -> Iterator[tuple[tuple[str, str], int]]:
    for entry in entries:
        if entry.runtime is not None:
            connections = entry.runtime.client.statistics()
            yield (entry.provider.name, "in_use"), connections.in_use
            yield (entry.provider.name, "idle"), connections.idle


def _keys(entries: Sequence[ProviderEntry]) -> Iterator[tuple[tuple[str, str], int]]:
    for entry in entries:
        if entry.runtime is not None:
            states = CountBy(entry.runtime.key_states())
            for state in ("free", "rate_limited", "refused"):
                yield (entry.provider.name, state), states[state]
