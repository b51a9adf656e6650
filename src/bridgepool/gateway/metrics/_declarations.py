"""Every metric of the two programs, declared once: name, kind, labels, meaning.

The output for Prometheus, the tables of the documentation and their test are derived from these.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import attrs

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]

BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 600.0)
"""Upper bounds of the buckets of all histograms, in seconds."""


@attrs.frozen
class Metric:
    """One metric."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


def _declared() -> tuple[Metric, ...]:
    """Return the metrics above the call."""
    return tuple(value for value in globals().values() if isinstance(value, Metric))


# -- both programs

INFO: Final = Metric(
    "bridgepool_info", "gauge", "The program and its version; always 1.", ("program", "version")
)
READY: Final = Metric("bridgepool_ready", "gauge", "Whether `/readyz` answers 200: 1 or 0.")
LOG_LINES_DROPPED: Final = Metric(
    "bridgepool_log_lines_dropped_total", "counter", "Lines that were not written to a log."
)
CERTIFICATE_END: Final = Metric(
    "bridgepool_certificate_end_timestamp_seconds",
    "gauge",
    "When the certificate of `--tls-cert` ends, in Unix time.",
)
CONNECTIONS: Final = Metric(
    "bridgepool_client_connections", "gauge", "Open connections of clients, by port.", ("port",)
)
CONNECTIONS_REFUSED: Final = Metric(
    "bridgepool_client_connections_refused_total",
    "counter",
    "Connections that were over a limit, by port.",
    ("port",),
)
HANDSHAKES_FAILED: Final = Metric(
    "bridgepool_tls_handshakes_failed_total",
    "counter",
    "Connections that ended before their TLS handshake had succeeded, by port. Probes that only "
    "connect are among them.",
    ("port",),
)
REVISION: Final = Metric(
    "bridgepool_revision",
    "gauge",
    "The revision in force, as the source numbers it; at a control plane, the revision that it "
    "serves.",
)
_BOTH: Final = _declared()

# -- the gateway

REQUESTS: Final = Metric(
    "bridgepool_requests_total",
    "counter",
    "Ended requests. `status` is the class of the status that the client got, such as `2xx`; empty "
    "if it got none. `provider` and `route` are empty if the request was refused before.",
    ("provider", "route", "outcome", "status"),
)
REFUSALS: Final = Metric(
    "bridgepool_refusals_total",
    "counter",
    "Requests that the gateway refused, by why: `code` is that of the response, such as "
    "`rate_limited` or `budget_exceeded`.",
    ("provider", "code"),
)
REQUESTS_RUNNING: Final = Metric(
    "bridgepool_requests_in_flight", "gauge", "Requests that are being served.", ("provider",)
)
DURATION: Final = Metric(
    "bridgepool_request_duration_seconds",
    "histogram",
    "Time from the head of a request to the end of its response; without websockets.",
    ("provider",),
)
FIRST_BYTE: Final = Metric(
    "bridgepool_request_first_byte_seconds",
    "histogram",
    "Time from the head of a request to the first byte of its response.",
    ("provider",),
)
TOKENS: Final = Metric(
    "bridgepool_tokens_total",
    "counter",
    "Tokens that answers reported, where usage is read. `type` is `input`, `output`, "
    "`cached_read`, `cached_write` or `reasoning`; the last three are parts of the first two.",
    ("provider", "type"),
)
WEBSOCKETS: Final = Metric(
    "bridgepool_websockets",
    "gauge",
    "Open websockets. They are requests in flight, too.",
    ("provider",),
)
WEBSOCKETS_CLOSED: Final = Metric(
    "bridgepool_websockets_closed_total",
    "counter",
    "Websockets that were closed. `code` is that of the close, as the client sent or got it; 1005 "
    "for a close without one, 1006 if there was no close, `other` for codes of applications.",
    ("provider", "code"),
)
BRIDGES: Final = Metric(
    "bridgepool_pool_bridges",
    "gauge",
    "Bridges of the pool. `state` is `listed`, `draining`, `building` or `queued`.",
    ("state",),
)
LEASES: Final = Metric("bridgepool_pool_leases", "gauge", "Leases that are held.")
ACQUIRES: Final = Metric(
    "bridgepool_pool_acquires_total",
    "counter",
    "Acquires of a bridge. `result` is `hit`, `miss` or `join`.",
    ("result",),
)
BUILDS: Final = Metric(
    "bridgepool_pool_builds_total", "counter", "Builds that ended, by how.", ("outcome",)
)
RETIRED: Final = Metric(
    "bridgepool_pool_retired_total", "counter", "Bridges that were retired, by why.", ("reason",)
)
GENERATION: Final = Metric(
    "bridgepool_generation", "gauge", "The number of the providers in force in this process."
)
AGE: Final = Metric(
    "bridgepool_providers_age_seconds",
    "gauge",
    "Time since the source confirmed the providers in force; missing if it is unknown.",
)
RELOADS: Final = Metric(
    "bridgepool_reloads_total",
    "counter",
    "Reloads. `result` is `applied`, `unchanged`, `out_of_date` or `failed`.",
    ("result",),
)
FAILED_RELOADS: Final = Metric(
    "bridgepool_failed_reloads", "gauge", "Failed reloads since the last good one."
)
CONTROL_CONNECTED: Final = Metric(
    "bridgepool_control_connected",
    "gauge",
    "Whether there is a session with the control plane: 1 or 0. Missing without `--control`.",
)
PROVIDER: Final = Metric(
    "bridgepool_provider_info", "gauge", "A provider in force; always 1.", ("provider", "type")
)
PROVIDER_STATE: Final = Metric(
    "bridgepool_provider_state",
    "gauge",
    "1 for the state that a provider is in, 0 for the others: `usable`, `last_good`, "
    "`misconfigured`, `disabled`.",
    ("provider", "state"),
)
UPSTREAM_CONNECTIONS: Final = Metric(
    "bridgepool_upstream_connections",
    "gauge",
    "Connections to a provider. `state` is `in_use` or `idle`.",
    ("provider", "state"),
)
UPSTREAM_WAITING: Final = Metric(
    "bridgepool_upstream_waiting",
    "gauge",
    "Requests that wait for a connection to a provider.",
    ("provider",),
)
KEYS: Final = Metric(
    "bridgepool_provider_keys",
    "gauge",
    "Keys of a provider. `state` is `free`, `rate_limited` or `refused`.",
    ("provider", "state"),
)
BREAKER_STATE: Final = Metric(
    "bridgepool_breaker_state",
    "gauge",
    "1 for the state that a breaker is in, 0 for the others: `closed`, `open`, `half_open`. There "
    "is one for each class of routes that was used, of a provider with `breaker`.",
    ("provider", "route_class", "state"),
)
BREAKER_OPENINGS: Final = Metric(
    "bridgepool_breaker_openings_total",
    "counter",
    "How often a breaker opened.",
    ("provider", "route_class"),
)
RETRIES: Final = Metric(
    "bridgepool_retries_total",
    "counter",
    "Retries of a provider with `retries`. `result` is `sent`, or `over_budget` for those that its "
    "budget did not grant.",
    ("provider", "result"),
)
FALLBACKS: Final = Metric(
    "bridgepool_fallbacks_total",
    "counter",
    "Requests to `provider` for which `fallback` took its place.",
    ("provider", "fallback"),
)
ADMISSION: Final = Metric(
    "bridgepool_admission_requests",
    "gauge",
    "Requests of a provider with `max_concurrent`. `state` is `running` or `waiting`. `provider` "
    "is empty for `--max-concurrent`.",
    ("provider", "state"),
)
ADMISSION_REFUSED: Final = Metric(
    "bridgepool_admission_refused_total",
    "counter",
    "Requests that were not admitted by `max_concurrent`, or by `--max-concurrent` if `provider` "
    "is empty.",
    ("provider",),
)

