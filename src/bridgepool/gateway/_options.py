"""The options of `bridgepool gateway`, each declared once: type, default, meaning.

The flags and the help of `bridgepool gateway` and `bridgepool control-plane`, their environment
variables, the keys of their configuration file and the tables of the reference page are derived
from the fields and their docstrings.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import attrs
from cyclopts import Group, Parameter

from bridgepool.gateway.proxy._cors import parse_origin
from bridgepool.gateway.proxy._settings import GatewaySettings
from bridgepool.gateway.proxy.websockets._limits import WebSocketLimits
from bridgepool.gateway.serving._connections import (
    UNAUTHENTICATED_TIMEOUT,
    check_connection_options,
)
from bridgepool.gateway.serving._listening import Address, StartError
from bridgepool.gateway.serving._logs import LogFormat
from bridgepool.gateway.usage._bodies import DEFAULT_BODY_BYTES, MAX_BODY_BYTES
from bridgepool.gateway.usage._spool import DEFAULT_BYTES
from bridgepool.http import HttpLimits, UpstreamLimits

_POLICY = GatewaySettings()
_LEAST_SPOOL = 65_536
_OTLP_PATHS = ("/v1/traces", "/v1/metrics")  # which the exporters add
_SOURCES = Group("Source of the providers (exactly one)", sort_key=1)
_WITH_CONTROL = Group("With --control", sort_key=2)
_WITH_STORE = Group("With --store", sort_key=3)
_ALWAYS = Group("General", sort_key=4)


def _show_delay(_: object) -> str:
    return "0 on loopback addresses, else 10"


Seconds = Annotated[float, Parameter(metavar="SECONDS")]
Delay = Annotated[float | None, Parameter(metavar="SECONDS", show_default=_show_delay)]
Addresses = Annotated[tuple[str, ...], Parameter(metavar="HOST:PORT", show_default=" ".join)]
AdminAddresses = Annotated[tuple[str, ...], Parameter(metavar="HOST:PORT", show_default=False)]
Format = Annotated[LogFormat, Parameter(metavar="FORMAT")]
LogTarget = Annotated[str, Parameter(metavar="PATH", allow_leading_hyphen=True)]  # it may be "-"
_Url = Annotated[str | None, Parameter(metavar="URL")]


def check_shutdown(delay: float | None, drain_timeout: float) -> None:
    if delay is not None and not 0 <= delay < math.inf:
        raise StartError("--shutdown-delay must be 0 or more seconds")
    if not drain_timeout >= 0:  # also of nan
        raise StartError("--drain-timeout must be 0 or more seconds")


def _is_http_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # also of a port that is none
        return False


@Parameter(name="*", group=_ALWAYS)
@attrs.frozen(kw_only=True)
class GatewayOptions:
    """The options of `bridgepool gateway`."""

    providers: Annotated[Path | None, Parameter(group=_SOURCES)] = None
    """A provider file (TOML). It is watched: saving it changes the gateway."""
    control: Annotated[_Url, Parameter(group=_SOURCES)] = None
    """The URL of a control plane, `wss://HOST:PORT` (`ws://` on a network of your own), with the
    address of its `--rpc-listen`. The gateway starts even if it cannot be reached."""
    store: Annotated[_Url, Parameter(group=_SOURCES)] = attrs.field(default=None, repr=False)
    """The store of a control plane, opened by the gateway itself: `PATH.db` or `postgresql://…`.
    It is followed. Default, when none of the three is given: `BRIDGEPOOL_STORE`, the place for a
    URL with a password."""

    key_file: Annotated[Path | None, Parameter(group=_WITH_CONTROL)] = None
    """Required with `--control`: the file with the key of this gateway, on one line. It is read
    for each connection."""
    ca_file: Annotated[Path | None, Parameter(group=_WITH_CONTROL)] = None
    """Certificates (PEM) to trust for a `wss://` URL in place of the system's."""
    snapshot_file: Annotated[Path | None, Parameter(group=_WITH_CONTROL)] = None
    """Keep the last good providers in this file, and start from it while the control plane is
    down. It holds their keys."""
    snapshot_key_file: Annotated[Path | None, Parameter(group=_WITH_CONTROL)] = None
    """Encrypt the snapshot file with the keys in this file: Fernet keys, one per line; the first
    one encrypts."""

    encryption_key_file: Annotated[Path | None, Parameter(group=_WITH_STORE)] = None
    """The encryption keys of the store. Default: those in `BRIDGEPOOL_ENCRYPTION_KEYS`; else, for
    an SQLite file, `PATH.key`."""
    name: Annotated[
        str,
        Parameter(group=_WITH_STORE, metavar="NAME", show_default=lambda _: "the machine's name"),
    ] = attrs.field(factory=socket.gethostname)
    """The name of this gateway in its usage records, and in its reports on keys of providers. With
    `--control`, a gateway has the name of its key there and everywhere else."""

    config: Path | None = None
    """A file (TOML) that gives options, in its table `[gateway]`. Flags and environment variables
    win over it."""
    listen: Addresses = ("127.0.0.1:8080",)
    """The address to serve on, `[HOST]:PORT` for IPv6; port 0 takes a free one. May be given
    several times."""
    admin_listen: AdminAddresses = ()
    """An address for the admin port, which serves `/healthz`, `/readyz`, `/status` and `/metrics`
    until the program exits. On addresses that are not loopback it requires `--admin-token-file`,
    and has the certificate of `--tls-cert`. May be given several times."""
    admin_token_file: Path | None = None
    """A file with a token, on one line, that `/status` and `/metrics` of the admin port then
    require as `Authorization: Bearer TOKEN`."""
    metrics_by_client: bool = False
    """Give the metrics of requests and tokens the label `client`, too. For a bounded number of
    clients: each has series of its own. Requires `--admin-listen`."""
    read_usage: bool = False
    """Read tokens and models from responses as they pass, so that metrics and the access log have
    them. Without it they are read only where something else needs them, such as `--usage-log`."""
    otel_endpoint: _Url = None
    """Trace requests with OpenTelemetry, and send the spans to this collector by OTLP over HTTP,
    such as `http://localhost:4318`. Needs `bridgepool[otel]`."""
    otel_sample: Annotated[float, Parameter(metavar="PART")] = 1.0
    """The part of the requests without a `traceparent` that is traced, from 0 to 1. For the others
    their client decides."""
    shutdown_delay: Delay = None
    """Time after a shutdown signal in which everything is still served, while `/readyz` answers
    503, so that load balancers can notice."""
    drain_timeout: Seconds = _POLICY.drain_timeout
    """Time that running requests may take after their provider was replaced, or after the
    listeners were closed by a shutdown."""
    log_format: Format = "auto"
    """Format of the log on standard error: `json`, `console`, or `auto`, which is `console` on a
    terminal and else `json`."""
    access_log: LogTarget = "-"
    """The access log: a file to append to, `-` for standard output, or `none`."""
    usage_log: LogTarget | None = None
    """Write a usage record of each request to a provider to this file, as lines of JSON; `-` for
    standard output."""
    price_table: Path | None = None
    """A file (TOML) with what tokens cost, for usage records, and for clients with a budget of
    money. SIGHUP reads it again."""
    body_log: Annotated[Path | None, Parameter(metavar="PATH")] = None
    """Record prompts and answers, the bodies of requests, in this file, as lines of JSON: of the
    clients and providers that `--body-log-client` and `--body-log-provider` name."""
    body_log_client: Annotated[
        tuple[str, ...], Parameter(metavar="ID", show_default=False, allow_leading_hyphen=True)
    ] = ()
    """A client whose prompts and answers are recorded; `-` for local programs without a key. May be
    given several times."""
    body_log_provider: Annotated[
        tuple[str, ...], Parameter(metavar="NAME", show_default=False)
    ] = ()
    """A provider of which the prompts and answers of all clients are recorded. May be given several
    times."""
    body_log_bytes: Annotated[int, Parameter(metavar="BYTES")] = DEFAULT_BODY_BYTES
    """The most bytes of a body that are recorded."""
    store_usage: bool = False
    """Keep the usage records in the store of the control plane; requires `--control` or
    `--store`."""
    usage_spool: Annotated[Path | None, Parameter(metavar="DIR")] = None
    """With `--store-usage`: keep the records that are not stored yet in this directory, so that
    they survive a kill of the gateway. Default: in memory alone."""
    usage_spool_bytes: Annotated[int, Parameter(metavar="BYTES")] = DEFAULT_BYTES
    """With `--store-usage`: the most bytes of such records, about 500 each."""
    usage_on_full: Annotated[Literal["drop", "refuse"], Parameter(metavar="ACTION")] = "drop"
    """With `--store-usage`: what to do when there is no room for a record: `drop` it, or `refuse`
    further requests with 503 `usage_unavailable`."""
    expose_route_headers: bool = _POLICY.expose_route_headers
    """Add response headers with the provider and the generation that served."""
    cors_origin: Annotated[tuple[str, ...], Parameter(metavar="ORIGIN", show_default=False)] = ()
    """An origin whose web pages may call the gateway from a browser, such as
    `https://chat.example`, `app://obsidian.md` or `null`. May be given several times."""
    no_retry_status: Annotated[int | None, Parameter(metavar="STATUS", show_default=False)] = None
    """The status, from 400 to 599, of refusals that a retry cannot help, such as that of a disabled
    provider. Default: 503 or what else fits; and 400 for clients that are known to retry
    nevertheless."""
    max_stale: Seconds = _POLICY.max_stale
    """Time since the source last confirmed the providers after which `/readyz` answers 503."""
    max_body_bytes: Annotated[float, Parameter(metavar="BYTES")] = math.inf
    """Largest request body that is accepted."""
    header_timeout: Seconds = HttpLimits().header_timeout
    """Time from the first byte of a request's head to its last."""
    max_body_time: Seconds = 3600.0
    """Time that a client may take in total to send a request's body. Times in which the upstream
    does not take it do not count."""
    min_receive_rate: Annotated[float, Parameter(metavar="BYTES")] = 240.0
    """Bytes a second that a client must send on average, after five seconds, while a head or a body
    is awaited from it; 0 for no such limit."""
    max_websockets: Annotated[int, Parameter(metavar="COUNT")] = _POLICY.websockets.max_websockets
    """Maximum number of open websockets; 0 to relay none. Clients beyond it use HTTP."""
    max_websockets_per_client: Annotated[int, Parameter(metavar="COUNT")] = (
        _POLICY.websockets.max_per_client
    )
    """Maximum number of them of one client."""
    max_websocket_message_bytes: Annotated[float, Parameter(metavar="BYTES")] = (
        _POLICY.websockets.max_message_bytes
    )
    """Longest message of a websocket, in either direction."""
    max_websocket_age: Seconds = _POLICY.websockets.max_age
    """Age at which a websocket is closed, between two messages."""
    max_provider_connections: Annotated[int, Parameter(metavar="COUNT")] = (
        _POLICY.upstream_limits.max_connections
    )
    """Maximum number of connections to each provider. As many requests may wait for one."""
    client_share: Annotated[float, Parameter(metavar="PART")] = _POLICY.upstream_limits.tenant_share
    """Largest part of a provider's connections that one client may use, of those that the other
    clients leave: more than 0, up to 1. With 0.5, one client that takes all it can get has a half
    of them, two have a third each. Requests beyond it wait, and then get 429."""
    max_concurrent: Annotated[int, Parameter(metavar="COUNT")] = _POLICY.max_concurrent
    """Maximum number of requests at a time, of all clients and providers together; 0 for no limit.
    Further ones wait for their turn."""
    max_waiting: Annotated[int, Parameter(metavar="COUNT")] = _POLICY.max_waiting
    """Maximum number of requests that wait for one of `--max-concurrent`; further ones get 503
    `gateway_overloaded`."""
    wait_timeout: Seconds = _POLICY.wait_timeout
    """Time that a request waits at most for one of `--max-concurrent`; then it gets 503
    `gateway_overloaded`."""
    max_replay_memory: Annotated[int, Parameter(metavar="BYTES")] = _POLICY.max_replay_memory
    """Bytes of all request bodies together that are kept to be sent again with another key of a
    provider, beside those of up to 64 kB. A body that finds no room is sent once."""
    max_connections: Annotated[
        int | None, Parameter(metavar="COUNT", show_default=lambda _: "10000")
    ] = None
    """Maximum number of client connections; further ones are answered with 503 and closed, except
    for `/healthz` and `/readyz`. Less if the limit of open files is lower than two for each."""
    max_connections_per_peer: Annotated[int | None, Parameter(metavar="COUNT")] = None
    """Maximum number of them from one address (of IPv6: from one /64). Default: a quarter of
    `--max-connections`. Loopback addresses and trusted proxies have no such limit."""
    trusted_proxy: Annotated[tuple[str, ...], Parameter(metavar="NETWORK", show_default=False)] = ()
    """An address or network of proxies in front, such as `10.0.0.0/8`. Their connections have no
    limit for each address, and their `X-Forwarded-For` names the peer in the access log. Every
    client needs a key then. May be given several times."""
    proxy_protocol: bool = False
    """Trusted proxies begin each connection with a PROXY protocol head (version 1 or 2), which
    names the client; requires `--trusted-proxy`."""
    tls_cert: Path | None = None
    """Certificate chain (PEM) to serve HTTPS with; requires `--tls-key`."""
    tls_key: Path | None = None
    """The private key (PEM) of `--tls-cert`."""

    def check(self) -> None:
        """Check which options go together.

        Raises:
            StartError: some do not; the text names them.
        """
        sources = {
            "--providers": self.providers,
            "--control": self.control,
            "--store": self.store,
        }
        given = [name for name, value in sources.items() if value is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise StartError(f"specify exactly one of {', '.join(sources)} (given: {found})")
        requirements = {
            "--key-file": (self.key_file, "--control"),
            "--ca-file": (self.ca_file, "--control"),
            "--snapshot-file": (self.snapshot_file, "--control"),
            "--snapshot-key-file": (self.snapshot_key_file, "--control"),
            "--encryption-key-file": (self.encryption_key_file, "--store"),
        }
        for name, (value, required) in requirements.items():
            if value is not None and given != [required]:
                raise StartError(f"{name} requires {required}")
        if self.control is not None and self.key_file is None:
            raise StartError("--control requires --key-file, with the key of this gateway")
        if self.snapshot_key_file is not None and self.snapshot_file is None:
            raise StartError("--snapshot-key-file requires --snapshot-file")
        check_connection_options(
            self.max_connections, self.max_connections_per_peer, self.trusted_proxy
        )
        if self.metrics_by_client and not self.admin_listen:
            raise StartError("--metrics-by-client requires --admin-listen")
        if self.proxy_protocol and not self.trusted_proxy:
            raise StartError("--proxy-protocol requires --trusted-proxy")
        if self.otel_endpoint is not None and not _is_http_url(self.otel_endpoint):
            raise StartError("--otel-endpoint: is not a URL such as http://localhost:4318")
        if self.otel_endpoint is not None and self.otel_endpoint.endswith(_OTLP_PATHS):
            raise StartError("--otel-endpoint: leave out its last part, /v1/traces or /v1/metrics")
        if not self.name.strip():
            raise StartError("--name must not be empty")
        if not 0 <= self.otel_sample <= 1:
            raise StartError("--otel-sample must be from 0 to 1")
        if not self.header_timeout > 0:
            raise StartError("--header-timeout must be more than 0")
        if not self.max_body_time > 0:
            raise StartError("--max-body-time must be more than 0")
        if not 0 <= self.min_receive_rate < math.inf:
            raise StartError("--min-receive-rate must be 0 or more bytes a second")
        if self.max_provider_connections < 1:
            raise StartError("--max-provider-connections must be at least 1")
        if not 0 < self.client_share <= 1:
            raise StartError("--client-share must be more than 0, and at most 1")
        try:
            for origin in self.cors_origin:
                parse_origin(origin)
        except ValueError as error:
            raise StartError(f"--cors-origin: {error}") from None
        if self.max_websockets < 0 or self.max_websockets_per_client < 1:
            raise StartError(
                "--max-websockets must be 0 or more, --max-websockets-per-client at least 1"
            )
        if not self.max_websocket_message_bytes > 0 or not self.max_websocket_age > 0:
            raise StartError(
                "--max-websocket-message-bytes and --max-websocket-age must be more than 0"
            )
        if self.no_retry_status is not None and not 400 <= self.no_retry_status <= 599:
            raise StartError("--no-retry-status must be from 400 to 599")
        if self.max_concurrent < 0:
            raise StartError("--max-concurrent must be 0 or more")
        if self.max_waiting < 0:
            raise StartError("--max-waiting must be 0 or more")
        if not 0 <= self.wait_timeout < math.inf:
            raise StartError("--wait-timeout must be 0 or more seconds")
        if self.max_replay_memory < 1:
            raise StartError("--max-replay-memory must be at least 1")
        if not self.max_stale > 0:
            raise StartError("--max-stale must be more than 0")
        if not self.max_body_bytes >= 0:
            raise StartError("--max-body-bytes must be 0 or more")
        if self.store_usage and self.providers is not None:
            raise StartError("--store-usage requires --control or --store")
        if self.usage_spool is not None and not self.store_usage:
            raise StartError("--usage-spool requires --store-usage")
        if self.usage_spool_bytes < _LEAST_SPOOL:
            raise StartError(f"--usage-spool-bytes must be at least {_LEAST_SPOOL}")
        of_whom = self.body_log_client or self.body_log_provider
        if of_whom and self.body_log is None:
            raise StartError("--body-log-client and --body-log-provider require --body-log")
        if self.body_log is not None and not of_whom:
            raise StartError("--body-log requires --body-log-client or --body-log-provider")
        if not 0 < self.body_log_bytes <= MAX_BODY_BYTES:
            raise StartError(f"--body-log-bytes must be from 1 to {MAX_BODY_BYTES}")
        check_shutdown(self.shutdown_delay, self.drain_timeout)

    def settings(self, addresses: Sequence[Address]) -> GatewaySettings:
        """Return the gateway's policy, when it listens on these addresses."""
        # A proxy on this machine brings programs of others, with any Host.
        only_local = all(address.is_loopback for address in addresses) and not self.trusted_proxy
        return GatewaySettings(
            allow_anonymous=only_local,
            expose_route_headers=self.expose_route_headers,
            reads_usage=self.read_usage,
            trusted_proxies=self.trusted_proxy,
            cors_origins=self.cors_origin,
            no_retry_status=self.no_retry_status,
            max_stale=self.max_stale,
            # Often enough that providers that nobody changes do not grow too old. A store is
            # asked for one number only, which also finds what its notices missed.
            poll_interval=min(
                _POLICY.poll_interval if self.store is None else 5.0, self.max_stale / 3
            ),
            drain_timeout=self.drain_timeout,
            max_concurrent=self.max_concurrent,
            max_waiting=self.max_waiting,
            wait_timeout=self.wait_timeout,
            max_replay_memory=self.max_replay_memory,
            websockets=WebSocketLimits(
                max_websockets=self.max_websockets,
                max_per_client=self.max_websockets_per_client,
                max_message_bytes=self.max_websocket_message_bytes,
                max_age=self.max_websocket_age,
            ),
            upstream_limits=UpstreamLimits(
                max_connections=self.max_provider_connections,
                max_waiting=self.max_provider_connections,
                tenant_share=self.client_share,
            ),
        )

    def http_limits(self) -> HttpLimits:
        """Return the limits of the gateway's connections to clients."""
        return HttpLimits(
            max_body_bytes=self.max_body_bytes,
            header_timeout=self.header_timeout,
            max_body_time=self.max_body_time,
            min_receive_rate=self.min_receive_rate,
            unauthenticated_timeout=UNAUTHENTICATED_TIMEOUT,
        )
