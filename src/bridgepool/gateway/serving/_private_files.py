"""Files that hold secrets: only their owner can read them, and nobody sees one half written."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path


def write_private_file(path: Path, data: bytes, *, replace: bool = True) -> None:
    """Write a file with mode 0600, in one step and synced to the disk. Blocks.

    A crash leaves the file as it was before or as it is to be; it may leave a draft, see
    `remove_drafts`.

    Args:
        path: Where.
        data: All of it.
        replace: Whether a file that exists already is replaced.

    Raises:
        FileExistsError: It exists, and `replace` is false.
        OSError: It cannot be written.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}.draft")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
    try:
        with open(os.open(draft, flags, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(draft, path)
        else:
            os.link(draft, path)
    finally:
        with suppress(OSError):  # after a replacement it is gone
            draft.unlink()
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def remove_drafts(path: Path) -> None:
    """Remove the drafts of a file that a crash has left, since they hold secrets. Blocks."""
    for draft in path.parent.glob(f".{path.name}.*.draft"):
        with suppress(OSError):
            draft.unlink()
