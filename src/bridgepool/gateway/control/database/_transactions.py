"""What the engines of the store have in common: transactions in worker threads, and notices.

Both engines keep the same promises; all that is above this module does not know which it has.
Statements are SQL that both take, with ``?`` for each argument. Columns are TEXT, INTEGER,
BIGINT or BLOB; a truth value is an INTEGER, 0 or 1, and a ``bool`` may be given for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

from bridgepool._changes import ChangeSubscription

T = TypeVar("T")

Value: TypeAlias = str | int | bytes | None
"""What a statement takes; text holds no NUL, a number fits into 64 bits."""
Row: TypeAlias = tuple[Any, ...]  # what a statement selects is not for the type checker to know
"""What a statement gives: ``str``, ``int``, ``bytes`` or None in each place."""
Migrations: TypeAlias = Sequence[Sequence[str]]
"""The statements that lead to version 1, those that lead from there to version 2, and so on."""


class Transaction(Protocol):
    """One transaction, inside the worker thread that it runs in. Do not keep it."""

    def fetch_all(self, sql: str, *args: Value) -> list[Row]:
        """Run a query and return all of its rows."""
        ...

    def fetch_one(self, sql: str, *args: Value) -> Row | None:
        """Run a query and return its first row, None if there is none."""
        ...

    def execute(self, sql: str, *args: Value) -> int:
        """Run a statement and return how many rows it touched."""
        ...

    def notify(self) -> None:
        """Tell all subscribers, in every process, when this commits and only if it does."""
        ...


class Database(Protocol):
    """A database that is open; made by `open_database`.

    The works run in worker threads, with a synchronous `Transaction`; what a work raises undoes
    all of it and comes out unchanged. Every method is a checkpoint.

    Raises:
        StoreUnavailableError: The database cannot be used now; another attempt may succeed.
        StoreBrokenError: The database took a statement for wrong that is right for a store.
        trio.ClosedResourceError: The block of `open_database` was left.
    """

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Run a work that changes nothing, on one consistent state of the database.

        Waits while a seed runs, in whatever process, and then sees all of it. Waits for no
        other writer.

        Cancellation:
            The waiting can be cancelled; a work that runs may be let finish.
        """
        ...

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """Run a work that may change anything: all of it or nothing is kept, durably.

        Writers come one after the other, in all processes: what a work reads nobody else changes
        before it has ended, and one that begins later sees all that it wrote.

        Cancellation:
            Leaves it done or not done, never half. Only `Cancelled` tells that it may be not
            done; who must know reads.

        Raises:
            CommitUnknownError: The connection broke while it was being committed.
        """
        ...

    async def seed(self, work: Callable[[Transaction], T]) -> T:
        """As `write`, and whoever reads meanwhile waits until it is done."""
        ...

    def subscribe(self) -> ChangeSubscription:
        """Open a channel of notices that something was committed that called `notify`.

        By whatever process; those of this one come at once. A notice may come without a change,
        so that one that was lost (a connection that broke) is made good.
        """
        ...
