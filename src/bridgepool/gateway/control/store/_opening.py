"""Open a store, in the database that its address names."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from bridgepool._secret import Secret
from bridgepool.gateway.control._encryption import EncryptionKeys
from bridgepool.gateway.control.database import open_database
from bridgepool.gateway.control.store._schema import MIGRATIONS
from bridgepool.gateway.control.store._store import Store
from bridgepool.gateway.providers import KEYS_LIMIT, MAX_KEYS


@asynccontextmanager
async def open_store(
    url: str | Secret,
    keys: EncryptionKeys,
    *,
    max_keys: int = MAX_KEYS,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[Store]:
    """Open a store.

    Args:
        url: ``path.db``, ``sqlite:path`` or ``postgresql://…``.
        keys: The encryption keys, such as `find_encryption_keys` finds.
        max_keys: How many keys a provider may have, at most `KEYS_LIMIT`.
        clock: Tells the time since the epoch, for the times that people are shown.
    """
    if not 1 <= max_keys <= KEYS_LIMIT:
        raise ValueError(f"max_keys is not from 1 to {KEYS_LIMIT}")
    async with open_database(url, MIGRATIONS) as database:
        yield Store(database, keys, clock, max_keys)
