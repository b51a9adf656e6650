"""The certificate of the programs' listeners, which is replaced while they listen."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio

from bridgepool._services import open_background_nursery
from bridgepool.gateway.serving._files_in_use import FileInUse
from bridgepool.gateway.serving._listening import StartError

_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_END: Final = "-----END CERTIFICATE-----"
_VERSION_TAG: Final = 0xA0
_UTC_TIME: Final = 0x17
_DAY: Final = 86400.0
_LOOK_EVERY: Final = 3600.0  # seconds

logger = logging.getLogger("bridgepool.gateway.serving")


@attrs.frozen
class _Loaded:
    """What the files of a certificate hold."""

    context: ssl.SSLContext
    begin: float  # in Unix time
    end: float


@attrs.define(eq=False)
class ServerCertificate:
    """A certificate chain and its key. Made by `load_certificate`."""

    _current: _Loaded
    context: ssl.SSLContext
    """For the listeners: each new connection gets the current certificate."""
    file: FileInUse[_Loaded] = attrs.field(init=False)
    """Its files."""
    _logged: str = attrs.field(init=False, default="")  # of the current certificate

    @property
    def end(self) -> float:
        """When the current certificate ends, in Unix time."""
        return self._current.end

    def check_period(self, now: float) -> None:
        """Log that clients refuse the current certificate, or soon will; each of it once.

        Args:
            now: The time, in Unix time.
        """
        begin, end = self._current.begin, self._current.end
        soon = end - min(7 * _DAY, (end - begin) / 10)
        state = "early" if now < begin else "ended" if now >= end else "soon" if now > soon else ""
        if state == self._logged:
            return
        self._logged = state
        fields = {"path": str(self.file.path), "begin": _to_text(begin), "end": _to_text(end)}
        if state == "ended":
            logger.error("certificate has ended; clients refuse it", extra=fields)
        elif state == "early":
            logger.error("certificate is not valid yet; clients refuse it", extra=fields)
        elif state == "soon":
            logger.warning("certificate ends soon", extra=fields)

    def _replace(self, loaded: _Loaded) -> None:
        """Use another certificate for new connections."""
        self._current, self._logged = loaded, ""
        self.check_period(time.time())

    def _choose(self, connection: ssl.SSLObject, *_: object) -> None:
        connection.context = self._current.context


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
    first = _load(cert, key)
    certificate = ServerCertificate(first, _load(cert, key).context)
    certificate.file = FileInUse(
        "certificate", cert, partial(_load, cert, key, ""), first, certificate._replace
    )
    # Called during each handshake, also without a server name: the documented place to switch.
    certificate.context.sni_callback = certificate._choose
    return certificate


def _describe(error: OSError) -> str:
    """Return the reason in words, where OpenSSL has a code."""
    if isinstance(error, ssl.SSLError) and error.reason is None:
        return "one of them is not of the form PEM"  # "PEM lib" has no reason
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return "the key is not that of the certificate"
    return str(error)


@asynccontextmanager
async def watch_certificate(certificate: ServerCertificate | None) -> AsyncIterator[None]:
    """Log in time that a certificate ends, for as long as the block lasts."""

    async def watch(watched: ServerCertificate) -> None:
        while True:
            watched.check_period(time.time())
            await trio.sleep(_LOOK_EVERY)

    async with open_background_nursery() as nursery:
        if certificate is not None:
            nursery.start_soon(watch, certificate)
        yield


def _to_text(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _read_period(cert: Path) -> tuple[float, float]:
    """Return when the first certificate of a file begins and ends, in Unix time.

    Raises:
        OSError: It cannot be read. What it holds has been checked by OpenSSL.
    """
    text = cert.read_text("latin-1")
    start = text.index(_BEGIN)
    der = ssl.PEM_cert_to_DER_cert(text[start : text.index(_END, start) + len(_END)])
    # RFC 5280 section 4.1: certificate { tbs { [0] version, serial, algorithm, issuer, validity {
    # notBefore, notAfter } …
    tbs = _elements(_elements(der)[0][1])[0][1]
    fields = [content for tag, content in _elements(tbs) if tag != _VERSION_TAG]
    begin, end = (_read_moment(tag, value) for tag, value in _elements(fields[3]))
    return begin, end


def _read_moment(tag: int, value: bytes) -> float:
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


def _load(cert: Path, key: Path, password: str | None = None) -> _Loaded:
    """Read the files; with a password, never ask for one at the terminal.

    Raises:
        StartError: They cannot be used.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(cert, key, password)
        return _Loaded(context, *_read_period(cert))
    except OSError as error:  # ssl.SSLError is one
        raise StartError(
            f"--tls-cert {cert}, --tls-key {key}: cannot be used: {_describe(error)}"
        ) from None
