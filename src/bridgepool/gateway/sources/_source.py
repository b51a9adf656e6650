"""What a gateway process needs of its source of providers; the source that is a provider file."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import attrs
import trio

from bridgepool import ProviderReloader, ProviderSnapshot, ReloadError
from bridgepool.gateway.providers import Clients, Provider, open_provider_file
from bridgepool.gateway.providers._key_status import KeyReport
from bridgepool.gateway.proxy._auth import Authorizer, ListedClients
from bridgepool.gateway.proxy._readiness import SourceReport
from bridgepool.gateway.proxy._receipts import OnApplied
from bridgepool.gateway.proxy._runtimes import Snapshot
from bridgepool.gateway.serving._files_in_use import FileInUse
from bridgepool.gateway.serving._listening import StartError

logger = logging.getLogger("bridgepool.gateway")


async def _never() -> str:
    await trio.sleep_forever()
    raise AssertionError


@attrs.frozen(kw_only=True)
class Source:
    """An open source of providers."""

    reloader: ProviderReloader[Provider]
    changes: trio.abc.ReceiveChannel[object]
    clients: Authorizer
    report: Callable[[], SourceReport]
    """Returns the source's part of `/readyz`."""
    connection: Callable[[], Mapping[str, object] | None] = lambda: None
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
    look_again: Callable[[], None] = lambda: None
    """Has it look at once at a file that it watches, at SIGHUP."""
    files: Sequence[FileInUse[Any]] = ()
    """Its other files."""
    wait_refused: Callable[[], Awaitable[str]] = _never
    """Returns the reason when the source has refused this gateway before any snapshot."""


class _WithClients(ProviderReloader[Provider], Protocol):
    @property
    def clients(self) -> Clients:
        """Those of the last good reading; none before the first."""
        ...


@attrs.frozen
class ClientsLogged:
    """A source of providers and clients; logs when its first client comes, or its last one goes.

    Args:
        source: The source.
        allow_anonymous: Whether programs of this machine are served when there are none.
    """

    source: _WithClients
    allow_anonymous: bool

    def log(self) -> None:
        """Log whether there are clients."""
        if count := len(self.source.clients):
            logger.info("clients configured", extra={"clients": count})
        elif self.allow_anonymous:
            logger.warning("no clients configured; serving every program on this machine")
        else:
            logger.warning("no clients configured; every request is refused")

    async def reload(self) -> ProviderSnapshot[Provider]:
        """Reload the source."""
        before = len(self.source.clients) > 0
        snapshot = await self.source.reload()
        if (len(self.source.clients) > 0) != before:
            self.log()
        return snapshot


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
        if not file.clients and not allow_anonymous:
            raise StartError(
                f"{file.path}: has no [[clients]], and without clients a gateway may listen on "
                "loopback addresses only, and without --trusted-proxy; make one with "
                "`bridgepool hash-key`"
            )
        reloader = ClientsLogged(file, allow_anonymous)
        reloader.log()
        report = SourceReport(source="provider file")

        yield Source(
            reloader=reloader,
            changes=file.changes,
            clients=ListedClients(lambda: file.clients),
            report=lambda: report,
            first=first,
            look_again=file.look_again,
        )
