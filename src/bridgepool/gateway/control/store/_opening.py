"""Open a store in the database that an address names."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from bridgepool._secret import Secret
from bridgepool._services import require_trio
from bridgepool.gateway.control._encryption import EncryptionKeys
from bridgepool.gateway.control.database import open_database
from bridgepool.gateway.control.store._keyring import Keyring
from bridgepool.gateway.control.store._provider_settings import Rules
from bridgepool.gateway.control.store._schema import MIGRATIONS
from bridgepool.gateway.control.store._store import Store
from bridgepool.gateway.providers import MAX_KEYS, PROVIDER_TYPES, ProviderType


@asynccontextmanager
async def open_store(
    url: str | Secret,
    keys: EncryptionKeys,
    *,
    max_keys: int = MAX_KEYS,
    types: Iterable[ProviderType] = PROVIDER_TYPES,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[Store]:
    """Open a store.

    Args:
        url: ``path.db``, ``sqlite:path`` or ``postgresql://…``.
        keys: The encryption keys, such as `find_encryption_keys` finds.
        max_keys: How many keys a provider may have, at most `KEYS_LIMIT`.
        types: What a provider may be; as those of the gateways.
        clock: Returns the time since the epoch, for the times that people read.
    """
    require_trio()
    rules = Rules(max_keys, tuple(types))
    async with open_database(url, MIGRATIONS) as database:
        yield Store(database, Keyring(keys), clock, rules)
