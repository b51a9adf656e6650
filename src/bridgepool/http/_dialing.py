"""Where an upstream is, and how a connection to it is made."""

import functools
import os
import ssl
from collections.abc import Awaitable, Callable
from typing import TypeAlias
from urllib.parse import urlsplit

import attrs
import trio

from bridgepool.http._errors import ConnectFailed

Dial: TypeAlias = Callable[[], Awaitable[trio.abc.Stream]]
"""Opens one connection. Failures that are `OSError` or Trio's become `ConnectFailed`."""

_DEFAULT_PORTS = {"http": 80, "https": 443}


@attrs.frozen
class Origin:
    """What a base URL says about connections: whom to call, and by what name."""

    scheme: str
    host: str
    port: int
    base_path: bytes
    """Goes before every target; without a slash at its end, empty for none."""

    @property
    def authority(self) -> bytes:
        """The value of Host: the default port is left out (RFC 9110 section 4.2.3)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        if self.port == _DEFAULT_PORTS[self.scheme]:
            return host.encode("ascii")
        return f"{host}:{self.port}".encode("ascii")


def parse_origin(base_url: str) -> Origin:
    """Take a base URL apart.

    Raises:
        ValueError: It is not an absolute http or https URL of host, port and path alone.
    """
    try:
        parts = urlsplit(base_url)
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode("ascii")
        base_path = parts.path.rstrip("/").encode("ascii")
    except ValueError as error:  # UnicodeError is one, too
        raise ValueError("a base URL has a name or address, a port and an ASCII path") from error
    if parts.scheme not in _DEFAULT_PORTS or not host:
        raise ValueError("a base URL begins with http:// or https:// and a host")
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("a base URL has no user, query or fragment")
    if port is None:
        port = _DEFAULT_PORTS[parts.scheme]
    return Origin(parts.scheme, host, port, base_path)


@functools.cache
def upstream_ssl_context() -> ssl.SSLContext:
    """Return the context that clients use unless they are given one; it is made once.

    Certificates are verified against the operating system's own store, host names checked,
    and HTTP/1.1 is the only protocol offered.

    Raises:
        ImportError: truststore is not installed.
    """
    try:
        import truststore
    except ImportError as error:
        raise ImportError(
            "TLS to upstreams needs truststore: pip install 'bridgepool[http]'"
        ) from error
    context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["http/1.1"])
    return context


def dial_origin(origin: Origin, ssl_context: ssl.SSLContext | None) -> Dial:
    """Return the way to connect to an origin by TCP, and TLS where its scheme says so."""

    async def dial_tcp() -> trio.SocketStream:
        return await trio.open_tcp_stream(origin.host, origin.port)

    if origin.scheme == "http":
        return dial_tcp
    context = upstream_ssl_context() if ssl_context is None else ssl_context

    async def dial_tls() -> trio.abc.Stream:
        tcp = await dial_tcp()
        # Not `https_compatible`: so an end without TLS's own goodbye is told from a true one,
        # and a body that only the end of the connection ends cannot be cut short unseen
        # (RFC 9112 section 9.8).
        tls = trio.SSLStream(tcp, context, server_hostname=origin.host)
        try:
            await tls.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(tcp)
            raise
        return tls

    return dial_tls


def default_dial(base_url: str, *, ssl_context: ssl.SSLContext | None = None) -> Dial:
    """Return the way in which `open_upstream_client` connects when it is given none.

    A `Dial` of your own can call it, and check the stream before it is used.

    Args:
        base_url: As for `open_upstream_client`.
        ssl_context: Settings for TLS; None for `upstream_ssl_context`.

    Raises:
        ValueError: `base_url` is not an absolute http or https URL of host, port and path alone.
        ImportError: truststore is not installed, and TLS needs it.
    """
    return dial_origin(parse_origin(base_url), ssl_context)


async def connect(dial: Dial, name: str) -> trio.abc.Stream:
    """Dial, and say in one kind of exception what went wrong.

    Raises:
        ConnectFailed: Nothing was connected; the cause is the original exception.
    """
    try:
        return await dial()
    except (OSError, trio.BrokenResourceError) as error:
        raise ConnectFailed(f"cannot connect to {name}: {_why(error)}") from error


def _why(error: OSError | trio.BrokenResourceError) -> str:
    """Find the words for people: Trio wraps what TLS said, and several failed attempts."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return f"TLS failed: {cause.reason or cause}"
    if isinstance(cause, OSError) and cause.errno:
        return os.strerror(cause.errno)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or "the connection broke"
