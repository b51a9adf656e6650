"""The certificate of the programs' listeners, which is replaced while they listen."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

import attrs
import trio

from bridgepool.gateway.serving._listening import StartError

logger = logging.getLogger("bridgepool.gateway.serving")


@attrs.define(eq=False)
class ServerCertificate:
    """A certificate chain and its key. Made by `load_certificate`."""

    _cert: Path
    _key: Path
    _current: ssl.SSLContext
    context: ssl.SSLContext
    """For the listeners: each new connection gets the current certificate."""
    # One look at a time: a file system that hangs must not collect threads.
    _limiter: trio.CapacityLimiter = attrs.field(
        init=False, factory=lambda: trio.CapacityLimiter(1)
    )

    async def look_again(self) -> None:
        """Read the files again, and use them for new connections; keep the previous certificate
        if they cannot be used.

        Cancellation: Nothing is changed.
        """
        fields = {"path": str(self._cert)}
        try:
            self._current = await trio.to_thread.run_sync(
                _load, self._cert, self._key, "", abandon_on_cancel=True, limiter=self._limiter
            )
        except OSError as error:  # ssl.SSLError is one
            fields["error"] = str(error)
            logger.error("certificate cannot be used; keeping the previous one", extra=fields)
        else:
            logger.info("certificate read again", extra=fields)

    def _choose(self, connection: ssl.SSLObject, *_: object) -> None:
        connection.context = self._current


def load_certificate(cert: Path | None, key: Path | None) -> ServerCertificate | None:
    """Load the certificate of a server; None when neither file is given. Blocks.

    Raises:
        StartError: One is missing, or a file cannot be used.
    """
    if cert is None and key is None:
        return None
    if key is None:
        raise StartError("--tls-cert requires --tls-key")
    if cert is None:
        raise StartError("--tls-key requires --tls-cert")
    try:
        first, context = _load(cert, key), _load(cert, key)
    except OSError as error:
        raise StartError(f"--tls-cert {cert}, --tls-key {key}: cannot be used: {error}") from None
    certificate = ServerCertificate(cert, key, first, context)
    # Called during each handshake, also without a server name: the documented place to switch.
    context.sni_callback = certificate._choose
    return certificate


def _load(cert: Path, key: Path, password: str | None = None) -> ssl.SSLContext:
    """Read the files; with a password, never ask for one at the terminal."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(cert, key, password)
    return context
