"""The certificate of the programs' listeners, which is replaced while they listen."""

from __future__ import annotations

import logging
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import attrs
import trio

from bridgepool.gateway.serving._listening import StartError

_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_END: Final = "-----END CERTIFICATE-----"
_VERSION_TAG: Final = 0xA0
_UTC_TIME: Final = 0x17

logger = logging.getLogger("bridgepool.gateway.serving")


@attrs.define(eq=False)
class ServerCertificate:
    """A certificate chain and its key. Made by `load_certificate`."""

    _cert: Path
    _key: Path
    _current: ssl.SSLContext
    _end: float
    context: ssl.SSLContext
    """For the listeners: each new connection gets the current certificate."""
    # One look at a time: a file system that hangs must not collect threads.
    _limiter: trio.CapacityLimiter = attrs.field(
        init=False, factory=lambda: trio.CapacityLimiter(1)
    )

    @property
    def end(self) -> float:
        """When the current certificate ends, in Unix time."""
        return self._end

    async def look_again(self) -> None:
        """Read the files again, and use them for new connections; keep the previous certificate
        if they cannot be used.

        Cancellation: Nothing is changed.
        """
        fields = {"path": str(self._cert)}
        try:
            self._current, self._end = await trio.to_thread.run_sync(
                _load_again,
                self._cert,
                self._key,
                abandon_on_cancel=True,
                limiter=self._limiter,
            )
        except OSError as error:  # ssl.SSLError is one
            fields["error"] = _describe(error)
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
        first, context, end = _load(cert, key), _load(cert, key), _read_end(cert)
    except OSError as error:
        raise StartError(
            f"--tls-cert {cert}, --tls-key {key}: cannot be used: {_describe(error)}"
        ) from None
    certificate = ServerCertificate(cert, key, first, end, context)
    # Called during each handshake, also without a server name: the documented place to switch.
    context.sni_callback = certificate._choose
    return certificate


def _describe(error: OSError) -> str:
    """Return the reason in words, where OpenSSL has a code."""
    if isinstance(error, ssl.SSLError) and error.reason is None:
        return "one of them is not of the form PEM"  # "PEM lib" has no reason
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return "the key is not that of the certificate"
    return str(error)


def _load_again(cert: Path, key: Path) -> tuple[ssl.SSLContext, float]:
    return _load(cert, key, ""), _read_end(cert)


def _read_end(cert: Path) -> float:
    """Return when the first certificate of a file ends, in Unix time.

    Raises:
        OSError: It cannot be read. What it holds has been checked by OpenSSL.
    """
    text = cert.read_text("latin-1")
    begin = text.index(_BEGIN)
    der = ssl.PEM_cert_to_DER_cert(text[begin : text.index(_END, begin) + len(_END)])
    # RFC 5280 section 4.1: certificate { tbs { [0] version, serial, algorithm, issuer, validity {
    # notBefore, notAfter } …
    tbs = _elements(_elements(der)[0][1])[0][1]
    fields = [content for tag, content in _elements(tbs) if tag != _VERSION_TAG]
    tag, value = _elements(fields[3])[1]
    form = "%y%m%d%H%M%SZ" if tag == _UTC_TIME else "%Y%m%d%H%M%SZ"
    moment = datetime.strptime(value.decode("ascii"), form).replace(tzinfo=UTC)
    return moment.timestamp()


def _elements(data: bytes) -> list[tuple[int, bytes]]:
    """Return tag and content of each element of DER."""
    found, place = [], 0
    while place < len(data):
        tag, length, place = data[place], data[place + 1], place + 2
        if length > 0x7F:
            size = length & 0x7F
            length, place = int.from_bytes(data[place : place + size]), place + size
        found.append((tag, data[place : place + length]))
        place += length
    return found


def _load(cert: Path, key: Path, password: str | None = None) -> ssl.SSLContext:
    """Read the files; with a password, never ask for one at the terminal."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(cert, key, password)
    return context
