"""Notice that a file changed, whatever way it was changed in.

Theory of operation. The operating system's events make it fast, a look at the file's version
every few seconds makes it certain. Watched are directories and not the file, because editors
and Kubernetes put a new file in the place of the old one: every directory that a link of the
path's chain stands in. An event about the file itself is news; an event about a neighbour is
news only if the file's `Version` is another than the last one seen.
When events cannot be had (directory gone, too many watches, a network file system), the looks
go on alone and the events are asked for again at each of them.
"""

import contextlib
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

import attrs
import trio

from bridgepool._changes import ChangeBus
from bridgepool.gateway.providers._file_reading import Version

try:
    import watchfiles
except ImportError as error:
    raise ImportError(
        "watching a provider file needs watchfiles: pip install 'bridgepool[gateway]'"
    ) from error

_log = logging.getLogger("bridgepool.providers")
_MAX_LINKS: Final = 40
# A batch of events ends when this long has passed without another, so that a file written in
# a few pieces is read once.
_QUIET_MS: Final = 50
_LONGEST_BATCH_MS: Final = 400


def file_version(path: Path) -> Version | None:
    """Return what changes whenever the file at the end of `path` does; None without a file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return Version.of(found) if stat.S_ISREG(found.st_mode) else None


def link_chain(path: Path) -> list[Path]:
    """Return `path`, which is absolute, and, while it is a link, where it points."""
    chain = [path]
    while len(chain) < _MAX_LINKS:
        try:
            points_to = os.readlink(chain[-1])
        except OSError:
            break
        chain.append(chain[-1].parent / points_to)
    return chain


@attrs.frozen
class Scene:
    """What there is to watch at one moment. Another scene asks for other watches."""

    names: frozenset[str]
    """The paths whose own events are news."""
    directories: tuple[str, ...]
    """Where they stand, as far as it exists."""
    places: tuple[tuple[int, int], ...]
    """Device and inode of these directories: a directory that was recreated is another place."""
    version: Version | None = attrs.field(eq=False)
    """That of the file."""


def look(path: Path) -> Scene:
    """Look at the file and its surroundings. Blocks; for a thread."""
    chain = link_chain(path)
    directories: list[str] = []
    places: list[tuple[int, int]] = []
    for directory in dict.fromkeys(str(link.parent) for link in chain):
        with contextlib.suppress(OSError):
            found = os.stat(directory)
            directories.append(directory)
            places.append((found.st_dev, found.st_ino))
    return Scene(
        names=frozenset(map(str, chain)),
        directories=tuple(directories),
        places=tuple(places),
        version=file_version(path),
    )


@attrs.define(eq=False)
class FileWatcher:
    """Calls `changed` whenever the file may have changed; see the module's text."""

    path: Path
    changed: Callable[[], None]
    look_interval: float
    """Seconds between two looks without an event."""
    _events: ChangeBus = attrs.field(factory=ChangeBus, init=False)
    _limiter: trio.CapacityLimiter = attrs.field(
        factory=lambda: trio.CapacityLimiter(1), init=False
    )
    # the file's version when `changed` was last called
    _seen: Version | None = attrs.field(default=None, init=False)
    # an event about the file itself has come since the last look
    _named: bool = attrs.field(default=False, init=False)
    # a watched directory has gone: watch again at once, if it is back
    _uprooted: bool = attrs.field(default=False, init=False)
    # there are no events: ask for them again at the next look
    _blind: bool = attrs.field(default=False, init=False)
    _complained: bool = attrs.field(default=False, init=False)

    async def look_first(self) -> None:
        """Take note of the file as it is: every later change will be noticed."""
        self._seen = (await self._look()).version

    async def run(self) -> NoReturn:
        """Watch until cancelled."""
        scene = await self._look()
        while True:
            async with trio.open_nursery() as nursery:
                self._uprooted = self._blind = False
                nursery.start_soon(self._follow_events, scene)
                # That task sets its watches up in its first step, which is over after two
                # rounds of the scheduler. What changed before is found by the look after it.
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()
                scene = await self._follow_scene(scene)
                nursery.cancel_scope.cancel()

    async def _look(self) -> Scene:
        # One look at a time: a file system that hangs must not collect threads.
        return await trio.to_thread.run_sync(
            look, self.path, abandon_on_cancel=True, limiter=self._limiter
        )

    async def _follow_scene(self, scene: Scene) -> Scene:
        """Report changes until the watches must be set up again; return what to watch then."""
        events = self._events.subscribe()
        while True:
            fresh = await self._look()
            if self._named or fresh.version != self._seen:
                self._named = False
                self._seen = fresh.version
                self.changed()
            if fresh != scene:
                return fresh
            with trio.move_on_after(self.look_interval) as interval:
                await events.receive()
            if self._uprooted or (self._blind and interval.cancelled_caught):
                return await self._look()

    async def _follow_events(self, scene: Scene) -> None:
        """Pass the operating system's events on, for as long as there are any."""
        if not scene.directories:
            return
        stop = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_set_when_cancelled, stop)
            try:
                async with contextlib.aclosing(
                    watchfiles.awatch(
                        *scene.directories,
                        watch_filter=None,
                        debounce=_LONGEST_BATCH_MS,
                        step=_QUIET_MS,
                        stop_event=stop,
                        recursive=False,
                        ignore_permission_denied=False,  # True swallows more than that
                    )
                ) as batches:
                    async for batch in batches:
                        self._take({name for _, name in batch}, scene)
            except Exception as error:  # fall back to polling
                self._complain(error)
            self._blind = True
            nursery.cancel_scope.cancel()

    def _take(self, names: set[str], scene: Scene) -> None:
        self._named = self._named or not names.isdisjoint(scene.names)
        # A directory that goes takes its watch along, and may come back under the same number.
        self._uprooted = self._uprooted or not names.isdisjoint(scene.directories)
        self._events.publish()

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            self._complained = True
            _log.warning(
                "no events for %s (%s: %s); polling every %g s",
                self.path,
                type(error).__name__,
                error,
                self.look_interval,
            )


async def _set_when_cancelled(event: trio.Event) -> None:
    try:
        await trio.sleep_forever()
    finally:
        event.set()
