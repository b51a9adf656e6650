"""The provider file as a reloader: read on demand, watched for changes."""

import os
import stat
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio

from bridgepool._changes import ChangeBus, ChangeSubscription
from bridgepool._services import open_service_nursery, require_trio
from bridgepool._snapshot import ProviderSnapshot
from bridgepool.gateway.providers._clients import Clients
from bridgepool.gateway.providers._errors import ProviderFileError
from bridgepool.gateway.providers._file import ProviderFile, parse_provider_file
from bridgepool.gateway.providers._provider import Provider, without_secrets
from bridgepool.gateway.providers._provider_type import ProviderType
from bridgepool.gateway.providers._types import PROVIDER_TYPES

_CHUNK: Final = 1 << 16


@attrs.define(eq=False)
class ProviderFileSource:
    """A provider file that is being watched; a `ProviderReloader`. See `open_provider_file`."""

    path: str
    """The file, as it was given."""
    changes: ChangeSubscription
    """Notices for `watch_providers`: the file may have changed."""
    _notify: Callable[[], None]
    _absolute: Path
    _max_bytes: int
    _types: tuple[ProviderType, ...]
    file: ProviderFile | None = attrs.field(default=None, init=False)
    """The last good reading, without the keys and headers of disabled providers; None before the
    first."""
    # One reading at a time: a file system that hangs must not collect threads.
    _limiter: trio.CapacityLimiter = attrs.field(
        factory=lambda: trio.CapacityLimiter(1), init=False
    )

    async def reload(self) -> ProviderSnapshot[Provider]:
        """Read and check the file, in a thread.

        `file` and `clients` are of the same reading as the snapshot that is returned, from the
        moment it is returned. After an error they are what they were.

        Raises:
            ProviderFileError: The file cannot be used; says why, without secrets.

        Cancellation:
            Leaves the thread behind, which ends by itself, and changes nothing.
        """
        result = await trio.to_thread.run_sync(
            partial(_read, self._absolute, self._max_bytes, self.path, self._types),
            abandon_on_cancel=True,
            limiter=self._limiter,
        )
        if isinstance(result, ProviderFileError):
            # Raised here and not where it was found: no frame of this traceback holds secrets.
            raise result
        self.file = result
        return result.snapshot

    def look_again(self) -> None:
        """Send a notice to `changes`, as if the file had changed: it will be read again."""
        self._notify()

    @property
    def clients(self) -> Clients:
        """The clients of the last good reading; none before the first."""
        return self.file.clients if self.file is not None else Clients()


@asynccontextmanager
async def open_provider_file(
    path: str | os.PathLike[str],
    *,
    max_bytes: int = 4 << 20,
    look_interval: float = 2.0,
    types: Iterable[ProviderType] = PROVIDER_TYPES,
) -> AsyncIterator[ProviderFileSource]:
    """Open a provider file and watch it.

    The file need not be there, nor be usable: `ProviderFileSource.reload` says so when it is
    called. It may be edited in place, replaced by a rename, reached through links that are
    switched, deleted and made again, and its directory may go and come back.

    ::

        async with open_provider_file("providers.toml") as source:
            first = await source.reload()
            async with open_bridge_pool(open_bridge, first) as pool, trio.open_nursery() as nursery:
                await nursery.start(watch_providers, pool, source, source.changes)

    Args:
        path: The file. Its name is fixed to the current directory now.
        max_bytes: A larger file is refused.
        look_interval: Seconds between two looks at the file where the operating system gives
            no events (network file systems, a directory that went). With events, a change is
            noticed within about a tenth of a second.
        types: What a provider may be; as those of `open_gateway`.

    Raises:
        ImportError: watchfiles is missing: ``pip install 'bridgepool[gateway]'``.

    Resource handling:
        Leaving the block ends the watching and closes `changes`. What the block raises comes
        out as it is.
    """
    require_trio()
    from bridgepool.gateway.providers._file_watcher import (
        FileWatcher,  # needs the extra, unlike the parser
    )

    with ChangeBus() as bus, bus.subscribe() as changes:
        source = ProviderFileSource(
            os.fspath(path), changes, bus.publish, _absolute(path), max_bytes, tuple(types)
        )
        watcher = FileWatcher(source._absolute, bus.publish, look_interval)
        await watcher.look_first()
        async with open_service_nursery() as nursery:
            nursery.start_soon(watcher.run)
            try:
                yield source
            finally:
                nursery.cancel_scope.cancel()


def _absolute(path: str | os.PathLike[str]) -> Path:
    return Path(os.path.abspath(path))


def _read(
    path: Path, max_bytes: int, shown: str, types: Iterable[ProviderType] = PROVIDER_TYPES
) -> ProviderFile | ProviderFileError:
    try:
        text = _decode(_read_bytes(path, max_bytes, shown), shown)
        read = parse_provider_file(text, shown, types=types)
        return attrs.evolve(read, providers=tuple(map(without_secrets, read.providers)))
    except ProviderFileError as error:
        return error.with_traceback(None)


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
