"""What can befall a store in PostgreSQL: a server that restarts, dies, freezes, refuses."""

import logging
import signal
import traceback
from collections.abc import AsyncIterator, Iterator
from functools import partial
from urllib.parse import quote

import pytest
import trio

from bridgepool import Secret
from bridgepool.gateway.control._errors import CommitUnknownError, StoreUnavailableError
from bridgepool.gateway.control.database import Database, Transaction, open_database
from tests.gateway.control.database.child import TABLES, count, increment, parts
from tests.ports import free_port
from tests.postgres import PASSWORD, PostgresServer


@pytest.fixture
def url(postgres_server: PostgresServer) -> Iterator[str]:
    with postgres_server.lend_database() as url:
        yield url


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    async with open_database(url, migrations=TABLES) as opened:
        yield opened


async def test_a_server_that_restarts_is_used_again_without_a_restart_of_ours(
    own_postgres_server: PostgresServer,
) -> None:
    server = own_postgres_server
    with trio.fail_after(180):
        async with open_database(server.create_database(), migrations=TABLES) as database:
            with database.subscribe() as changes:
                await changes.receive()
                await database.write(increment)
                await changes.receive()
                await trio.to_thread.run_sync(server.stop)
                for run in (database.read, database.write, partial(database.write, seeding=True)):
                    with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1"):
                        await run(parts)
                await trio.to_thread.run_sync(server.start)
                assert await count(database) == 1
                await database.write(increment)
                await changes.receive()  # of the own commit, or of listening again
                assert await count(database) == 2


async def test_a_server_that_crashed_keeps_what_was_committed(
    own_postgres_server: PostgresServer,
) -> None:
    server = own_postgres_server
    with trio.fail_after(180):
        async with open_database(server.create_database(), migrations=TABLES) as database:
            await database.write(increment)

            def crash() -> None:
                server.stop(signal.SIGKILL)
                server.start()

            await trio.to_thread.run_sync(crash)
            assert await count(database) == 1
            await database.write(increment)
            assert await count(database) == 2


async def test_connections_that_died_while_idle_are_not_noticed(
    database: Database, url: str, postgres_server: PostgresServer
) -> None:
    for _ in range(3):
        await database.read(parts)
        await trio.to_thread.run_sync(postgres_server.cut_connections, url)
        await database.write(increment)
        await database.read(parts)
    assert await count(database) == 3


async def test_a_connection_that_dies_in_the_middle_is_said_and_nothing_is_done_twice(
    database: Database, url: str, postgres_server: PostgresServer
) -> None:
    runs = 0

    def work(tx: Transaction) -> None:
        nonlocal runs
        runs += 1
        increment(tx)
        postgres_server.cut_connections(url)
        tx.fetch_one("SELECT 1")

    with pytest.raises(StoreUnavailableError) as caught:
        await database.write(work)
    assert not isinstance(caught.value, CommitUnknownError)
    assert (runs, await count(database)) == (1, 0)


async def test_a_commit_that_breaks_off_is_told_to_be_unknown(
    database: Database, url: str, postgres_server: PostgresServer
) -> None:
    runs = 0

    def work(tx: Transaction) -> None:
        nonlocal runs
        runs += 1
        increment(tx)
        postgres_server.cut_connections(url)

    with pytest.raises(CommitUnknownError, match="look before you try again"):
        await database.write(work)
    assert (runs, await count(database)) == (1, 0)


