"""Serve the API with hypercorn, on listeners that are open already."""

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

_RESTART_DELAY: Final = 0.2  # seconds


@attrs.frozen
class Certificate:
    """A certificate chain and its key for HTTPS: files in PEM."""

    cert: Path
    key: Path


async def serve_api(  # noqa: ASYNC114 -- the linter cannot be told of every startable
    api: Guard,
    listeners: Sequence[Listener],
    *,
    certificate: Certificate | None = None,
    ending: trio.Event,
    grace: float = 10.0,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the API until `ending` is set; then let running requests finish.

    Args:
        api: The application.
        listeners: Plain TCP listeners; they are closed in the end.
        certificate: Serve HTTPS with it.
        ending: Set it to start the shutdown.
        grace: Seconds that running requests may take after that.
        task_status: For `nursery.start`.
    """
    app = cast("ASGIFramework", api)
    task_status.started()  # the kernel accepts connections already
    try:
        while not ending.is_set():
            config = _config(listeners, certificate, grace)
            try:
                with config:
                    await serve(app, config, shutdown_trigger=ending.wait)
            except Exception:  # hypercorn's: one connection must not end the API for all
                logger.exception("HTTP server failed; restarting it")
                await trio.sleep(_RESTART_DELAY)
    finally:
        for listener in listeners:
            _socket(listener).close()


class _Config(Config):
    """The configuration of one run of hypercorn, on duplicates of our sockets.

    It closes them in the end: hypercorn does so only if it got as far as to accept from them.
    """

    def __init__(self, originals: Sequence[trio.socket.SocketType]) -> None:
        super().__init__()
        self._copies = [socket.socket(fileno=os.dup(original.fileno())) for original in originals]

    def create_sockets(self) -> Sockets:
        """Return the duplicates."""
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
        raise TypeError("hypercorn serves socket listeners only")
    return listener.socket
