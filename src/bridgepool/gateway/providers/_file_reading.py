"""One reading of the provider file: bytes, checks, and which version of the file it was."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import attrs

from bridgepool.gateway.providers._errors import ProviderFileError
from bridgepool.gateway.providers._file import ProviderFile, parse_provider_file
from bridgepool.gateway.providers._provider import without_secrets
from bridgepool.gateway.providers._provider_type import ProviderType
from bridgepool.gateway.providers._types import PROVIDER_TYPES

_CHUNK: Final = 1 << 16


@attrs.frozen
class Version:
    """What differs between two versions of a file."""

    inode: tuple[int, int]
    size: int
    modified: int
    changed: int
    mode: int

    @classmethod
    def of(cls, found: os.stat_result) -> "Version":
        """Return the version of a file that was found."""
        inode = (found.st_dev, found.st_ino)
        return cls(inode, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_mode)

    def was_renamed_here(self, before: "Version | None") -> bool:
        """Return whether this is another file than before, which was complete when it came.

        A write sets both times to the same value. A rename sets only the second one.
        """
        return before is not None and self.inode != before.inode and self.changed > self.modified


@attrs.frozen
class Reading:
    """What one reading gave."""

    result: ProviderFile | ProviderFileError
    version: Version | None
    """None if there is no file."""
    others_can_write: bool = False
    """Whether other users of this machine can change it or put another one in its place."""


def read_provider_file(
    path: Path, max_bytes: int, shown: str, types: Iterable[ProviderType] = PROVIDER_TYPES
) -> Reading:
    """Read and check a provider file; without the secrets of disabled providers. Blocks.

    Args:
        path: The file.
        max_bytes: A larger one is refused.
        shown: Its name, for messages.
        types: What a provider may be.
    """
    # Looked at first: what is written while it is read makes another version of it.
    version, exposed = _look(path)
    try:
        data = _read_bytes(path, max_bytes, shown)
        read = parse_provider_file(_decode(data, shown), shown, types=types)
    except ProviderFileError as error:
        return Reading(error.with_traceback(None), version, exposed)
    result = attrs.evolve(read, providers=tuple(map(without_secrets, read.providers)))
    return Reading(result, version, exposed)


def _look(path: Path) -> tuple[Version | None, bool]:
    try:
        found = os.stat(path)
        directory = os.stat(path.parent)
    except (OSError, ValueError):
        return None, False
    # In a directory with the sticky bit, such as /tmp, only owners replace files.
    replaceable = _others_can_write(directory) and not directory.st_mode & stat.S_ISVTX
    return Version.of(found), _others_can_write(found) or replaceable


def _others_can_write(found: os.stat_result) -> bool:
    # Many systems give each user a group of its own, and new files to that group.
    by_group = found.st_mode & stat.S_IWGRP and found.st_gid != os.getegid()
    return bool(found.st_mode & stat.S_IWOTH or by_group)


def _read_bytes(path: Path, max_bytes: int, shown: str) -> bytes:
    try:
        # Not to wait for the other end, should this be a named pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise ProviderFileError(shown, _why(error)) from None
    try:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise ProviderFileError(shown, "is not a regular file")
        data = bytearray()
        while chunk := os.read(descriptor, _CHUNK):
            data += chunk
            if len(data) > max_bytes:
                raise ProviderFileError(shown, f"is larger than {max_bytes} bytes")
        after = os.fstat(descriptor)
    except OSError as error:
        raise ProviderFileError(shown, _why(error)) from None
    finally:
        os.close(descriptor)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        # Half of one version and half of the next; there will be a notice when it is whole.
        raise ProviderFileError(shown, "was written to while it was read")
    return bytes(data)


def _why(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    if not isinstance(error, OSError):  # what Python says of it differs between its versions
        return "cannot be read: no file can have that name"
    return f"cannot be read: {error.strerror or error}"


def _decode(data: bytes, path: str) -> str:
    try:
        return data.decode("utf-8-sig")  # some editors put a byte order mark first
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
    # Outside the handler: that exception holds the whole text.
    raise ProviderFileError(path, f"line {line}: is not UTF-8")
