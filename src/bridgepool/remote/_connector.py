"""How a follower gets a connection to its owner."""

import ssl
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

import trio

from bridgepool._network import parse_websocket_url
from bridgepool._secret import Secret, require_secret
from bridgepool.remote._versions import PROTOCOL
from bridgepool.transports._handshake import WebSocketLimits

Connect = Callable[[], AbstractAsyncContextManager[trio.abc.Channel[bytes]]]
"""Opens a connection to the owner, such as what `websocket_connector` returns."""


def websocket_connector(
    url: str,
    key: Secret,
    *,
    ssl_context: ssl.SSLContext | None = None,
    limits: WebSocketLimits | None = None,
) -> Connect:
    """Return what connects `open_remote_providers` to an owner over a websocket.

    Args:
        url: Where it listens: ``wss://host:port``, or ``ws://…`` on a private network only, since
            keys and providers are sent unencrypted.
        key: What the owner's `admit` decides by.
        ssl_context: For ``wss``, where the system's certificates are not the right ones.
        limits: Of the connection; give both ends the same.

    Raises:
        ValueError: The URL is not one of a websocket, or has a query or a fragment.
        TypeError: `key` is not a `Secret`.
    """
    from bridgepool.transports.websocket import open_websocket_channel  # needs the extra

    require_secret(key, "key")
    _, target = parse_websocket_url(url)
    if "?" in target:
        raise ValueError("the URL of an owner must not have a query")
    return partial(
        open_websocket_channel,
        f"{url}?version={PROTOCOL}",
        bearer=key,
        ssl_context=ssl_context,
        limits=limits or WebSocketLimits(),
    )
