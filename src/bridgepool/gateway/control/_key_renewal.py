"""The encryption keys of a running program, read again when it is asked to look at its files."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import trio

from bridgepool.gateway.control._encryption import EncryptionKeys
from bridgepool.gateway.control._errors import StoreError
from bridgepool.gateway.control._records import Actor
from bridgepool.gateway.control.store import Store

logger = logging.getLogger("bridgepool.store")

_SELF: Final = Actor("program", "SIGHUP")


async def renew_keys(store: Store, find: Callable[[], EncryptionKeys]) -> None:
    """Use the keys that are found now; log an error and keep the previous ones if they are wrong.

    Args:
        store: The store.
        find: Finds the keys; run in a thread.

    Cancellation: The previous keys stay.
    """
    limiter = trio.CapacityLimiter(1)
    try:
        keys = await trio.to_thread.run_sync(find, abandon_on_cancel=True, limiter=limiter)
        await store.use_keys(_SELF, keys)
    except StoreError as error:
        logger.error("encryption keys cannot be used (%s); keeping the previous ones", error)
    else:
        logger.info("encryption keys read again", extra={"keys": list(keys.names)})
