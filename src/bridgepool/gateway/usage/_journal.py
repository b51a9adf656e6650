"""The spool's files: records that survive the end of the program, however it ends.

Theory of operation. Records are appended to a segment, a file of fixed size that is mapped into
memory: appending is a copy, without a system call, so that no disk delays a request; and what was
copied is the kernel's, so that it survives a kill of the program. (A crash of the machine may lose
the last half minute.) Files are made, and removed, by a thread: the next segment is there before
the current one is full. If it is not, because the disk is full or stuck, records stay in memory
alone, and the journal is *failing*.

A segment has a head with the number of its records that need not be sent again, and then the
records: length, checksum, bytes. A length of 0 is the end. A record that was torn by a kill has a
wrong checksum, and ends its segment.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import re
import shutil
import struct
import zlib
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs
import trio

from bridgepool._errors import BridgePoolError

logger = logging.getLogger("bridgepool.gateway")

_MAGIC: Final = b"bpusage1"
_ACKNOWLEDGED: Final = struct.Struct(">8sQ")  # the head
_RECORD: Final = struct.Struct(">II")  # length, CRC-32
_SUFFIX: Final = ".usage"
_DAMAGED: Final = ".damaged"  # of a file that is left to the operator
_NAME: Final = re.compile(r"[0-9a-f]{16}\.usage")  # of a segment


class JournalError(BridgePoolError):
    """The directory of a journal cannot be used; says why."""


@attrs.define(eq=False)
class _Segment:
    """One file."""

    path: Path
    map: mmap.mmap
    at: int = _ACKNOWLEDGED.size  # where the next record goes
    records: int = 0
    acknowledged: int = 0
    damaged: bool = False
    """Something in it cannot be read that a kill does not explain."""

    def append(self, data: bytes) -> bool:
        """Append a record; return whether there was room for it."""
        end = self.at + _RECORD.size + len(data)
        if end > len(self.map):
            return False
        self.map[self.at : end] = _RECORD.pack(len(data), zlib.crc32(data)) + data
        self.at, self.records = end, self.records + 1
        return True

    def acknowledge(self, count: int) -> int:
        """Note that so many more records are done with; return how many belong to later ones."""
        own = min(count, self.records - self.acknowledged)
        self.acknowledged += own
        _ACKNOWLEDGED.pack_into(self.map, 0, _MAGIC, self.acknowledged)
        return count - own


@attrs.define(eq=False)
class Journal:
    """The files of a spool, in a directory that no other program uses. See `open`."""

    directory: Path
    _lock: int  # the descriptor of the lock file
    _size: int  # of a segment
    _next: int  # number of a segment
    _segments: deque[_Segment]  # with records that are not done with, and the current one last
    failing: bool = attrs.field(default=False, init=False)
    """Whether records stay in memory alone, since files cannot be made."""
    made_room: Callable[[], object] = attrs.field(default=lambda: None, init=False)
    """Called when records can be appended again."""
    _spare: _Segment | None = attrs.field(default=None, init=False)
    _done: list[_Segment] = attrs.field(factory=list, init=False)
    _work: trio.Event = attrs.field(factory=trio.Event, init=False)

    @classmethod
    def open(cls, directory: Path, segment_bytes: int) -> tuple[Journal, list[bytes]]:
        """Open or make a directory; return the journal and the records in it. Blocks.

        Raises:
            JournalError: It cannot be used.
        """
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except (FileExistsError, NotADirectoryError):
            raise JournalError(f"{directory}: is not a directory") from None
        except OSError as error:
            raise JournalError(f"{directory}: {error.strerror}") from None
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise JournalError(f"{directory}: is used by another program") from None
            segments, found, number = deque[_Segment](), list[bytes](), 0
            for name in sorted(os.listdir(directory)):  # raises, unlike glob, if it may not
                if _NAME.fullmatch(name) is None:
                    continue
                path = directory / name
                number = max(number, int(path.stem, 16)) + 1
                segment, records = _read(path)
                if segment.damaged:
                    _keep_copy(path)
                if records:
                    segments.append(segment)
                    found += records
                else:
                    segment.map.close()
                    path.unlink()
            journal = cls(directory, lock, segment_bytes, number, segments)
            segments.append(journal._make_segment())
        except OSError as error:
            os.close(lock)
            raise JournalError(f"{error.filename or directory}: {error.strerror}") from None
        except JournalError:
            os.close(lock)
            raise
        return journal, found

    def append(self, data: bytes) -> bool:
        """Append a record; return False if it stays in memory alone. Does not block."""
        current = self._segments[-1]
        if current.append(data):
            return True
        if self._spare is None or _RECORD.size + len(data) > self._size - _ACKNOWLEDGED.size:
            self._work.set()
            return False
        self._segments.append(self._spare)
        self._spare = None
        self._drop_done()
        self._work.set()
        return self._segments[-1].append(data)

    def acknowledge(self, count: int) -> None:
        """Note that the oldest records that were appended are done with. Does not block."""
        for segment in self._segments:
            if not count:
                break
            count = segment.acknowledge(count)
        self._drop_done()

    def _drop_done(self) -> None:
        while len(self._segments) > 1:
            oldest = self._segments[0]
            if oldest.acknowledged < oldest.records:
                break
            self._done.append(self._segments.popleft())
            self._work.set()

    async def run(self) -> None:
        """Make and remove files, in a thread, until cancelled."""
        limiter = trio.CapacityLimiter(1)
        while True:
            self._work = trio.Event()
            wants_spare, done = self._spare is None, self._done
            self._done = []
            try:
                made = await trio.to_thread.run_sync(
                    self._do_work, wants_spare, done, limiter=limiter
                )
            except OSError as error:
                if not self.failing:
                    fields = {"directory": str(self.directory), "error": error.strerror}
                    logger.error("usage spool cannot be written; records in memory", extra=fields)
                self.failing = True
                self._done += done  # what is left of it
                await trio.sleep(1)
                continue
            if self.failing:
                logger.warning("usage spool can be written again")
            self.failing = False
            self._spare = made or self._spare
            self.made_room()
            await self._work.wait()

    def _do_work(self, wants_spare: bool, done: list[_Segment]) -> _Segment | None:
        while done:
            segment = done.pop()
            segment.map.close()
            segment.path.unlink(missing_ok=True)
        return self._make_segment() if wants_spare else None

    def _make_segment(self) -> _Segment:
        path = self.directory / f"{self._next:016x}{_SUFFIX}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, self._size)  # so that no write to the map can fail
            segment = _Segment(path, mmap.mmap(fd, self._size))
        except OSError:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
        _ACKNOWLEDGED.pack_into(segment.map, 0, _MAGIC, 0)
        self._next += 1
        return segment

    def close(self) -> None:
        """Close the files; remove those whose records are done with. Blocks, never fails."""
        try:
            self._close_segments()
        except OSError as error:
            fields = {"directory": str(self.directory), "error": error.strerror}
            logger.error("usage spool not closed", extra=fields)
        finally:
            os.close(self._lock)

    def _close_segments(self) -> None:
        leftover = [*self._segments, *self._done, *([self._spare] if self._spare else [])]
        for segment in leftover:
            done = segment.acknowledged >= segment.records
            if not done:
                segment.map.flush()
                if not segment.path.exists():  # somebody has removed it
                    fields = {"records": segment.records - segment.acknowledged}
                    logger.error("usage records lost", extra=fields)
            segment.map.close()
            if done:
                segment.path.unlink(missing_ok=True)


def _keep_copy(path: Path) -> None:
    """Keep a damaged file for the operator, who may find records in it."""
    kept = path.with_suffix(_DAMAGED)
    shutil.copyfile(path, kept)
    kept.chmod(0o600)
    logger.error("usage spool has a damaged file; records are missing", extra={"file": kept.name})


def _read(path: Path) -> tuple[_Segment, list[bytes]]:
    """Open a segment; return it and its records that are not done with."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        if size < _ACKNOWLEDGED.size:  # the program was killed before it had its size
            os.ftruncate(fd, _ACKNOWLEDGED.size)
            size = _ACKNOWLEDGED.size
        segment = _Segment(path, mmap.mmap(fd, size))
    finally:
        os.close(fd)
    magic, acknowledged = _ACKNOWLEDGED.unpack_from(segment.map)
    records = []
    while magic == _MAGIC and segment.at + _RECORD.size <= size:
        length, checksum = _RECORD.unpack_from(segment.map, segment.at)
        data = segment.map[segment.at + _RECORD.size : segment.at + _RECORD.size + length]
        if length == 0 or len(data) < length or zlib.crc32(data) != checksum:
            if length:
                # Behind a record that was torn by a kill there is nothing.
                behind = segment.at + _RECORD.size + (length if len(data) == length else 0)
                segment.damaged = any(segment.map[behind:])
                logger.warning("usage spool has a torn record", extra={"file": path.name})
            break
        records.append(data)
        segment.at += _RECORD.size + length
    segment.damaged = segment.damaged or (magic != _MAGIC and any(segment.map[:]))
    segment.records = len(records)
    segment.acknowledged = min(acknowledged, segment.records)
    return segment, records[segment.acknowledged :]
