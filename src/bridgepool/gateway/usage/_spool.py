"""The spool: usage records on their way from a gateway to a store.

Theory of operation. Every record that was not stored yet is in memory, encoded, up to a number of
bytes; with a directory it is in a journal, too. The oldest are sent as a batch, one batch at a
time, and leave the spool when the store has answered that they are committed. A batch without an
answer is sent again: a record has an id, and the store keeps each once.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import msgspec
import trio

from bridgepool._backoff import Backoff
from bridgepool._errors import BridgePoolError
from bridgepool._services import open_background_nursery
from bridgepool.gateway.usage._journal import Journal
from bridgepool.gateway.usage._records import UsageRecord

logger = logging.getLogger("bridgepool.gateway")

MAX_BATCH: Final = 200
"""The most records that are sent at a time."""
DEFAULT_BYTES: Final = 64 * 2**20
_GATHERING_TIME: Final = 0.2  # seconds from the first record to the batch that includes it
_SEGMENT: Final = 2**20
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(UsageRecord).decode


class NotStoredError(BridgePoolError):
    """Records were not stored, or it is not known whether they were; send them again."""


StoreRecords = Callable[[tuple[UsageRecord, ...]], Awaitable[object]]
"""Stores records, each once; returns when they are committed. Raises `NotStoredError`."""


@attrs.frozen
class SpoolStatistics:
    """Statistics of a `UsageSpool`. `stored` and `dropped` only grow."""

    pending: int
    """Records that are not stored yet."""
    pending_bytes: int
    stored: int
    """Records that were stored."""
    dropped: int
    """Records that were dropped, since the spool was full."""


@attrs.define(eq=False)
class UsageSpool:
    """Usage records that are not stored yet; made by `open_usage_spool`."""

    max_bytes: int
    """The most bytes of records that are kept; beyond them records are dropped, or requests are
    refused."""
    refuses: bool
    """Whether requests are refused when it is full, so that no record is dropped."""
    _journal: Journal | None
    # encoded; whether it is in the journal, too
    _pending: deque[tuple[bytes, bool]] = attrs.field(factory=deque, init=False)
    _unwritten: int = attrs.field(default=0, init=False)  # of them, the last ones, in memory only
    _bytes: int = attrs.field(default=0, init=False)
    _stored: int = attrs.field(default=0, init=False)
    _dropped: int = attrs.field(default=0, init=False)
    _reported: int = attrs.field(default=0, init=False)  # of the dropped ones, those logged
    _hurried: trio.Event = attrs.field(factory=trio.Event, init=False)  # by `wait_empty`
    # those who wait for a change of what is pending
    _waiting: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)

    def add(self, record: UsageRecord) -> None:
        """Add a record: an `OnUsage` for `open_gateway`. Does not block.

        When the spool is full, it is dropped and counted. With `refuses` it is kept: those of
        running requests still come. Those of requests that were refused are left out while the
        spool is `full`, or clients that ask again would fill the memory.
        """
        if self.full and not record.attempts:
            return
        is_full = self._bytes >= self.max_bytes
        if is_full and not self.refuses:
            if self._dropped == self._reported:
                logger.error("usage spool full; dropping records")
            self._dropped += 1
            return
        data = _encode(record)
        self._put(data, self._write_waiting() and self._append(data))
        if self.refuses and not is_full and self._bytes >= self.max_bytes:
            logger.error("usage spool full; refusing requests")

    def _append(self, data: bytes) -> bool:
        return self._journal is not None and self._journal.append(data)

    def _write_waiting(self) -> bool:
        """Put the records into the journal that are in memory only; return whether all are there.

        The records in the journal are always the oldest, since they are acknowledged by their
        number.
        """
        while self._unwritten:
            place = len(self._pending) - self._unwritten
            data, _ = self._pending[place]
            if not self._append(data):
                return False
            self._pending[place] = (data, True)
            self._unwritten -= 1
        return True

    def _put(self, data: bytes, in_journal: bool) -> None:
        self._pending.append((data, in_journal))
        self._unwritten += not in_journal
        self._bytes += len(data)
        self._waiting.unpark_all()

    @property
    def failing(self) -> bool:
        """Whether records are in memory only, since files cannot be made in the directory."""
        return self._journal is not None and self._journal.failing

    @property
    def full(self) -> bool:
        """Whether requests are to be refused, since their records could not be kept."""
        if not self.refuses:
            return False
        return self._bytes >= self.max_bytes or self.failing

    def statistics(self) -> SpoolStatistics:
        """Return the current statistics; cheap."""
        return SpoolStatistics(len(self._pending), self._bytes, self._stored, self._dropped)

    def report(self) -> dict[str, object]:
        """Return the state for `/readyz`: records pending and dropped, and `failing`; cheap."""
        return {
            "pending": len(self._pending),
            "dropped": self._dropped,
            "failing": self.failing,
        }

    async def send(self, store: StoreRecords) -> None:
        """Send records, the oldest first, until cancelled. Only one task may do so at a time.

        Args:
            store: Stores them. Each batch is tried until it is stored, with growing pauses.
        """
        backoff = Backoff(first=0.5, longest=15.0)
        failed = False
        while True:
            while not self._pending:
                await self._waiting.park()
            if len(self._pending) < MAX_BATCH:
                await trio.sleep(_GATHERING_TIME)
            batch = [self._pending[place] for place in range(min(len(self._pending), MAX_BATCH))]
            try:
                await store(_decode_all(batch))
            except NotStoredError as error:
                if not failed:
                    logger.warning("usage records not stored; retrying: %s", error)
                failed = True
                with trio.move_on_after(backoff.next_delay()):
                    await self._hurried.wait()
                    self._hurried = trio.Event()
                    backoff.reset()
                continue
            failed = False
            backoff.reset()
            self._take_out(batch)

    def _take_out(self, batch: list[tuple[bytes, bool]]) -> None:
        """Remove a batch that was stored."""
        in_journal = 0
        for _ in batch:
            data, written = self._pending.popleft()
            self._bytes -= len(data)
            in_journal += written
        self._unwritten -= len(batch) - in_journal
        self._stored += len(batch)
        if self._journal is not None:
            self._journal.acknowledge(in_journal)
        if self._dropped != self._reported:
            fields = {"records": self._dropped - self._reported}
            logger.error("usage records dropped", extra=fields)
            self._reported = self._dropped
        self._waiting.unpark_all()

    async def wait_empty(self) -> None:
        """Wait until all records are stored; do not wait for the next try. A checkpoint."""
        await trio.lowlevel.checkpoint()
        self._hurried.set()
        while self._pending:
            await self._waiting.park()


def _decode_all(batch: list[tuple[bytes, bool]]) -> tuple[UsageRecord, ...]:
    """Decode records; leave out what another version has written in a form of its own."""
    records = []
    for data, _ in batch:
        try:
            records.append(_decode(data))
        except msgspec.DecodeError:
            logger.error("usage record of another version cannot be read; it is lost")
    return tuple(records)


@asynccontextmanager
async def open_usage_spool(
    directory: Path | None = None,
    *,
    max_bytes: int = DEFAULT_BYTES,
    refuses: bool = False,
) -> AsyncIterator[UsageSpool]:
    """Open a spool for usage records, for as long as the block lasts.

    ::

        async with open_usage_spool(Path("/var/spool/bridgepool")) as spool:
            async with open_control_plane(connect, name="front-1", usage=spool) as plane:
                async with open_gateway(
                    plane.providers, plane.providers.changes, clients=plane.clients,
                    on_usage=spool.add, usage_full=lambda: spool.full, usage_report=spool.report,
                ) as gateway:
                    ...

    Args:
        directory: Keep the records there, so that they survive the end of the program. No other
            program may use it.
        max_bytes: The most bytes of records that are kept, about 500 bytes each.
        refuses: Refuse requests when it is full, rather than drop records.

    Raises:
        JournalError: The directory cannot be used.
    """
    journal: Journal | None = None
    found: list[bytes] = []
    if directory is not None:
        size = max(64 * 1024, min(_SEGMENT, max_bytes // 4))
        journal, found = await trio.to_thread.run_sync(Journal.open, directory, size)
    spool = UsageSpool(max_bytes, refuses, journal)
    for data in found:
        spool._put(data, True)
    if found:
        logger.info("usage records of before found", extra={"records": len(found)})
    try:
        async with open_background_nursery() as nursery:
            if journal is not None:
                journal.made_room = spool._write_waiting
                nursery.start_soon(journal.run)
            yield spool
    finally:
        left = sum(not in_journal for _, in_journal in spool._pending)
        if left:
            logger.error("usage records lost", extra={"records": left})
        if journal is not None:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
                await trio.to_thread.run_sync(journal.close, abandon_on_cancel=True)
