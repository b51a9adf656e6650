"""The encryption keys of a running program."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from bridgepool.gateway.control._encryption import EncryptionKeys
from bridgepool.gateway.control._records import Actor
from bridgepool.gateway.control.store import Store
from bridgepool.gateway.serving._files_in_use import FileInUse

_SELF: Final = Actor("program", "SIGHUP")


def encryption_key_file(
    store: Store, keys: EncryptionKeys, find: Callable[[], EncryptionKeys]
) -> FileInUse[EncryptionKeys]:
    """Return the file of the keys that a store uses.

    Args:
        store: The store.
        keys: Its keys.
        find: Finds them; blocks.
    """
    return FileInUse("encryption keys", keys.source, find, keys, partial(store.use_keys, _SELF))
