"""The file with this gateway's key for the control plane."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path
from typing import Final

import attrs

from bridgepool._secret import Secret
from bridgepool.gateway.serving._listening import StartError

logger = logging.getLogger("bridgepool.gateway")

_MAX_KEY_BYTES: Final = 1024


@attrs.define(eq=False)
class KeyFile:
    """A key file, read for each connection: writing another key into it replaces the key."""

    path: Path
    key: Secret
    """The last key that was read."""

    @classmethod
    def open(cls, path: Path) -> KeyFile:
        """Read the file for the first time. Blocks.

        Raises:
            StartError: it cannot be read, or does not hold one key.
        """
        key, mode = _read(path)
        if mode & 0o077:
            logger.warning("key file is readable by other users", extra={"path": str(path)})
        return cls(path, key)

    def read(self) -> Secret:
        """Return the key in the file; the previous one if the file cannot be used. Blocks."""
        try:
            key, _ = _read(self.path)
        except StartError as error:
            logger.warning("key file cannot be used (%s); keeping the previous key", error)
            return self.key
        if key.reveal() != self.key.reveal():
            logger.info("key file changed", extra={"path": str(self.path)})
            self.key = key
        return self.key


def _read(path: Path) -> tuple[Secret, int]:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            data = file.read(_MAX_KEY_BYTES + 1).strip()
    except FileNotFoundError:
        raise StartError(
            f"--key-file {path}: does not exist; `bridgepool control-plane --gateway-key-file` or "
            "`bridgepool keys create gateway NAME` makes a key for it"
        ) from None
    except OSError as error:
        raise StartError(f"--key-file {path}: {error.strerror}") from None
    if not data or len(data) > _MAX_KEY_BYTES or not all(0x21 <= byte <= 0x7E for byte in data):
        raise StartError(f"--key-file {path}: does not hold one key")
    return Secret(data.decode("ascii")), mode
