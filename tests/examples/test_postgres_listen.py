"""The example of LISTEN, on a real PostgreSQL server."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import trio

from bridgepool import ChangeBus, keep_subscribed
from tests.examples.support import EXAMPLES, running
from tests.postgres import PostgresServer, postgres_server

__all__ = ["postgres_server"]


@pytest.fixture
def url(postgres_server: PostgresServer) -> Iterator[str]:
    with postgres_server.lend_database() as url:
        postgres_server.execute("CREATE TABLE upstreams (name text PRIMARY KEY)", database=url)
        yield url


def example() -> Any:
    spec = importlib.util.spec_from_file_location("example", EXAMPLES / "postgres_listen.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_an_edit_of_the_table_is_followed_also_when_it_fell_into_an_outage(
    url: str,
    postgres_server: PostgresServer,
) -> None:
    execute = partial(postgres_server.execute, database=url)
    execute("INSERT INTO upstreams VALUES ('north')")
    async with running("postgres_listen.py", url) as program:
        assert await program.said("upstreams: ") == "north"
        execute("INSERT INTO upstreams VALUES ('south'); NOTIFY upstreams")
        assert await program.said("upstreams: north,") == "south"
        assert postgres_server.cut_connections(url, like="LISTEN%") == 1
        execute("DELETE FROM upstreams WHERE name = 'north'")  # and no NOTIFY
        assert await program.said("upstreams: south") == ""


async def test_a_notice_comes_for_each_notification_and_after_a_reconnect(
    url: str,
    postgres_server: PostgresServer,
) -> None:
    run = trio.to_thread.run_sync
    with trio.fail_after(180), ChangeBus() as bus, bus.subscribe() as changes:
        async with trio.open_nursery() as nursery:
            await nursery.start(keep_subscribed, partial(example().listen, url), bus)
            await changes.receive()  # it is open
            notify = partial(postgres_server.execute, "NOTIFY upstreams", database=url)
            await run(notify)
            await changes.receive()
            cut = partial(postgres_server.cut_connections, url, like="LISTEN%")
            assert await run(cut) == 1
            await changes.receive()  # it is open again, and nobody has notified
            await run(notify)
            await changes.receive()
            nursery.cancel_scope.cancel()
