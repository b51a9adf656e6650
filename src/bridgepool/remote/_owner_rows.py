"""The rows that an owner sends: encoded once for all sessions, each time they are replaced."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, TypeVar

import attrs
import trio

from bridgepool._changes import ChangeBus, ChangeSubscription
from bridgepool._ledger import ReplaceOutcome
from bridgepool._pool import Replacement
from bridgepool._snapshot import ProviderSnapshot
from bridgepool.remote import _codec as codec
from bridgepool.remote._errors import RemoteError
from bridgepool.remote._messages import Row, RowSet
from bridgepool.remote._rows import RowFormat
from bridgepool.remote._session import Seen

P = TypeVar("P")

_log = logging.getLogger("bridgepool.remote")
_ENVELOPE_BYTES: Final = 64  # of a frame besides the message in it, at most

CatchUp = Callable[[Seen], Awaitable[Seen]]
"""Brings a source up to what a follower has seen, or renews its epoch; returns where it is then."""


@attrs.frozen
class EncodedRows:
    """The rows in force, encoded for all sessions."""

    snapshot: ProviderSnapshot[Any]
    rows: tuple[Row, ...]
    without_rows: RowSet
    whole: codec.Encoded
    """The `RowSet` with the rows."""
    problem: str | None
    """Why it cannot be sent with the rows."""


@attrs.define(eq=False)
class OwnerRows(Generic[P]):
    """The rows in force, and what waits for others. Knows no session."""

    _format: RowFormat[P]
    _catch_up: CatchUp | None
    _max_message_bytes: int
    _follower: str  # what log lines call one
    current: EncodedRows | None = attrs.field(default=None, init=False)
    """What is in force; None before the first snapshot."""
    _has_rows: trio.Event = attrs.field(factory=trio.Event, init=False)
    _replaced: ChangeBus = attrs.field(factory=ChangeBus, init=False)

    @property
    def revision(self) -> int | None:
        """The revision of what is in force."""
        return None if self.current is None else self.current.snapshot.revision

    def subscribe(self) -> ChangeSubscription:
        """Open a channel of notices that a snapshot was put in force."""
        return self._replaced.subscribe()

    def replace(self, snapshot: ProviderSnapshot[P]) -> Replacement:
        """Put a snapshot in force, unless it is out of date. Not async.

        Raises:
            UnsendableError: A provider cannot be encoded.
        """
        current = self.current
        number = 0 if current is None else current.without_rows.set
        if current is not None and snapshot.older_than(current.snapshot):
            return Replacement(ReplaceOutcome.OUT_OF_DATE, number)
        rows = tuple(map(self._format.write, snapshot.providers))
        is_same = current is not None and rows == current.rows
        # With another epoch the set is another one, too: followers ask everything anew.
        is_same_set = is_same and current is not None and snapshot.epoch == current.snapshot.epoch
        if not is_same_set or current is None or _marks(snapshot) != _marks(current.snapshot):
            number += not is_same_set
            self.current = self._encode(snapshot, rows, number)
            self._has_rows.set()
        self._replaced.publish()
        outcome = ReplaceOutcome.UNCHANGED if is_same else ReplaceOutcome.APPLIED
        return Replacement(outcome, number)

    async def wait_first(self) -> EncodedRows:
        """Wait until there are rows; return those in force."""
        await self._has_rows.wait()
        if self.current is None:
            raise AssertionError("there are rows")
        return self.current

    async def wait_caught_up(self, seen: Seen) -> None:
        """Have the source catch up with what a follower has seen, and wait until that is in force.

        Raises:
            RemoteError: The source cannot tell now whether it is behind.
        """
        if self._catch_up is None or seen.revision is None:
            return
        await self._has_rows.wait()
        reached = seen
        with self.subscribe() as replaced:
            while self._is_behind(reached):
                try:
                    reached = await self._catch_up(seen)
                except RemoteError:
                    raise
                except Exception:  # the owner's: this call is answered, and the server goes on
                    _log.exception("source did not catch up with a %s", self._follower)
                    problem = "the source may be behind; retry later"
                    raise RemoteError("unavailable", problem) from None
                if self._is_behind(reached):
                    await replaced.receive()

    def _is_behind(self, seen: Seen) -> bool:
        return self.current is not None and seen.is_ahead_of(self.current.snapshot)

    def _encode(
        self, snapshot: ProviderSnapshot[P], rows: tuple[Row, ...], number: int
    ) -> EncodedRows:
        without_rows = RowSet(
            snapshot.revision, number, allow_empty=snapshot.allow_empty, epoch=snapshot.epoch
        )
        whole, problem = codec.encode(attrs.evolve(without_rows, rows=rows)), None
        size = memoryview(whole.raw).nbytes + _ENVELOPE_BYTES
        if size > self._max_message_bytes:
            problem = (
                f"the rows are too large to be sent: {size} bytes, and {self._max_message_bytes} "
                "at most; make them fewer or smaller"
            )
            _log.error("%s", problem, extra={"revision": snapshot.revision})
        return EncodedRows(snapshot, rows, without_rows, whole, problem)


def _marks(snapshot: ProviderSnapshot[Any]) -> tuple[int | None, bool]:
    return snapshot.revision, snapshot.allow_empty
