"""What `bridgepool gateway` can be asked for."""

from __future__ import annotations

import math
import socket
from collections.abc import Sequence
from pathlib import Path

import attrs

from bridgepool.gateway.proxy._app import GatewaySettings
from bridgepool.gateway.serving._listening import Address, StartError
from bridgepool.gateway.serving._logs import LogFormat


@attrs.frozen(kw_only=True)
class GatewayOptions:
    """What the command was asked for; see its help."""

    providers: Path | None = None
    store: str | None = None
    encryption_key_file: Path | None = None
    control: str | None = None
    key_file: Path | None = None
    name: str = attrs.field(factory=socket.gethostname)
    ca_file: Path | None = None
    snapshot_file: Path | None = None
    snapshot_key_file: Path | None = None
    listen: Sequence[str] = ("127.0.0.1:8080",)
    drain_timeout: float = 600.0
    log_format: LogFormat = "auto"
    access_log: str = "-"
    expose_route_headers: bool = False
    max_stale: float = math.inf
    max_body_bytes: float = math.inf
    max_connections: int = 10_000
    tls_cert: Path | None = None
    tls_key: Path | None = None

    def check(self) -> None:
        """Find what does not go together.

        Raises:
            StartError: something does not; says what.
        """
        sources = {
            "--providers": self.providers,
            "--store": self.store,
            "--control": self.control,
        }
        given = [name for name, value in sources.items() if value is not None]
        if len(given) != 1:
            has = f"{' and '.join(given)} are given" if given else "none is given"
            raise StartError(
                f"the providers come from one of {', '.join(sources)}, and {has}; give one"
            )
        for needed, options in {
            "--control": {
                "--key-file": self.key_file,
                "--ca-file": self.ca_file,
                "--snapshot-file": self.snapshot_file,
                "--snapshot-key-file": self.snapshot_key_file,
            },
            "--store": {"--encryption-key-file": self.encryption_key_file},
        }.items():
            for name, value in options.items():
                if value is not None and given != [needed]:
                    raise StartError(f"{name} is of use with {needed} only")
        if self.control is not None and self.key_file is None:
            raise StartError("--control needs --key-file, with the key of this gateway")
        if self.snapshot_key_file is not None and self.snapshot_file is None:
            raise StartError("--snapshot-key-file needs --snapshot-file")
        if self.max_connections < 1:
            raise StartError("--max-connections is at least 1")
        if not self.max_stale > 0:
            raise StartError("--max-stale is more than 0")

    def settings(self, addresses: Sequence[Address]) -> GatewaySettings:
        """Return the gateway's policy, when it listens on these addresses."""
        return GatewaySettings(
            allow_anonymous=all(address.is_loopback for address in addresses),
            expose_route_headers=self.expose_route_headers,
            max_stale=self.max_stale,
            # Read again in time, so that providers that nobody changes do not grow too old. A
            # store is asked for one number only, which makes good what its notices missed.
            poll_interval=min(300.0 if self.store is None else 5.0, self.max_stale / 3),
            drain_timeout=self.drain_timeout,
        )
