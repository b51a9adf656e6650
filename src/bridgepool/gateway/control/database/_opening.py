"""Open the database that an address names, and bring its tables up to date."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from bridgepool._secret import Secret
from bridgepool._services import open_background_nursery
from bridgepool._version import __version__
from bridgepool.gateway.control._errors import (
    NewerSchemaError,
    StoreUnavailableError,
    StoreUrlError,
)
from bridgepool.gateway.control.database._database import (
    VERSIONS,
    Database,
    Engine,
    Migrations,
    Transaction,
)

logger = logging.getLogger("bridgepool.store")


@asynccontextmanager
async def open_database(url: str | Secret, migrations: Migrations) -> AsyncIterator[Database]:
    """Open a database and bring its tables up to date.

    Args:
        url: ``path.db`` or ``sqlite:path``, which is made if it does not exist; or
            ``postgresql://…``, which must exist and may hold a password.
        migrations: How its tables come to be.

    Raises:
        StoreUnavailableError: It cannot be opened; says why, without the password.
        NewerSchemaError: A newer bridgepool has migrated it.
        ValueError: The URL is of an unknown kind; the message does not repeat it.
        ImportError: PostgreSQL was named, and psycopg is missing.
    """
    engine = await _find_engine(url.reveal() if isinstance(url, Secret) else url)
    database = Database(engine)
    try:
        # Only read, if it is up to date: a replica, or a server set to read-only, is of use, too.
        if await database.read(partial(_find_version, migrations, engine)) < len(migrations):
            await database.write(partial(_migrate, migrations, engine), seeding=True)
        async with open_background_nursery() as nursery:
            nursery.start_soon(engine.watch, database.notices)
            yield database
    finally:
        await database.aclose()


async def _find_engine(url: str) -> Engine:
    # The engine that is not used is not imported, nor is psycopg.
    scheme, colon, rest = url.partition(":")
    if scheme in ("postgresql", "postgres") and rest.startswith("//"):
        try:
            import psycopg  # noqa: F401 -- to say what is missing
        except ImportError as error:
            raise ImportError(
                "a store in PostgreSQL requires psycopg: pip install 'bridgepool[postgres]'"
            ) from error
        from bridgepool.gateway.control.database._postgres import PostgresEngine
        from bridgepool.gateway.control.database._postgres_server import Server

        return PostgresEngine(Server.parse(Secret(url)))
    if not url or (colon and "://" in url):
        raise StoreUrlError
    from bridgepool.gateway.control.database._sqlite import SqliteEngine

    path = rest if colon and scheme == "sqlite" else url
    return await trio.to_thread.run_sync(SqliteEngine.find, path)


def _find_version(migrations: Migrations, engine: Engine, tx: Transaction) -> int:
    if tx.fetch_one(engine.find_table, VERSIONS) is None:
        return 0
    [(found,)] = tx.fetch_all(f"SELECT COALESCE(MAX(version), 0) FROM {VERSIONS}")  # noqa: S608 -- names of tables and columns of ours
    if found > len(migrations):
        raise NewerSchemaError(found, len(migrations))
    return int(found)


def _migrate(migrations: Migrations, engine: Engine, tx: Transaction) -> None:
    """Run the migrations that are missing, once, however many processes start together.

    In one transaction that runs as a seed: no other writer and no reader is at work meanwhile, so
    a store is of one version or another, never between two.
    """
    found = _find_version(migrations, engine, tx)
    if found == 0:
        columns = "version INTEGER PRIMARY KEY, software TEXT NOT NULL"
        tx.execute(f"CREATE TABLE IF NOT EXISTS {VERSIONS} ({columns})")
    for version, statements in enumerate(migrations[found:], found + 1):
        for statement in statements:
            tx.execute(statement)
        tx.execute(f"INSERT INTO {VERSIONS} VALUES (?, ?)", version, __version__)  # noqa: S608 -- names of tables and columns of ours
    if not found:
        logger.warning("created a new, empty store", extra={"store": engine.label})
    elif found < len(migrations):
        facts = {"from_version": found, "to_version": len(migrations)}
        logger.info("migrated the tables of the store", extra=facts)


def check_store_exists(url: str, advice: str = "check the name") -> None:
    """Refuse a store in a file that does not exist, since opening it would make it. Blocks.

    For commands whose user may have mistyped its name.

    Args:
        url: The store.
        advice: What to do.

    Raises:
        StoreUnavailableError: The file does not exist.
    """
    if "://" in url:
        return
    path = Path(url.removeprefix("sqlite:"))
    if not path.exists():
        raise StoreUnavailableError(f"there is no store at {path.absolute()}; {advice}")
