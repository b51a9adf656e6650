"""Open the database of a store, of whichever engine its address names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bridgepool._secret import Secret
from bridgepool.gateway.control._errors import StoreUnavailableError
from bridgepool.gateway.control.database._transactions import Database, Migrations


@asynccontextmanager
async def open_database(url: str | Secret, migrations: Migrations) -> AsyncIterator[Database]:
    """Open a database and bring its tables up to date.

    Args:
        url: ``path.db`` or ``sqlite:path``, made if it is not there; or ``postgresql://…``,
            which must be there and may hold a password.
        migrations: How its tables come to be.

    Raises:
        StoreUnavailableError: It cannot be opened; says why, without the password.
        NewerSchemaError: A newer bridgepool has been here.
        ValueError: The URL is of no kind that is known; the message does not repeat it.
        ImportError: PostgreSQL was named, and psycopg is missing.
    """
    text = url.reveal() if isinstance(url, Secret) else url
    scheme, colon, rest = text.partition(":")
    if scheme in ("postgresql", "postgres") and rest.startswith("//"):
        try:
            import psycopg  # noqa: F401 -- to say what is missing
        except ImportError as error:
            raise ImportError(
                "a store in PostgreSQL needs psycopg: pip install 'bridgepool[postgres]'"
            ) from error
        from bridgepool.gateway.control.database._postgres import open_postgres

        async with open_postgres(Secret(text), migrations) as database:
            yield database
    elif not text or (colon and "://" in text):
        raise ValueError("a store is a path, sqlite:path or postgresql://user@host/name")
    else:
        from bridgepool.gateway.control.database._sqlite import open_sqlite

        path = rest if colon and scheme == "sqlite" else text
        async with open_sqlite(path, migrations) as database:
            yield database


def check_store_exists(url: str) -> None:
    """Refuse a store in a file that is not there: to open it would make it. Blocks.

    For those who do not come to make one, and may have mistyped its name.

    Raises:
        StoreUnavailableError: The file is not there.
    """
    if "://" in url:
        return
    path = Path(url.removeprefix("sqlite:"))
    if not path.exists():
        raise StoreUnavailableError(
            f"there is no store at {path.absolute()}; is that its name? A new one is made by "
            "`bridgepool control-plane`, `providers add`, `providers apply` and `keys create`"
        )