async def test_a_listener_that_was_cut_comes_back_and_says_so(
    database: Database, url: str, postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with trio.fail_after(90), database.subscribe() as changes:
        await changes.receive()
        cut = await trio.to_thread.run_sync(
            lambda: postgres_server.cut_connections(url, like="LISTEN%")
        )
        assert cut == 1
        await changes.receive()
        async with open_database(url, migrations=TABLES) as other:
            await other.write(increment)
            await changes.receive()
    assert [word in caplog.text for word in ("unavailable", "available again")] == [True, True]
    assert PASSWORD not in caplog.text


async def test_a_statement_that_runs_is_cancelled_at_the_server(
    database: Database, postgres_server: PostgresServer
) -> None:
    for run in (database.read, database.write):
        with trio.fail_after(60), trio.move_on_after(0.2) as scope:
            await run(lambda tx: tx.fetch_one("SELECT pg_sleep(300)"))
        assert scope.cancelled_caught
    running = await trio.to_thread.run_sync(
        lambda: postgres_server.execute(
            "SELECT 1 FROM pg_stat_activity WHERE state = 'active' "
            "AND query LIKE '%%pg_sleep(300)%%' AND pid <> pg_backend_pid()"
        )
    )
    assert running == []
    await database.write(increment)
    assert await count(database) == 1


async def test_a_cancelled_write_gives_a_notice_since_it_may_have_been_committed(
    database: Database,
) -> None:
    with trio.fail_after(60), database.subscribe() as changes:
        await changes.receive()  # the listener is connected
        with trio.move_on_after(0.1) as scope:
            await database.write(lambda tx: tx.fetch_one("SELECT pg_sleep(300)"))
        assert scope.cancelled_caught
        await changes.receive()


async def test_a_server_that_is_frozen_holds_up_nobody_who_cancels(
    own_postgres_server: PostgresServer,
) -> None:
    server = own_postgres_server
    with trio.fail_after(180):
        async with open_database(server.create_database(), migrations=TABLES) as database:
            await database.read(parts)
            server.freeze()
            for run in (database.read, database.write):
                with trio.fail_after(60), trio.move_on_after(0.2) as scope:
                    await run(parts)
                assert scope.cancelled_caught
            server.thaw()
            await database.write(increment)
            assert await count(database) == 1


async def test_no_thread_is_left_after_cancellations(database: Database) -> None:
    limiter = trio.to_thread.current_default_thread_limiter()
    for _ in range(5):
        with trio.move_on_after(0.02):
            await database.read(lambda tx: tx.fetch_one("SELECT pg_sleep(300)"))
    assert limiter.borrowed_tokens == 0
    assert await count(database) == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda url: url.replace(PASSWORD, quote("hunter2%/@", safe="")),
            "password authentication failed",
        ),
        (lambda url: url.replace(PASSWORD, "hunter2") + "-none", "authentication failed|not exist"),
        (lambda url: url.replace(PASSWORD, "hunter2") + "?sslmode=require", "SSL"),
        *(
            (lambda url, bad=bad: url.replace(PASSWORD, bad), "cannot be read")
            for bad in ("hunter2%zz", "hunter2/", "5/hunter2", "@hunter2")
        ),
        (lambda url: url.replace(PASSWORD, "hunter2") + "?hunter2=1", "cannot be read"),
        (
            lambda url: f"postgresql://u:hunter2@127.0.0.1:{free_port()}/db",
            "(?i)connection refused",
        ),
    ],
)
async def test_the_password_is_in_no_error_and_no_log(
    url: str, change: object, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert callable(change)
    with pytest.raises(StoreUnavailableError, match=said) as caught:
        async with open_database(Secret(change(url)), migrations=TABLES):
            pass
    shown = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert "hunter2" not in shown
    error: BaseException | None = caught.value
    while error is not None:  # nor in the frames of what is chained to it, for debuggers
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        for frame in frames:
            if "psycopg" in frame.f_code.co_filename:
                assert "hunter2" not in repr(frame.f_locals)
        error = error.__cause__ or error.__context__


async def test_a_work_that_hides_a_failed_statement_is_not_committed(database: Database) -> None:
    def work(tx: Transaction) -> None:
        increment(tx)
        try:
            tx.fetch_one("SELECT * FROM nowhere")
        except Exception:
            return

    with pytest.raises(RuntimeError, match="went on"):
        await database.write(work)
    assert await count(database) == 0


async def test_a_user_without_rights_is_told(url: str, postgres_server: PostgresServer) -> None:
    async with open_database(url, migrations=TABLES):
        pass
    await trio.to_thread.run_sync(
        lambda: postgres_server.execute(
            "DROP ROLE IF EXISTS guest; CREATE ROLE guest LOGIN PASSWORD 'guest'", database=url
        )
    )
    guest = url.replace(f"bridgepool:{PASSWORD}", "guest:guest")
    with pytest.raises(StoreUnavailableError, match="permission denied"):
        async with open_database(guest, migrations=TABLES):
            pass
