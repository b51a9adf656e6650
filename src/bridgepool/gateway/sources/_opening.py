"""The three ways to the providers of a gateway process; each gives the same `Source`."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from bridgepool import ReloadError
from bridgepool.gateway._options import GatewayOptions
from bridgepool.gateway.providers import Clients, open_provider_file
from bridgepool.gateway.proxy._auth import ListedClients
from bridgepool.gateway.proxy._readiness import SourceReport
from bridgepool.gateway.serving._listening import StartError
from bridgepool.gateway.sources._source import Source

logger = logging.getLogger("bridgepool.gateway")


def open_source(
    options: GatewayOptions, *, allow_anyone: bool
) -> AbstractAsyncContextManager[Source]:
    """Open the source that was asked for.

    Args:
        options: They were checked.
        allow_anyone: Whether a gateway without clients may serve, since only programs of this
            machine reach it.

    Raises:
        StartError: on entering: it cannot be used.
    """
    if options.providers is not None:
        return _open_file(options.providers, allow_anyone)
    if options.store is not None:
        from bridgepool.gateway.sources._store_source import open_store_source

        return open_store_source(options.store, options.encryption_key_file)
    from bridgepool.gateway.sources._control_source import open_control_source

    return open_control_source(options)


@asynccontextmanager
async def _open_file(path: Path, allow_anyone: bool) -> AsyncIterator[Source]:
    async with open_provider_file(path) as file:
        try:
            first = await file.reload()
        except ReloadError as error:
            raise StartError(str(error)) from None
        _check_clients(file.clients, file.path, allow_anyone)
        report = SourceReport(source="provider file")
        yield Source(
            reloader=file,
            changes=file.changes,
            clients=ListedClients(lambda: file.clients),
            report=lambda: report,
            first=first,
        )


def _check_clients(clients: Clients, path: str, allow_anyone: bool) -> None:
    """Say who may come, and refuse to serve everybody on a network."""
    if clients:
        logger.info("clients are configured", extra={"clients": len(clients)})
        return
    if not allow_anyone:
        raise StartError(
            f"{path}: has no [[clients]], and without clients a gateway may listen on "
            "loopback addresses only; make one with `bridgepool hash-key`"
        )
    logger.warning("no clients are configured: every program on this machine is served")
