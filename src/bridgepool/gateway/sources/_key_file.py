"""The file with the key of this gateway."""

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

_LONGEST_KEY: Final = 1024  # bytes


@attrs.define(eq=False)
class KeyFile:
    """A key file, read for each connection: so a key is replaced by writing another into it."""

    path: Path
    key: Secret
    """What was read last."""

    @classmethod
    def open(cls, path: Path) -> KeyFile:
        """Read it the first time. Blocks.

        Raises:
            StartError: it cannot be read, or holds no key.
        """
        key, mode = _read(path)
        if mode & 0o077:
            logger.warning("the key file can be read by others", extra={"path": str(path)})
        return cls(path, key)

    def read(self) -> Secret:
        """Return the key that it holds now; if it holds none, the one before. Blocks."""
        try:
            key, _ = _read(self.path)
        except StartError as error:
            logger.warning("the key file is of no use; its last key is: %s", error)
            return self.key
        if key.reveal() != self.key.reveal():
            logger.info("the key file has another key", extra={"path": str(self.path)})
            self.key = key
        return self.key


def _read(path: Path) -> tuple[Secret, int]:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            data = file.read(_LONGEST_KEY + 1).strip()
    except FileNotFoundError:
        raise StartError(
            f"--key-file {path}: is not there; `bridgepool control-plane --gateway-key-file` or "
            "`bridgepool keys create gateway NAME` makes a key for it"
        ) from None
    except OSError as error:
        raise StartError(f"--key-file {path}: {error.strerror}") from None
    if not data or len(data) > _LONGEST_KEY or not all(0x21 <= byte <= 0x7E for byte in data):
        raise StartError(f"--key-file {path}: does not hold one key")
    return Secret(data.decode("ascii")), mode
