"""Upstreams in a PostgreSQL table, followed by LISTEN.

    CREATE TABLE upstreams (name text PRIMARY KEY);
    python postgres_listen.py postgresql://user@host/database

Change the table and run `NOTIFY upstreams` in the same transaction. Needs psycopg.
"""

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Self

import attrs
import psycopg
import trio

from bridgepool import (
    ChangeBus,
    ProviderSnapshot,
    ReloadError,
    keep_subscribed,
    open_bridge_pool,
    watch_providers,
)


@attrs.frozen
class Notifications:
    """The notifications of a connection, as an async iterator; never blocks the loop."""

    connection: psycopg.Connection[tuple[str]]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> None:
        # Several pending notifications count as one: all of them mean "reload".
        while not list(self.connection.notifies(timeout=0)):
            await trio.lowlevel.wait_readable(self.connection.fileno())


@asynccontextmanager
async def listen(url: str) -> AsyncGenerator[Notifications]:
    connection = await trio.to_thread.run_sync(connect_and_listen, url)
    try:
        yield Notifications(connection)
    finally:
        connection.close()


def connect_and_listen(url: str) -> psycopg.Connection[tuple[str]]:
    connection = psycopg.connect(url, autocommit=True, connect_timeout=10)
    connection.execute("LISTEN upstreams")
    return connection


@attrs.frozen
class TableReloader:
    """A `ProviderReloader[str]`."""

    url: str

    async def reload(self) -> ProviderSnapshot[str]:
        """Read the whole table, in a thread."""
        try:
            return ProviderSnapshot(await trio.to_thread.run_sync(self.read))
        except psycopg.Error as error:
            raise ReloadError(f"cannot read the table of upstreams: {error}") from error

    def read(self) -> list[str]:
        """Return the names; blocks."""
        with psycopg.connect(self.url, connect_timeout=10) as connection:
            return [name for (name,) in connection.execute("TABLE upstreams ORDER BY name")]


@asynccontextmanager
async def open_bridge(_: str, snapshot: ProviderSnapshot[str]) -> AsyncGenerator[str]:
    yield ", ".join(snapshot.providers)  # your program opens connections to them here


async def main(url: str) -> None:
    nothing: ProviderSnapshot[str] = ProviderSnapshot([])
    with ChangeBus() as bus, bus.subscribe() as changes:
        async with open_bridge_pool(open_bridge, nothing) as pool, trio.open_nursery() as nursery:
            nursery.start_soon(keep_subscribed, partial(listen, url), bus)
            await nursery.start(watch_providers, pool, TableReloader(url), changes)
            while True:
                lease = pool.acquire("ada")
                async with lease as bridge:
                    print(f"upstreams: {bridge}", flush=True)
                    await lease.wait_retired()


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
