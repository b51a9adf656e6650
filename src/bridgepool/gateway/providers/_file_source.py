"""The provider file as a reloader: read on demand, watched for changes."""

import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio

from bridgepool._changes import ChangeBus, ChangeSubscription
from bridgepool._services import open_background_nursery, require_trio
from bridgepool._snapshot import ProviderSnapshot
from bridgepool.gateway.providers._clients import Clients
from bridgepool.gateway.providers._errors import ProviderFileError
from bridgepool.gateway.providers._file import ProviderFile
from bridgepool.gateway.providers._file_reading import Reading, Version, read_provider_file
from bridgepool.gateway.providers._provider import Provider
from bridgepool.gateway.providers._provider_type import ProviderType
from bridgepool.gateway.providers._types import PROVIDER_TYPES

_log = logging.getLogger("bridgepool.providers")
_QUIET_TIME: Final = 2.0


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
    _quiet_time: float
    _version: Version | None = attrs.field(default=None, init=False)  # of the last good reading
    _exposed: bool = attrs.field(default=False, init=False)  # others can write it: reported
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

        A file that is written in place can be read when only its first part is there. So what
        lacks something of the last good reading, or cannot be used, counts only once the file
        has not changed for `quiet_time`, or at once if it was renamed into its place.

        Raises:
            ProviderFileError: The file cannot be used; says why, without secrets.

        Cancellation:
            Leaves the thread behind, which ends by itself, and changes nothing.
        """
        reading = await self._read()
        while self._may_be_incomplete(reading):
            await trio.sleep(self._quiet_time)
            before, reading = reading, await self._read()
            if reading.version == before.version:
                break
        if isinstance(reading.result, ProviderFileError):
            # Raised here and not where it was found: no frame of this traceback holds secrets.
            try:
                raise reading.result
            finally:
                del reading  # the traceback refers to this frame
        self.file, self._version = reading.result, reading.version
        return reading.result.snapshot

    async def _read(self) -> Reading:
        reading = await trio.to_thread.run_sync(
            partial(read_provider_file, self._absolute, self._max_bytes, self.path, self._types),
            abandon_on_cancel=True,
            limiter=self._limiter,
        )
        if reading.others_can_write and not self._exposed:
            _log.warning("provider file can be changed by others", extra={"path": self.path})
        self._exposed = reading.others_can_write
        return reading

    def _may_be_incomplete(self, reading: Reading) -> bool:
        """Return whether this may be the first part of a file that is being written in place."""
        version, result = reading.version, reading.result
        if self.file is None or (version is not None and version.was_renamed_here(self._version)):
            return False
        return isinstance(result, ProviderFileError) or result.lacks_some_of(self.file)

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
    quiet_time: float = _QUIET_TIME,
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
        quiet_time: Seconds for which a file that was changed in place and has less in it than
            before, or cannot be used, must stay as it is before that counts. Longer than the
            pauses of what writes the file.
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
            os.fspath(path),
            changes,
            bus.publish,
            _absolute(path),
            max_bytes,
            tuple(types),
            quiet_time,
        )
        watcher = FileWatcher(source._absolute, bus.publish, look_interval)
        await watcher.look_first()
        async with open_background_nursery() as nursery:
            nursery.start_soon(watcher.run)
            yield source


def _absolute(path: str | os.PathLike[str]) -> Path:
    return Path(os.path.abspath(path))
