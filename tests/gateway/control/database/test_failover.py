"""A store in PostgreSQL on a primary and a standby: which of them a connection leads to."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial

import attrs
import pytest
import trio
import trio.testing

from bridgepool import Secret
from bridgepool.gateway.control._errors import StoreError, StoreUnavailableError
from bridgepool.gateway.control.database import Database, Transaction, open_database
from tests.gateway.control.database.child import TABLES, count, increment, parts
from tests.ports import free_port
from tests.postgres import PASSWORD, PostgresServer


@pytest.fixture
def standby(own_postgres_server: PostgresServer) -> Iterator[PostgresServer]:
    with own_postgres_server.lend_standby() as standby:
        yield standby


def _url(*ports: int, options: str = "") -> str:
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    return f"postgresql://bridgepool:{PASSWORD}@{hosts}/postgres{options}"


def _backend(tx: Transaction) -> int:
    row = tx.fetch_one("SELECT pg_backend_pid()")
    assert row is not None
    pid: int = row[0]
    return pid


def _is_standby(tx: Transaction) -> int:
    row = tx.fetch_one("SELECT pg_is_in_recovery()")
    assert row is not None
    answer: int = row[0]
    return answer


async def _is_refused(database: Database) -> bool:
    """Return whether a change is refused, even one that changes nothing."""
    try:
        await database.write(lambda tx: None)
    except StoreUnavailableError as error:
        return "cannot be written" in str(error)
    return False


_LISTENS = "SELECT COUNT(*)::int FROM pg_stat_activity WHERE query LIKE 'LISTEN%%'"


async def _wait_for(server: PostgresServer, query: str, answer: list[tuple[object, ...]]) -> None:
    with trio.fail_after(60):
        while await trio.to_thread.run_sync(server.execute, query) != answer:  # noqa: ASYNC110
            await trio.sleep(0.02)


async def _wait_standby(standby: PostgresServer) -> None:
    """Wait until a standby has the first change."""
    await _wait_for(standby, "SELECT to_regclass('counter') IS NOT NULL", [(True,)])
    await _wait_for(standby, "SELECT n FROM counter", [(1,)])


@attrs.define(eq=False)
class Endpoint:
    """An address that leads to one server or another, like the name of a managed cluster."""

    target: int
    port: int = 0
    _open: list[trio.SocketStream] = attrs.field(factory=list, init=False)

    async def serve(self, client: trio.SocketStream) -> None:
        server = await trio.open_tcp_stream("127.0.0.1", self.target)
        self._open += [client, server]
        async with client, server, trio.open_nursery() as nursery:
            nursery.start_soon(self._pump, client, server)
            nursery.start_soon(self._pump, server, client)

    async def _pump(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        try:
            async for data in source:
                await sink.send_all(data)
            await sink.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def cut(self) -> None:
        """End the connections that are open."""
        while self._open:
            await trio.aclose_forcefully(self._open.pop())


@asynccontextmanager
async def _open_endpoint(target: int) -> AsyncIterator[Endpoint]:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    endpoint = Endpoint(target, listeners[0].socket.getsockname()[1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, endpoint.serve, listeners)
        yield endpoint
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("reverse", [False, True])
async def test_after_a_failover_the_store_works_on_without_a_restart(
    own_postgres_server: PostgresServer, standby: PostgresServer, reverse: bool
) -> None:
    ports = [own_postgres_server.port, standby.port]
    if reverse:
        ports.reverse()
    with trio.fail_after(180):
        async with open_database(_url(*ports), migrations=TABLES) as database:
            with database.subscribe() as changes:
                await changes.receive()
                await database.write(increment)
                await changes.receive()
                assert not await database.read(_is_standby)
                await trio.to_thread.run_sync(own_postgres_server.stop)
                with pytest.raises(StoreUnavailableError):
                    await database.write(increment)
                await trio.to_thread.run_sync(standby.promote)
                await database.write(increment)
                assert await count(database) == 2
                await _wait_for(standby, _LISTENS, [(1,)])
                with trio.move_on_after(0.2):  # of the own commit, and of listening again
                    while True:
                        await changes.receive()
                async with open_database(_url(*ports), migrations=TABLES) as other:
                    await other.write(increment)
                    await changes.receive()


async def test_no_new_connection_leads_to_a_standby(
    own_postgres_server: PostgresServer, standby: PostgresServer
) -> None:
    async with open_database(own_postgres_server.url(), migrations=TABLES) as database:
        await database.write(increment)
    await _wait_standby(standby)
    with pytest.raises(StoreUnavailableError, match="hot standby"):
        async with open_database(standby.url(), migrations=TABLES):
            pass
    both = _url(standby.port, own_postgres_server.port)
    async with open_database(both, migrations=TABLES) as database:
        for run in (database.read, database.write, partial(database.write, seeding=True)):
            assert not await run(_is_standby)


async def test_a_name_that_led_to_a_standby_for_a_moment_is_used_again_at_once(
    own_postgres_server: PostgresServer, standby: PostgresServer
) -> None:
    """A connection that was made in that moment stayed, and refused every change for ever."""
    async with (
        _open_endpoint(own_postgres_server.port) as endpoint,
        open_database(_url(endpoint.port), migrations=TABLES) as database,
    ):
        await database.write(increment)
        await _wait_standby(standby)
        endpoint.target = standby.port
        await endpoint.cut()
        with pytest.raises(StoreUnavailableError, match="cannot be written"):
            await database.write(increment)
        with pytest.raises(StoreUnavailableError, match="hot standby"):
            await database.read(parts)
        endpoint.target = own_postgres_server.port
        await database.write(increment)
        assert await count(database) == 2


async def test_a_connection_that_was_refused_once_is_not_used_again(
    own_postgres_server: PostgresServer,
) -> None:
    async with open_database(own_postgres_server.url(), migrations=TABLES) as database:
        for run in (database.read, database.write):
            first = await run(_backend)
            assert await run(_backend) == first
            with pytest.raises(StoreError, match="DivisionByZero"):
                await run(lambda tx: tx.fetch_one("SELECT 1 / 0"))
            assert await run(_backend) != first


async def test_a_server_that_is_set_to_read_only_is_read_and_written_when_it_may_be(
    own_postgres_server: PostgresServer,
) -> None:
    server = own_postgres_server

    def set_read_only(value: str) -> None:
        server.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
        server.execute("SELECT pg_reload_conf()")

    async with open_database(server.url(), migrations=TABLES) as database:
        await database.write(increment)
        await trio.to_thread.run_sync(set_read_only, "on")
        with trio.fail_after(60):
            while not await _is_refused(database):  # a server reads its settings when it likes
                pass
        assert await count(database) == 1
        async with open_database(server.url(), migrations=TABLES) as other:
            assert await count(other) == 1
            # The next may find one that can be written.
            assert await other.read(_backend) != await other.read(_backend)
        await trio.to_thread.run_sync(set_read_only, "off")
        with trio.fail_after(60):
            while await _is_refused(database):
                pass
        await database.write(increment)
        assert await count(database) == 2


async def test_a_replica_is_read_by_who_asks_for_any_server(
    own_postgres_server: PostgresServer, standby: PostgresServer
) -> None:
    async with open_database(own_postgres_server.url(), migrations=TABLES) as database:
        await database.write(increment)
    await _wait_standby(standby)
    url = _url(standby.port, options="?target_session_attrs=any")
    async with open_database(url, migrations=TABLES) as database:
        assert await database.read(_is_standby)
        assert await database.read(_backend) == await database.read(_backend)
        assert await count(database) == 1
        with pytest.raises(StoreUnavailableError, match=r"cannot be written.*is a standby"):
            await database.write(increment)
        await trio.to_thread.run_sync(standby.promote)
        await database.write(increment)
        assert await count(database) == 2


async def test_a_failure_names_each_host_and_port_and_why() -> None:
    ports = free_port(), free_port()
    with pytest.raises(StoreUnavailableError) as caught:
        async with open_database(Secret(_url(*ports)), migrations=TABLES):
            pass
    text = str(caught.value)
    where = ",".join(f"127.0.0.1:{port}" for port in ports)
    assert f"the store in PostgreSQL at {where}/postgres cannot be used: " in text
    for port in ports:
        assert f"127.0.0.1:{port}: Connection refused" in text
    assert PASSWORD not in text


async def _connections(server: PostgresServer) -> set[int]:
    statement = "SELECT pid FROM pg_stat_activity WHERE application_name = 'bridgepool'"
    rows = await trio.to_thread.run_sync(server.execute, statement)
    return {pid for (pid,) in rows}


def test_no_connection_is_kept_for_ever(own_postgres_server: PostgresServer) -> None:
    clock = trio.testing.MockClock()

    async def main() -> None:
        async with open_database(own_postgres_server.url(), migrations=TABLES) as database:
            with database.subscribe() as changes:
                await changes.receive()
                await database.write(increment)
                await changes.receive()
                together = threading.Barrier(4)
                async with trio.open_nursery() as nursery:
                    for _ in range(4):
                        nursery.start_soon(database.read, lambda tx: together.wait(10))
                before = await _connections(own_postgres_server)
                assert len(before) == 6  # four of them readers
                clock.jump(470)
                await database.read(parts)
                await database.write(parts)
                assert await _connections(own_postgres_server) == before
                clock.jump(131)
                await database.read(parts)
                await database.write(parts)
                for _ in range(500):  # the server is a moment behind
                    after = await _connections(own_postgres_server)
                    if len(after) == 3:
                        break
                assert len(after) == 3
                assert not after & before
                await changes.receive()  # for what came while nobody listened

    trio.run(main, clock=clock)
