"""Listen addresses and listeners of the programs."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Sequence
from contextlib import AsyncExitStack

import attrs
import trio

Listener = trio.abc.Listener[trio.abc.Stream]


class StartError(Exception):
    """The program cannot start; the text has the reason for its user."""


@attrs.frozen
class Address:
    """An address to listen on."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only programs of this machine reach it."""
        return is_loopback(self.host)

    @classmethod
    def parse(cls, text: str, option: str = "--listen") -> Address:
        """Parse `HOST:PORT` or `[HOST]:PORT`.

        Raises:
            StartError: it is neither; the text names the option.
        """
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        if bracketed:
            host = host[1:-1]
        sound = colon and host and port.isascii() and port.isdigit() and int(port) < 65536
        if not sound or (":" in host and not bracketed):
            raise StartError(f"{option} {text}: is not HOST:PORT or [HOST]:PORT")
        return cls(host, int(port))


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a host name or address."""
    host = host.lower().removesuffix(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def open_listeners(
    addresses: Sequence[Address], tls: ssl.SSLContext | None
) -> list[Listener]:
    """Listen on every address; one host name may have several.

    Raises:
        StartError: the process cannot listen on one of them.
    """
    listeners: list[Listener] = []
    for address in addresses:
        try:
            opened = await trio.open_tcp_listeners(address.port, host=address.host)
        except OSError as error:
            raise StartError(
                f"cannot listen on {address.host}:{address.port}: {error.strerror or error}"
            ) from None
        if tls is None:
            listeners += opened
        else:
            listeners += [trio.SSLListener(listener, tls) for listener in opened]
    return listeners


async def enter_listeners(
    stack: AsyncExitStack, addresses: Sequence[Address], tls: ssl.SSLContext | None
) -> list[Listener]:
    """Do as `open_listeners`; the stack closes the listeners."""
    listeners = await open_listeners(addresses, tls)
    for listener in listeners:
        stack.push_async_callback(trio.aclose_forcefully, listener)
    return listeners


def listener_url(listener: Listener) -> str:
    """Return the URL of a listener, with its real port."""
    scheme = "http"
    if isinstance(listener, trio.SSLListener):
        scheme, listener = "https", listener.transport_listener
    if not isinstance(listener, trio.SocketListener):
        raise AssertionError(listener)
    host, port = listener.socket.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
