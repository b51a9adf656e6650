"""Run readings and writings on a store's database, each as one transaction."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

import attrs

from bridgepool.gateway.control._encryption import EncryptionKeys
from bridgepool.gateway.control._records import Actor
from bridgepool.gateway.control.database import Database, Transaction
from bridgepool.gateway.control.store._writing import Reading, Writing, to_text

T = TypeVar("T")


@attrs.frozen
class Runner:
    """A database, with what its transactions need to be those of a store.

    What the methods promise, and what they raise, is said in `Database`.
    """

    database: Database
    encryption: EncryptionKeys
    clock: Callable[[], float]

    def now(self) -> datetime:
        """Return the time, for people."""
        return datetime.fromtimestamp(self.clock(), UTC)

    async def read(self, work: Callable[[Reading], T]) -> T:
        """Run a reading."""
        return await self.database.read(lambda tx: work(self._reading(tx)))

    async def note(self, work: Callable[[Reading], T]) -> T:
        """Run a work that changes only what is nobody's: no revision, no audit."""
        return await self.database.write(lambda tx: work(self._reading(tx)))

    async def write(self, actor: Actor, work: Callable[[Writing], T]) -> T:
        """Run a writing on somebody's behalf."""
        return await self.database.write(lambda tx: work(self._writing(tx, actor)))

    async def seed(self, actor: Actor, work: Callable[[Writing], T]) -> T:
        """Run a writing while every reader waits."""
        return await self.database.seed(lambda tx: work(self._writing(tx, actor)))

    def _reading(self, tx: Transaction) -> Reading:
        return Reading(tx, self.encryption)

    def _writing(self, tx: Transaction, actor: Actor) -> Writing:
        return Writing(tx, self.encryption, actor, to_text(self.now()))
