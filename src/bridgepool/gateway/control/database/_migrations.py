"""Bring the tables of a store up to date, once, however many processes start together.

All that is missing is run in one transaction, which the engine gives as `Database.seed` gives
it: no other writer and no reader is at work meanwhile. So a store is of one version or another,
never between two.
"""

import logging
from collections.abc import Callable
from typing import Final

from bridgepool._version import __version__
from bridgepool.gateway.control._errors import NewerSchemaError
from bridgepool.gateway.control.database._transactions import Migrations, Transaction

logger = logging.getLogger("bridgepool.store")

TABLE: Final = "schema_versions"
"""Where it is noted which migrations have been run."""


def migration_work(migrations: Migrations, *, exists: str) -> Callable[[Transaction], int]:
    """Return the work that brings the tables up to date, and returns how many steps that took.

    Args:
        migrations: The statements of each step.
        exists: A query in the engine's dialect that gives a row if `TABLE` is there.
    """

    def work(tx: Transaction) -> int:
        if tx.fetch_one(exists) is None:
            tx.execute(
                f"CREATE TABLE {TABLE} (version INTEGER PRIMARY KEY, software TEXT NOT NULL)"
            )
        row = tx.fetch_one(f"SELECT COALESCE(MAX(version), 0) FROM {TABLE}")  # noqa: S608 -- ours
        found: int = row[0] if row is not None else 0
        if found > len(migrations):
            raise NewerSchemaError(found, len(migrations))
        for version, statements in enumerate(migrations[found:], found + 1):
            for statement in statements:
                tx.execute(statement)
            tx.execute(f"INSERT INTO {TABLE} VALUES (?, ?)", version, __version__)  # noqa: S608
        steps = len(migrations) - found
        if steps:
            logger.info(
                "the store's tables were brought from version %d to %d", found, len(migrations)
            )
        return steps

    return work
