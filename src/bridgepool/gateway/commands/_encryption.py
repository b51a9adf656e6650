"""`bridgepool encryption`: the keys that encrypt the secrets of a store."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import trio
from cyclopts import App, Parameter

from bridgepool import BridgePoolError
from bridgepool.gateway.commands._connecting import local_actor
from bridgepool.gateway.commands._root import STORE_VARIABLE, fail, store_argument
from bridgepool.gateway.control._encryption import (
    EncryptionKeys,
    add_encryption_key,
    drop_old_encryption_keys,
    find_encryption_keys,
    generate_encryption_key,
    promote_encryption_key,
)
from bridgepool.gateway.control._errors import EncryptionError
from bridgepool.gateway.control._records import RotationReport
from bridgepool.gateway.control.database import check_store_exists
from bridgepool.gateway.control.store import open_store

encryption = App(name="encryption")


@encryption.command
def new_key() -> None:
    """Print a new encryption key, for a key file or BRIDGEPOOL_ENCRYPTION_KEYS."""
    print(generate_encryption_key().reveal())


@encryption.command
def add_key(file: Path) -> None:
    """Append a new key to a key file: it decrypts, and does not encrypt yet.

    Then send SIGHUP to every process that opens the store, or restart it, run `promote-key`, do
    the same again, and run `rotate`.

    Args:
        file: The key file.
    """
    _change_file(file, add_encryption_key)


@encryption.command
def promote_key(file: Path) -> None:
    """Move the last key of a key file to the front, where it encrypts; the others still decrypt.

    Args:
        file: The key file.
    """
    _change_file(file, promote_encryption_key)


def _change_file(file: Path, change: Callable[[Path], EncryptionKeys]) -> None:
    try:
        keys = change(file)
    except EncryptionError as error:
        fail(str(error))
    count = len(keys.names)
    print(f"{file}: {count} key{'' if count == 1 else 's'}; {keys.names[0]} encrypts")


@encryption.command
def rotate(
    *,
    store: Annotated[str | None, Parameter(metavar="STORE")] = None,
    encryption_key_file: Path | None = None,
    drop_old: bool = False,
) -> None:
    """Re-encrypt everything in a store with its first key, while everything runs.

    Refuses while a running control plane, or gateway with --store, does not have that key.

    Args:
        store: PATH, or postgresql://... Environment: BRIDGEPOOL_STORE.
        encryption_key_file: The keys of the store. Default: those in
            BRIDGEPOOL_ENCRYPTION_KEYS; else, for a file, PATH.key.
        drop_old: Afterwards remove all keys but the first from --encryption-key-file.
    """

    async def main(url: str) -> RotationReport:
        check_store_exists(url)
        keys = find_encryption_keys(url, key_file=encryption_key_file)
        async with open_store(url, keys) as opened:
            report = await opened.rotate_encryption(local_actor())
            await opened.programs.check_keys()  # one may have started meanwhile
            return report

    url = store_argument(store) if store is not None else os.environ.get(STORE_VARIABLE)
    if not url:
        fail(f"specify --store (environment: {STORE_VARIABLE})")
    if drop_old and encryption_key_file is None:
        fail("--drop-old requires --encryption-key-file")
    try:
        report = trio.run(main, url)
        print(f"re-encrypted {report.rewritten} rows")
        if report.unreadable:
            fail(
                f"{report.unreadable} rows cannot be decrypted with any of these keys; put the "
                "missing key back"
            )
        if drop_old and encryption_key_file is not None:
            kept = drop_old_encryption_keys(encryption_key_file)
            print(f"{encryption_key_file}: kept only the key {kept.names[0]}")
    except BridgePoolError as error:
        fail(str(error))
