"""`bridgepool encryption`: the keys under which a store's secrets are encrypted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App, Parameter

from bridgepool.gateway.commands._root import app, fail, store_argument

if TYPE_CHECKING:
    from bridgepool.gateway.control._encryption import EncryptionKeys
    from bridgepool.gateway.control._records import RotationReport

encryption = App(
    name="encryption",
    help="Make and change the keys under which a store's secrets are encrypted.",
    default_parameter=Parameter(negative=""),
)
app.command(encryption)


@encryption.command
def new_key() -> None:
    """Print a new encryption key, for a key file or BRIDGEPOOL_ENCRYPTION_KEYS."""
    from bridgepool.gateway.control._encryption import generate_encryption_key

    print(generate_encryption_key().reveal())


@encryption.command
def add_key(file: Path) -> None:
    """Put a new key last in a key file: it decrypts, and does not encrypt yet.

    Then let every process that opens the store read the file again (restart them one after the
    other), run `promote-key`, restart them once more, and run `rotate`.

    Args:
        file: The key file.
    """
    from bridgepool.gateway.control._encryption import add_encryption_key

    _change_file(file, add_encryption_key)


@encryption.command
def promote_key(file: Path) -> None:
    """Put the last key of a key file first, where it encrypts; the others still decrypt.

    Args:
        file: The key file.
    """
    from bridgepool.gateway.control._encryption import promote_encryption_key

    _change_file(file, promote_encryption_key)


def _change_file(file: Path, change: Callable[[Path], EncryptionKeys]) -> None:
    from bridgepool.gateway.control._errors import EncryptionError

    try:
        keys = change(file)
    except EncryptionError as error:
        fail(str(error))
    print(f"{file}: {len(keys.names)} keys; {keys.names[0]} encrypts")


@encryption.command
def rotate(*, store: str, encryption_key_file: Path | None = None, drop_old: bool = False) -> None:
    """Encrypt everything in a store under its first key, while everybody works on.

    Args:
        store: PATH, or postgresql://...
        encryption_key_file: Its keys. Default: those in BRIDGEPOOL_ENCRYPTION_KEYS; else, for a
            file, PATH.key.
        drop_old: Afterwards keep only the first key in --encryption-key-file.
    """
    import trio

    from bridgepool import BridgePoolError
    from bridgepool.gateway.control._encryption import (
        drop_old_encryption_keys,
        find_encryption_keys,
    )
    from bridgepool.gateway.control.database import check_store_exists
    from bridgepool.gateway.control.store import open_store

    async def main() -> RotationReport:
        check_store_exists(store_argument(store))
        keys = find_encryption_keys(store, key_file=encryption_key_file)
        async with open_store(store, keys) as opened:
            return await opened.rotate_encryption()

    if drop_old and encryption_key_file is None:
        fail("--drop-old needs --encryption-key-file")
    try:
        report = trio.run(main)
        print(f"encrypted anew: {report.rewritten} rows")
        if report.unreadable:
            fail(f"{report.unreadable} rows are under none of these keys; put the lost key back")
        if drop_old and encryption_key_file is not None:
            kept = drop_old_encryption_keys(encryption_key_file)
            print(f"{encryption_key_file}: kept the key {kept.names[0]} alone")
    except BridgePoolError as error:
        fail(str(error))
