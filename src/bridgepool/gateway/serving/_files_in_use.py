"""The files of a program that SIGHUP has it read again.

Theory of operation. Each file has a task, a thread and a state of its own. SIGHUP sends each task a
notice; those that come while a file is being read are one more reading. So a file system that hangs
collects no threads, and delays no other file. A file that cannot be used changes nothing: what it
held before stays in use, a line is logged, and `/status` has the reason until it can be used.

Three kinds of files are not among these. A provider file is watched: SIGHUP is one more notice
that it may have changed, and the state of its reloads is in `/status`, too. Log files are opened
anew by the threads that write them, between two lines. A seed is applied at the start only.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import attrs
import trio

from bridgepool._changes import ChangeBus, ChangeSubscription
from bridgepool._errors import BridgePoolError
from bridgepool._services import open_background_nursery
from bridgepool.gateway.serving._listening import StartError

T = TypeVar("T")

logger = logging.getLogger("bridgepool.gateway.serving")


def _nothing_to_do(value: object) -> None:
    return None


@attrs.define(eq=False)
class FileInUse(Generic[T]):
    """A file that has been read, and is read again while the program runs."""

    kind: str
    """What it holds, for operators."""
    path: Path | str
    """Where it is, for operators."""
    _read: Callable[[], T]  # in a thread; raises as `_use` does
    value: T
    """What it held when it could be used."""
    # Puts a value in use, or refuses it: raises a `StartError` or `BridgePoolError`.
    _use: Callable[[T], Awaitable[None] | None] = _nothing_to_do
    problem: str | None = attrs.field(default=None, init=False)
    """Why it could not be used when it was read last; None if it could."""
    _since: float = attrs.field(factory=trio.current_time, init=False)  # `value` is in use
    # One reading at a time: a file system that hangs must not collect threads.
    _limiter: trio.CapacityLimiter = attrs.field(
        factory=lambda: trio.CapacityLimiter(1), init=False
    )

    async def read_again(self, *, log_all: bool = True) -> None:
        """Use what the file holds now; keep what it held before if it cannot be used.

        Args:
            log_all: Whether to log the outcome also if nothing has changed.

        Cancellation: Nothing is changed.
        """
        fields = {"kind": self.kind, "path": str(self.path)}
        try:
            value = await trio.to_thread.run_sync(
                self._read, abandon_on_cancel=True, limiter=self._limiter
            )
            using = self._use(value)
            if using is not None:
                await using
        except (StartError, BridgePoolError) as error:
            is_new = str(error) != self.problem
            self.problem = fields["error"] = str(error)
            if log_all or is_new:
                logger.error("file cannot be used; keeping what it held before", extra=fields)
            return
        is_new = value != self.value or self.problem is not None
        self.problem, self.value, self._since = None, value, trio.current_time()
        if log_all or is_new:
            logger.info("file read again", extra=fields)

    def report(self) -> Mapping[str, object]:
        """Return its state, for `/status`."""
        age = round(trio.current_time() - self._since, 1)
        return {"kind": self.kind, "path": str(self.path), "age": age, "problem": self.problem}


@attrs.frozen
class FilesInUse:
    """The files of a program. Made by `open_files_in_use`."""

    _files: Sequence[FileInUse[Any]]
    _hangups: ChangeBus

    def read_again(self) -> None:
        """Have each file read again. Not async."""
        self._hangups.publish()

    def report(self) -> Sequence[Mapping[str, object]]:
        """Return the state of each file, for `/status`."""
        return [file.report() for file in self._files]


@asynccontextmanager
async def open_files_in_use(files: Sequence[FileInUse[Any]]) -> AsyncIterator[FilesInUse]:
    """Read the files of a program again when it asks for that, while the block runs."""
    async with open_background_nursery() as nursery:
        hangups = ChangeBus()
        for file in files:
            nursery.start_soon(_follow, file, hangups.subscribe())
        yield FilesInUse(files, hangups)


async def _follow(file: FileInUse[Any], hangups: ChangeSubscription) -> None:
    async for _ in hangups:
        try:
            await file.read_again()
        except Exception:  # a bug: it must not end the program
            logger.exception("file could not be read again", extra={"kind": file.kind})
