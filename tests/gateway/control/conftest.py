"""What the tests of the store run against: each of them against both engines."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import PostgresServer, own_postgres_server, postgres_server

__all__ = ["database_url", "own_postgres_server", "postgres_server"]


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of an empty database: a test that takes it runs once for each engine."""
    if request.param == "sqlite":
        yield f"sqlite:{tmp_path / 'store.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    with server.lend_database() as url:
        yield url
