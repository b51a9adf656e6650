"""`bridgepool control-plane`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Literal

from bridgepool.gateway.commands._connecting import STORE_VARIABLE, store_argument
from bridgepool.gateway.commands._root import app, fail


@app.command(name="control-plane")
def control_plane(
    *,
    store: str | None = None,
    listen: list[str] | None = None,
    rpc_listen: list[str] | None = None,
    encryption_key_file: Path | None = None,
    admin_key_file: Path | None = None,
    gateway_key_file: Path | None = None,
    client_key_file: Path | None = None,
    seed: Path | None = None,
    max_keys: int = 5,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    insecure: bool = False,
    drain_timeout: float = 10.0,
    log_format: Literal["auto", "json", "console"] = "auto",
) -> None:
    """Own the providers, clients and keys: an API to change them, a service for gateways.

    Prints `listening on URL` for each address of the API and `serving gateways on URL` for each
    that gateways connect to, once it serves. SIGINT or SIGTERM ends it in order; a second signal
    ends it at once. Gateways serve on meanwhile.

    Args:
        store: Where everything is kept: PATH of an SQLite file, made if it is not there, or
            postgresql://... Environment: BRIDGEPOOL_STORE.
        listen: HOST:PORT of the API, [HOST]:PORT for IPv6; port 0 takes a free one. May be given
            several times. Default: 127.0.0.1:8180.
        rpc_listen: The same for gateways. Default: 127.0.0.1:8181.
        encryption_key_file: The encryption keys of the store. Default: those in
            BRIDGEPOOL_ENCRYPTION_KEYS; else, for a file, PATH.key.
        admin_key_file: A file with an admin key. If it is not there, it is made, with a new key
            that may write.
        gateway_key_file: The same for a gateway's key.
        client_key_file: The same for a client's key.
        seed: A provider file that is applied at the start. What was changed by hand since stays.
        max_keys: How many keys a provider may have, from 1 to 64.
        tls_cert: Certificate chain (PEM) to serve HTTPS and WSS with; needs --tls-key.
        tls_key: The private key of --tls-cert (PEM).
        insecure: Listen without TLS on addresses that others can reach: something else encrypts.
        drain_timeout: Seconds that running requests of the API may take at the end.
        log_format: How the log on standard error looks; auto is console on a terminal.
    """
    from bridgepool.gateway.control._process import ControlPlaneOptions, serve_control_plane
    from bridgepool.gateway.serving._listening import StartError

    where = store_argument(store) if store is not None else os.environ.get(STORE_VARIABLE)
    if not where:
        fail(f"say where to keep everything: --store PATH, or {STORE_VARIABLE}")
    try:
        options = ControlPlaneOptions(
            store=where,
            listen=listen or ["127.0.0.1:8180"],
            rpc_listen=rpc_listen or ["127.0.0.1:8181"],
            encryption_key_file=encryption_key_file,
            admin_key_file=admin_key_file,
            gateway_key_file=gateway_key_file,
            client_key_file=client_key_file,
            seed=seed,
            max_keys=max_keys,
            tls_cert=tls_cert,
            tls_key=tls_key,
            insecure=insecure,
            drain_timeout=drain_timeout,
            log_format=log_format,
        )
        status = serve_control_plane(options)
    except StartError as error:
        fail(str(error))
    sys.exit(status)
