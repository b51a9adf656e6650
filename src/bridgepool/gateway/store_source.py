"""The providers of a store that the gateway opens itself, without a control plane."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from bridgepool import BridgePoolError
from bridgepool.control.embedded import open_store_providers
from bridgepool.control.encryption import find_encryption_keys
from bridgepool.control.store import open_store
from bridgepool.gateway.auth import ListedClients
from bridgepool.gateway.readiness import SourceReport
from bridgepool.gateway.sources import Source, check_clients
from bridgepool.serving.listening import StartError


@asynccontextmanager
async def open_store_source(
    url: str, key_file: Path | None, allow_anyone: bool
) -> AsyncIterator[Source]:
    """Open a store, and read it once.

    Raises:
        StartError: it cannot be opened or read.
    """
    async with AsyncExitStack() as stack:
        try:
            find_keys = partial(find_encryption_keys, url, key_file=key_file)
            keys = await trio.to_thread.run_sync(find_keys)
            store = await stack.enter_async_context(open_store(url, keys))
            providers = stack.enter_context(open_store_providers(store))
            first = await providers.reload()
        except BridgePoolError as error:
            raise StartError(f"--store: {error}") from None
        problem = "the store has no clients"
        check_clients(providers.clients, allow_anyone, problem, "`bridgepool keys add`")
        report = SourceReport(source="store")
        yield Source(
            reloader=providers,
            changes=providers.changes,
            clients=ListedClients(lambda: providers.clients),
            report=lambda: report,
            first=first,
        )
