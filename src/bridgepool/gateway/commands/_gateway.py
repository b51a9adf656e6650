"""`bridgepool gateway` and what goes with it."""

from __future__ import annotations

import math
import os
import socket
import sys
from pathlib import Path
from typing import Literal

from bridgepool._secret import Secret
from bridgepool.gateway.commands._connecting import store_argument
from bridgepool.gateway.commands._root import app, fail
from bridgepool.gateway.providers import Client, new_client_key
from bridgepool.gateway.providers import hash_key as hash_of


@app.command
def gateway(
    *,
    providers: Path | None = None,
    control: str | None = None,
    store: str | None = None,
    key_file: Path | None = None,
    name: str | None = None,
    ca_file: Path | None = None,
    snapshot_file: Path | None = None,
    snapshot_key_file: Path | None = None,
    encryption_key_file: Path | None = None,
    listen: list[str] | None = None,
    drain_timeout: float = 600.0,
    log_format: Literal["auto", "json", "console"] = "auto",
    access_log: str = "-",
    expose_route_headers: bool = False,
    max_stale: float = math.inf,
    max_body_bytes: float = math.inf,
    max_connections: int = 10_000,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
) -> None:
    """Serve OpenAI- and Anthropic-style clients; follow every change of the providers.

    They come from one of three places: a provider file, a control plane, or a store that the
    gateway opens itself.

    Prints one line `listening on URL` for each address once it serves. SIGINT or SIGTERM stops
    accepting and lets running streams finish; a second signal ends at once.

    Args:
        providers: The provider file (TOML). It is watched: saving it changes the gateway.
        control: The control plane's URL, wss://HOST:PORT. It is followed, and may come and go.
        store: The store of a control plane: PATH.db or postgresql://…. It is followed. When none
            of the three is given: BRIDGEPOOL_STORE of the environment, if that is set.
        key_file: With --control: the file that holds this gateway's key.
        name: With --control: what this gateway calls itself. Default: the machine's name.
        ca_file: With --control: certificates (PEM) to trust in place of the system's.
        snapshot_file: With --control: a file to keep the last good providers in, and to start
            from while the control plane is down.
        snapshot_key_file: The file with the Fernet key to encrypt --snapshot-file with.
        encryption_key_file: With --store: the file with the store's encryption keys.
        listen: HOST:PORT to serve on, [HOST]:PORT for IPv6; port 0 takes a free one. May be
            given several times. Default: 127.0.0.1:8080.
        drain_timeout: Seconds that running requests may take when their provider was replaced,
            or when the gateway shuts down.
        log_format: How the log on standard error looks; auto is console on a terminal.
        access_log: Where the line per request goes: a file to append to, - for standard output,
            or none.
        expose_route_headers: Tell in response headers which provider and generation served.
        max_stale: Seconds since the providers were last confirmed, after which /readyz says no.
        max_body_bytes: Largest request body that is taken.
        max_connections: Most connections of clients at the same time; 503 beyond.
        tls_cert: Certificate chain (PEM) to serve HTTPS with; needs --tls-key.
        tls_key: The private key of --tls-cert (PEM).
    """
    from bridgepool.gateway._options import GatewayOptions
    from bridgepool.gateway._process import serve_gateway
    from bridgepool.gateway.serving._listening import StartError

    if store is not None:
        store_argument(store)
    elif providers is None and control is None:
        store = os.environ.get("BRIDGEPOOL_STORE")  # keeps a password out of the argument list
    try:
        options = GatewayOptions(
            providers=providers,
            control=control,
            store=store,
            key_file=key_file,
            name=name or socket.gethostname(),
            ca_file=ca_file,
            snapshot_file=snapshot_file,
            snapshot_key_file=snapshot_key_file,
            encryption_key_file=encryption_key_file,
            listen=listen or ["127.0.0.1:8080"],
            drain_timeout=drain_timeout,
            log_format=log_format,
            access_log=access_log,
            expose_route_headers=expose_route_headers,
            max_stale=max_stale,
            max_body_bytes=max_body_bytes,
            max_connections=max_connections,
            tls_cert=tls_cert,
            tls_key=tls_key,
        )
        status = serve_gateway(options)
    except StartError as error:
        fail(str(error))
    sys.exit(status)


@app.command(name="hash-key")
def hash_key(client: str, *, stdin: bool = False) -> None:
    """Make a client's key and print its row for the provider file.

    The row goes to standard output, so that it can be appended to the file; the new key is
    shown once, on standard error. Only its hash is kept.

    Args:
        client: The client's id, as it stands in the access log.
        stdin: Take the key from standard input instead of making a new one.
    """
    given = sys.stdin.readline() if stdin else None
    try:
        row, key = client_row(client, given)
    except ValueError as error:
        fail(str(error))
    if given is None:
        print(f"The key of {client}, shown only now: {key.reveal()}", file=sys.stderr, flush=True)
    print(row)


def client_row(client_id: str, given: str | None = None) -> tuple[str, Secret]:
    """Make the `[[clients]]` row for a client, and its key.

    Args:
        client_id: the client's id.
        given: the key to hash, white space around it allowed; None makes a new one.

    Raises:
        ValueError: one of them cannot be used; the text repeats no key.
    """
    if given is not None and not given.strip():
        raise ValueError("there is no key on standard input")
    key = new_client_key() if given is None else Secret(given.strip())
    client = Client(id=client_id, key_hashes=(hash_of(key),))
    return f'[[clients]]\nid = "{client.id}"\nkey_hash = "{client.key_hashes[0]}"', key
