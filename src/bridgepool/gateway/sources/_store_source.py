"""The source that is a store, opened by the gateway itself, without a control plane.

As with a control plane, every client needs a key: revoking the last one must not open the gateway
to every program of the machine.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio

from bridgepool import BridgePoolError
from bridgepool._services import open_background_nursery
from bridgepool.gateway.control._embedded import StoreProviders, open_store_providers
from bridgepool.gateway.control._encryption import find_encryption_keys
from bridgepool.gateway.control._errors import EncryptionError, StoreError
from bridgepool.gateway.control._key_renewal import encryption_key_file
from bridgepool.gateway.control._registration import new_program_name, registered
from bridgepool.gateway.control.database import check_store_exists
from bridgepool.gateway.control.store import open_store
from bridgepool.gateway.providers import Caller
from bridgepool.gateway.providers._key_status import KeyReport
from bridgepool.gateway.proxy._readiness import SourceReport
from bridgepool.gateway.proxy._receipts import Receipt
from bridgepool.gateway.serving._listening import StartError
from bridgepool.gateway.sources._source import ClientsLogged, Source
from bridgepool.gateway.usage._records import UsageRecord
from bridgepool.gateway.usage._spool import NotStoredError, UsageSpool
from bridgepool.remote import RejectedRow

logger = logging.getLogger("bridgepool.gateway")


@attrs.frozen
class _KeysOnly:
    """The clients of a store as an `Authorizer`."""

    _providers: StoreProviders
    has_clients: bool = True

    async def authorize(self, token: bytes) -> Caller | None:
        """Look the key up. Not a checkpoint."""
        return self._providers.clients.authenticate(token)


@asynccontextmanager
async def open_store_source(
    url: str,
    key_file: Path | None,
    name: str = "",
    usage: UsageSpool | None = None,
    *,
    report_interval: float = 10.0,
) -> AsyncIterator[Source]:
    """Open a store, and read it once.

    Args:
        url: The store.
        key_file: The file of its encryption keys.
        name: Of this gateway, for its usage records and its reports.
        usage: Its records are stored there.
        report_interval: Seconds between two reports of this program, with the use of the
            providers' keys.

    Raises:
        StartError: it cannot be opened or read.
    """
    read_keys: Callable[[], KeyReport] | None = None  # once the gateway is open

    def follow_keys(read: Callable[[], KeyReport]) -> None:
        nonlocal read_keys
        read_keys = read

    def report_keys() -> KeyReport | None:
        return read_keys() if read_keys is not None else None

    async with AsyncExitStack() as stack:
        try:
            await trio.to_thread.run_sync(check_store_exists, url)
            find_keys = partial(find_encryption_keys, url, key_file=key_file)
            try:
                keys = await trio.to_thread.run_sync(find_keys)
            except EncryptionError as error:  # it says which option, variable or file is wrong
                raise StartError(str(error)) from None
            store = await stack.enter_async_context(open_store(url, keys))
            await store.check_readable()
            providers = stack.enter_context(open_store_providers(store))
            program = new_program_name(name)
            await stack.enter_async_context(
                registered(store, "gateway", program, interval=report_interval, report=report_keys)
            )
            first = await providers.reload()
        except BridgePoolError as error:
            raise StartError(f"--store: {error}") from None
        reloader = ClientsLogged(providers, allow_anonymous=False)
        reloader.log()

        def report() -> SourceReport:
            return SourceReport(source="store", unreadable=len(providers.unreadable))

        logged: tuple[RejectedRow, ...] = ()

        def log_rejected(_: Receipt) -> None:
            nonlocal logged
            for row in providers.rejected:
                if row not in logged and row not in providers.unreadable:  # the store logs those
                    logger.warning(
                        "provider rejected", extra={"provider": row.name, "reason": row.reason}
                    )
            logged = providers.rejected

        async def store_usage(records: tuple[UsageRecord, ...]) -> None:
            try:
                await store.usage.add(name, records)
            except StoreError as error:
                raise NotStoredError(str(error)) from None

        nursery = await stack.enter_async_context(open_background_nursery())
        if usage is not None:
            nursery.start_soon(usage.send, store_usage)
        yield Source(
            reloader=reloader,
            changes=providers.changes,
            clients=_KeysOnly(providers),
            report=report,
            first=first,
            on_applied=log_rejected,
            follow_keys=follow_keys,
            files=[encryption_key_file(store, keys, find_keys)],
        )
