"""The API under hypercorn, on listeners that we opened ourselves."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, cast

import attrs
import trio
from hypercorn.config import Config, Sockets
from hypercorn.trio import serve

from bridgepool.gateway.control.api._guard import Guard
from bridgepool.gateway.serving._listening import Listener

if TYPE_CHECKING:
    from hypercorn.typing import ASGIFramework

logger = logging.getLogger("bridgepool.control.api")

_AGAIN_AFTER: Final = 0.2  # seconds after hypercorn itself failed


@attrs.frozen
class Certificate:
    """What to serve HTTPS with: files in PEM."""

    cert: Path
    key: Path


async def serve_api(  # noqa: ASYNC114  # the linter cannot be told of every startable
    api: Guard,
    listeners: Sequence[Listener],
    *,
    certificate: Certificate | None = None,
    ending: trio.Event,
    grace: float = 10.0,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the API until `ending` is set; then let running requests end.

    Args:
        api: The application.
        listeners: Of plain TCP; closed in the end.
        certificate: Serve HTTPS with it.
        ending: Set it to end.
        grace: Seconds that running requests may take then.
        task_status: For `nursery.start`.
    """
    app = cast("ASGIFramework", api)
    task_status.started()  # the system takes connections already
    try:
        while not ending.is_set():
            config = _config(listeners, certificate, grace)
            try:
                with config:
                    await serve(app, config, shutdown_trigger=ending.wait)
            except Exception:  # hypercorn's: one connection must not end the API for all
                logger.exception("the HTTP server failed; it is started again")
                await trio.sleep(_AGAIN_AFTER)
    finally:
        for listener in listeners:
            _socket(listener).close()


class _Config(Config):
    """The configuration of one run of hypercorn, on copies of our sockets.

    Closes them in the end: hypercorn does so only if it came as far as to accept from them.
    """

    def __init__(self, originals: Sequence[trio.socket.SocketType]) -> None:
        super().__init__()
        self._copies = [socket.socket(fileno=os.dup(original.fileno())) for original in originals]

    def create_sockets(self) -> Sockets:
        """Give hypercorn the copies."""
        secure, plain = (self._copies, []) if self.ssl_enabled else ([], self._copies)
        return Sockets(secure, plain, [])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for copy in self._copies:
            copy.close()


def _config(
    listeners: Sequence[Listener], certificate: Certificate | None, grace: float
) -> _Config:
    config = _Config([_socket(listener) for listener in listeners])
    config.accesslog = None
    config.errorlog = logging.getLogger("bridgepool.control.hypercorn")
    config.include_server_header = False
    config.alpn_protocols = ["http/1.1"]
    config.graceful_timeout = grace
    config.ssl_handshake_timeout = 10
    config.keep_alive_timeout = 30
    if certificate is not None:
        config.certfile, config.keyfile = str(certificate.cert), str(certificate.key)
    return config


def _socket(listener: Listener) -> trio.socket.SocketType:
    if not isinstance(listener, trio.SocketListener):
        raise TypeError("hypercorn takes sockets")
    return listener.socket
