"""Addresses of peers and connections to them: what HTTP and websockets share."""

import functools
import os
import ssl
from collections.abc import Awaitable, Callable
from typing import TypeAlias
from urllib.parse import urlsplit

import attrs
import trio

from bridgepool._tcp import TcpConnector

Dial: TypeAlias = Callable[[], Awaitable[trio.abc.Stream]]
"""Opens one connection. Failures that are `OSError` or Trio's become `ConnectFailed`."""

_DEFAULT_PORTS = {"http": 80, "https": 443}
# What OpenSSL reports, depending on its version, when the answer is not TLS.
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"})
_HTTP_SCHEMES = {"ws": "http", "wss": "https"}


@attrs.frozen
class Origin:
    """The scheme, host, port and path of a base URL."""

    scheme: str
    host: str
    port: int
    base_path: bytes
    """Prefix of every request target: without a slash at its end; may be empty."""

    @property
    def authority(self) -> bytes:
        """The value of Host, without the scheme's default port (RFC 9110 section 4.2.3)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        if self.port == _DEFAULT_PORTS[self.scheme]:
            return host.encode("ascii")
        return f"{host}:{self.port}".encode("ascii")


def parse_origin(base_url: str) -> Origin:
    """Parse a base URL.

    Raises:
        ValueError: It is not an absolute http or https URL of host, port and path alone.
    """
    if not isinstance(base_url, str):
        raise TypeError(f"the base URL is a {type(base_url).__name__}, not a text")
    if any(character <= " " or character == "\x7f" for character in base_url):
        raise ValueError("invalid base URL: it must not have spaces or control characters")
    try:
        parts = urlsplit(base_url)
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode("ascii")
        base_path = parts.path.rstrip("/").encode("ascii")
    except ValueError as error:  # also UnicodeError
        raise ValueError(
            "invalid base URL: expected a host name or address, an optional port and an ASCII path"
        ) from error
    if parts.scheme not in _DEFAULT_PORTS or not host:
        raise ValueError("invalid base URL: it must begin with http:// or https:// and a host")
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("invalid base URL: it must not have a user, a query or a fragment")
    if port is None:
        port = _DEFAULT_PORTS[parts.scheme]
    return Origin(parts.scheme, host, port, base_path)


def parse_websocket_url(url: str) -> tuple[Origin, str]:
    """Return the origin of a websocket URL, with the scheme http or https, and the request target.

    Raises:
        ValueError: It is not an absolute ws or wss URL of host, port, path and query alone.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in _HTTP_SCHEMES:
        raise ValueError("a websocket URL must begin with ws:// or wss://")
    base, mark, query = rest.partition("?")
    try:
        origin = parse_origin(f"{_HTTP_SCHEMES[scheme]}://{base}")
    except ValueError:
        raise ValueError(
            "a websocket URL must be ws:// or wss:// and a host, with an optional port, path and "
            "query"
        ) from None
    target = (base[base.find("/") :] if "/" in base else "/") + mark + query
    if not all("!" <= char <= "~" for char in target) or "#" in target:
        raise ValueError("path and query of a websocket URL must be ASCII without spaces")
    return origin, target


@functools.cache
def upstream_ssl_context() -> ssl.SSLContext:
    """Return the TLS context that clients use by default; it is created once.

    Certificates are verified against the operating system's store, host names are checked, and
    HTTP/1.1 is the only protocol offered.

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
    """Return a `Dial` for an origin: TCP, and TLS where the scheme is https.

    Keep it: it remembers the addresses of the host.
    """
    dial_tcp = TcpConnector(origin.host, origin.port).open

    if origin.scheme == "http":
        return dial_tcp
    context = upstream_ssl_context() if ssl_context is None else ssl_context
    # Some Pythons set it by default (3.11.2 does): a connection that is cut looks like one that
    # was closed.
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF

    async def dial_tls() -> trio.abc.Stream:
        tcp = await dial_tcp()
        # Not `https_compatible`: an end of stream without TLS's close_notify must be an error.
        # Otherwise nobody would notice a truncated body that ends with the connection
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
    """Return the `Dial` that `open_upstream_client` uses by default.

    A `Dial` of your own can call it and check the stream, for example its `peer_address`.

    Args:
        base_url: As for `open_upstream_client`.
        ssl_context: Settings for TLS; None for `upstream_ssl_context`. Its
            `OP_IGNORE_UNEXPECTED_EOF` is cleared: with it, a cut body looks complete.

    Raises:
        ValueError: `base_url` is not an absolute http or https URL of host, port and path alone.
        ImportError: The URL is https, `ssl_context` is None and truststore is not installed.
    """
    return dial_origin(parse_origin(base_url), ssl_context)


def describe_failure(error: OSError | trio.BrokenResourceError) -> str:
    """Return the reason why a connection could not be made, in words for people.

    Trio wraps errors of TLS, and the failures of several attempts.
    """
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError) and cause.reason in _NO_TLS:
        return f"TLS failed ({cause.reason}): the server does not expect TLS on this port"
    if isinstance(cause, ssl.SSLError):
        return f"TLS failed: {cause.reason or cause}"
    if isinstance(cause, OSError) and cause.errno:
        return os.strerror(cause.errno)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or "the connection broke"


def peer_address(stream: trio.abc.Stream) -> tuple[str, int] | None:
    """Return the address and port of the other end of a TCP or TLS stream.

    Returns:
        None for other streams, and when the peer has already disconnected.
    """
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    if not isinstance(stream, trio.SocketStream):
        return None
    try:
        address = stream.socket.getpeername()
    except OSError:
        return None
    return (str(address[0]), int(address[1])) if isinstance(address, tuple) else None


def lacks_handshake(stream: trio.abc.Stream) -> bool:
    """Return whether a stream is one of TLS whose handshake has not succeeded."""
    if not isinstance(stream, trio.SSLStream):
        return False
    try:
        stream.version()
    except trio.NeedHandshakeError:
        return True
    return False


def format_address(address: tuple[str, int] | None) -> str:
    """Return `host:port` as in a URL; empty for None."""
    if address is None:
        return ""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