BUDGETS: Final = Metric(
    "bridgepool_client_budgets",
    "gauge",
    "Budgets of clients and keys that used this gateway in the current day or month, of which at "
    "least 80 % is spent; not those of 0. `rule` is such as `money_per_day`, `state` is `spent` or "
    "`nearly_spent`.",
    ("rule", "state"),
)
MODELS_WITHOUT_PRICE: Final = Metric(
    "bridgepool_models_without_price",
    "gauge",
    "Models that answered and have no row in the price table, so `[unknown]` prices them; at most "
    "100 in all. Missing if there are none.",
    ("provider",),
)
SPOOL_RECORDS: Final = Metric(
    "bridgepool_usage_spool_records",
    "gauge",
    "Usage records that are not stored yet. Missing without a spool.",
)
SPOOL_BYTES: Final = Metric("bridgepool_usage_spool_bytes", "gauge", "The bytes of those records.")
SPOOL_STORED: Final = Metric(
    "bridgepool_usage_records_stored_total", "counter", "Usage records that were stored."
)
SPOOL_FAILING: Final = Metric(
    "bridgepool_usage_spool_failing",
    "gauge",
    "1 while records are in memory only, since the directory of the spool cannot be written.",
)
SPOOL_DROPPED: Final = Metric(
    "bridgepool_usage_records_dropped_total",
    "counter",
    "Usage records that were dropped, since the spool was full.",
)
GATEWAY_METRICS: Final = _declared()
"""The metrics of `bridgepool gateway`."""

# -- the control plane

GATEWAYS: Final = Metric(
    "bridgepool_gateways",
    "gauge",
    "Gateways that the store knows. `state` is `connected`, `reconnecting` or `disconnected`.",
    ("state",),
)
GATEWAYS_BEHIND: Final = Metric(
    "bridgepool_gateways_behind",
    "gauge",
    "Connected gateways that do not serve the latest revision.",
)
REJECTED: Final = Metric(
    "bridgepool_gateways_rejected_providers",
    "gauge",
    "Providers that connected gateways could not use, over all of them.",
)
UNREADABLE: Final = Metric(
    "bridgepool_unreadable_providers", "gauge", "Providers that cannot be decrypted."
)
DRIFT: Final = Metric(
    "bridgepool_seed_drift",
    "gauge",
    "Differences between the seed and the store, as found at the start.",
)
STORE_AVAILABLE: Final = Metric(
    "bridgepool_store_available",
    "gauge",
    "Whether the store can be used: 1 or 0. `access` is `read` or `write`.",
    ("access",),
)
API_REQUESTS: Final = Metric(
    "bridgepool_api_requests_total",
    "counter",
    "Ended requests of the API. `route` has `*` for names, and is `*` for unknown paths.",
    ("method", "route", "status"),
)
REFUSED_KEYS: Final = Metric(
    "bridgepool_refused_keys_total",
    "counter",
    "Refused keys. `kind` is `admin` or `gateway`.",
    ("kind",),
)
ROLLOUT: Final = Metric(
    "bridgepool_rollout_seconds",
    "histogram",
    "Time from a new revision until the last gateway that is connected here has confirmed it.",
)
CONTROL_PLANE_METRICS: Final = (*_BOTH, *_declared()[len(GATEWAY_METRICS) :])
"""The metrics of `bridgepool control-plane`."""
