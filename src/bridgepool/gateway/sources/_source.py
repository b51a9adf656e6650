"""What a gateway process needs of its source of providers; the source that is a provider file."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from bridgepool import ProviderReloader, ReloadError
from bridgepool.gateway.providers import Clients, Provider, open_provider_file
from bridgepool.gateway.providers._key_status import KeyReport
from bridgepool.gateway.proxy._auth import Authorizer, ListedClients
from bridgepool.gateway.proxy._readiness import SourceReport
from bridgepool.gateway.proxy._receipts import OnApplied
from bridgepool.gateway.proxy._runtimes import Snapshot
from bridgepool.gateway.serving._listening import StartError

logger = logging.getLogger("bridgepool.gateway")


async def _never() -> str:
    await trio.sleep_forever()
    raise AssertionError


def _no_connection() -> None:
    return None


@attrs.frozen(kw_only=True)
class Source:
    """An open source of providers."""

    reloader: ProviderReloader[Provider]
    changes: trio.abc.ReceiveChannel[object]
    clients: Authorizer
    report: Callable[[], SourceReport]
    """Returns the source's part of `/readyz`."""
    connection: Callable[[], Mapping[str, object] | None] = _no_connection
    """Returns the state of the connection to a control plane, for `/status`; None without one."""
    first: Snapshot | None = None
    """The first snapshot; None if there is none yet."""
    first_age: float = 0.0
    """Seconds since `first` was confirmed."""
    on_applied: OnApplied | None = None
    """Called with each receipt."""
    follow_keys: Callable[[Callable[[], KeyReport]], None] = lambda _read: None
    """Called with what reads the use of the providers' keys, once the gateway is open."""
    reconnect: Callable[[], None] = lambda: None
    """Has it try at once to reach its control plane, if it waits for the next try."""
    look_again: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
    """Looks at its files again, at SIGHUP. It logs what is wrong with them."""
    wait_refused: Callable[[], Awaitable[str]] = _never
    """Returns the reason when the source has refused this gateway before any snapshot."""


@asynccontextmanager
async def open_file_source(path: Path, allow_anonymous: bool) -> AsyncIterator[Source]:
    """Open a provider file, and read it once.

    Args:
        path: The file.
        allow_anonymous: Whether a gateway without clients may serve, since only programs of
            this machine reach it.

    Raises:
        StartError: it cannot be used.
    """
    async with open_provider_file(path) as file:
        try:
            first = await file.reload()
        except ReloadError as error:
            raise StartError(str(error)) from None
        _check_clients(file.clients, file.path, allow_anonymous)
        report = SourceReport(source="provider file")

        async def look_again() -> None:
            file.look_again()
            await trio.lowlevel.checkpoint()

        yield Source(
            reloader=file,
            changes=file.changes,
            clients=ListedClients(lambda: file.clients),
            report=lambda: report,
            first=first,
            look_again=look_again,
        )


def _check_clients(clients: Clients, path: str, allow_anonymous: bool) -> None:
    """Log the client authentication, and refuse to serve a network without it."""
    if clients:
        logger.info("clients configured", extra={"clients": len(clients)})
        return
    if not allow_anonymous:
        raise StartError(
            f"{path}: has no [[clients]], and without clients a gateway may listen on "
            "loopback addresses only, and without --trusted-proxy; make one with "
            "`bridgepool hash-key`"
        )
    logger.warning("no clients configured; serving every program on this machine")
