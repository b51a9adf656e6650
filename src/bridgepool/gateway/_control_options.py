"""The options of `bridgepool control-plane`, declared as those of the gateway are."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import attrs
from cyclopts import Parameter

from bridgepool.gateway._options import (
    Addresses,
    AdminAddresses,
    Delay,
    Format,
    LogTarget,
    Seconds,
    check_shutdown,
)
from bridgepool.gateway.providers import KEYS_LIMIT, MAX_KEYS
from bridgepool.gateway.serving._connections import (
    check_connection_options,
)
from bridgepool.gateway.serving._listening import StartError

_MAX_DAYS = 100_000


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class ControlPlaneOptions:
    """The options of `bridgepool control-plane`."""

    config: Path | None = None
    """A file (TOML) that gives options, in its table `[control-plane]`. Flags and environment
    variables win over it."""

    store: Annotated[str, Parameter(metavar="URL", show_default=False)] = attrs.field(
        default="", repr=False
    )
    """The database: the path of an SQLite file, which is created if it does not exist (a warning
    is logged), or `postgresql://…`. Default: `BRIDGEPOOL_STORE`, which may hold a URL with a
    password."""
    listen: Addresses = ("127.0.0.1:8180",)
    """The address of the API, `[HOST]:PORT` for IPv6; port 0 takes a free one. May be given
    several times."""
    rpc_listen: Addresses = ("127.0.0.1:8181",)
    """Address for the connections of gateways."""
    encryption_key_file: Path | None = None
    """The encryption keys of the store. Default: those in `BRIDGEPOOL_ENCRYPTION_KEYS`; else, for
    an SQLite file, `PATH.key`, which is created with it."""
    admin_key_file: Path | None = None
    """A file with an admin key. If it does not exist, it is created (mode 0600) with a new key of
    the role `write`."""
    gateway_key_file: Path | None = None
    """The same for the key of a gateway."""
    client_key_file: Path | None = None
    """The same for the key of a client."""
    seed: Path | None = None
    """A provider file that is applied at the start. Later manual changes win, and are logged as
    drift."""
    max_keys: Annotated[int, Parameter(metavar="COUNT")] = MAX_KEYS
    """Maximum number of keys of a provider, from 1 to 64. Commands with `--store` take it, too."""
    usage_days: Annotated[float, Parameter(metavar="DAYS")] = 90.0
    """Whole days for which the usage records of gateways are kept; `inf` for ever."""
    tls_cert: Path | None = None
    """Certificate chain (PEM) to serve HTTPS and WSS with; requires `--tls-key`."""
    tls_key: Path | None = None
    """The private key (PEM) of `--tls-cert`."""
    insecure: bool = False
    """Allow addresses that are not loopback without TLS, because something else encrypts."""
    max_connections: Annotated[
        int | None, Parameter(metavar="COUNT", show_default=lambda _: "10000")
    ] = None
    """Maximum number of connections to the API, and of gateways. Less if the limit of open files
    is lower than one for each of both."""
    max_connections_per_peer: Annotated[int | None, Parameter(metavar="COUNT")] = None
    """Maximum number of them from one address (of IPv6: from one /64). Default: a quarter of
    `--max-connections`. Loopback addresses and trusted proxies have no such limit."""
    trusted_proxy: Annotated[tuple[str, ...], Parameter(metavar="NETWORK", show_default=False)] = ()
    """An address or network of proxies in front, such as `10.0.0.0/8`. Their connections have no
    limit for each address, and their `X-Forwarded-For` names the peer in the access log. May be
    given several times."""
    admin_listen: AdminAddresses = ()
    """An address for the admin port, which serves `/healthz`, `/readyz`, `/status` and `/metrics`
    until the program exits. On addresses that are not loopback it requires `--admin-token-file`,
    and has the certificate of `--tls-cert`. May be given several times."""
    admin_token_file: Path | None = None
    """A file with a token, on one line, that `/status` and `/metrics` of the admin port then
    require as `Authorization: Bearer TOKEN`."""
    shutdown_delay: Delay = None
    """Time after a shutdown signal in which everything is still served, while `/readyz` answers
    503, so that load balancers can notice."""
    drain_timeout: Seconds = 10.0
    """Time that running requests of the API may take after that."""
    log_format: Format = "auto"
    """Format of the log on standard error: `json`, `console`, or `auto`, which is `console` on a
    terminal and else `json`."""
    access_log: LogTarget = "-"
    """The access log of the API: a file to append to, `-` for standard output, or `none`."""

    def check(self) -> None:
        """Check the options that need no file.

        Raises:
            StartError: one cannot be used; the text names it.
        """
        if not self.store:
            raise StartError("specify --store, or set BRIDGEPOOL_STORE")
        check_shutdown(self.shutdown_delay, self.drain_timeout)
        if not (0 <= self.usage_days <= _MAX_DAYS or self.usage_days == math.inf):
            raise StartError(f"--usage-days must be from 0 to {_MAX_DAYS}, or inf")
        if not 1 <= self.max_keys <= KEYS_LIMIT:
            raise StartError(f"--max-keys must be from 1 to {KEYS_LIMIT}")
        check_connection_options(
            self.max_connections, self.max_connections_per_peer, self.trusted_proxy
        )
