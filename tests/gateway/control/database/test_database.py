"""What both engines promise, each test against both."""

from collections.abc import AsyncIterator
from functools import partial

import pytest
import trio
import trio.testing

from bridgepool.gateway.control._errors import StoreBrokenError, StoreUnavailableError
from bridgepool.gateway.control.database import Database, Transaction, open_database
from tests.gateway.control.database.child import TABLES, count, increment, parts


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    with trio.fail_after(60):
        async with open_database(database_url, migrations=TABLES) as opened:
            yield opened


async def test_both_engines_give_the_same_types(database: Database) -> None:
    values = (True, 2**62, "é '?' %s $1", b"\0\xff", None)

    def work(tx: Transaction) -> object:
        tx.execute("CREATE TABLE kinds (a INTEGER, b BIGINT, c TEXT, d BLOB, e TEXT)")
        assert tx.execute("INSERT INTO kinds VALUES (?, ?, ?, ?, ?)", *values) == 1
        assert tx.fetch_one("SELECT SUM(b), COUNT(*), MAX(b), a > 0 FROM kinds GROUP BY a") == (
            2**62, 1, 2**62, 1,
        )  # fmt: skip
        assert tx.fetch_one("SELECT 1 FROM kinds WHERE b = 0") is None
        assert tx.execute("UPDATE kinds SET a = 0 WHERE b = 0") == 0
        return tx.fetch_all("SELECT * FROM kinds")

    rows = await database.write(work)
    assert rows == [(1, 2**62, "é '?' %s $1", b"\0\xff", None)]
    assert [type(value) for value in rows[0]] == [int, int, str, bytes, type(None)]


async def test_a_question_mark_in_a_literal_is_no_placeholder(database: Database) -> None:
    row = await database.read(
        lambda tx: tx.fetch_one(
            "SELECT 'is it? ''?''', ' BLOB %', n FROM counter WHERE n = ? -- ?", 0
        )
    )
    assert row == ("is it? '?'", " BLOB %", 0)


async def test_what_a_work_raises_undoes_all_of_it(database: Database) -> None:
    def work(tx: Transaction) -> None:
        increment(tx)
        raise LookupError("mine")

    with database.subscribe() as changes:
        await _drain(changes)
        with pytest.raises(LookupError, match="mine"):
            await database.write(work)
        assert await count(database) == 0
        await _assert_silent(changes)
        await database.write(increment)
        await changes.receive()
    assert await count(database) == 1


async def _drain(changes: trio.abc.ReceiveChannel[None]) -> None:
    """Take the notice that an engine gives when it begins to listen, however late it comes."""
    with trio.fail_after(60):
        await changes.receive()


async def _assert_silent(changes: trio.abc.ReceiveChannel[None]) -> None:
    with trio.move_on_after(0.2) as scope:
        await changes.receive()
    assert scope.cancelled_caught


async def test_a_change_that_nobody_is_to_see_gives_no_notice(
    database: Database, database_url: str
) -> None:
    async with open_database(database_url, migrations=TABLES) as other:
        with database.subscribe() as changes, other.subscribe() as others:
            await _drain(changes)
            await _drain(others)
            await database.write(lambda tx: tx.execute("UPDATE counter SET n = 5"))
            await _assert_silent(changes)
            await _assert_silent(others)


async def test_one_change_gives_each_subscriber_one_notice(
    database: Database, database_url: str
) -> None:
    async with open_database(database_url, migrations=TABLES) as other:
        with database.subscribe() as changes, other.subscribe() as others:
            await _drain(changes)
            await _drain(others)
            for writer in (database, other):
                await writer.write(increment)
                await changes.receive()
                await others.receive()
            await _assert_silent(changes)
            await _assert_silent(others)


async def test_a_read_sees_one_state_however_long_it_takes(database: Database) -> None:
    token = trio.lowlevel.current_trio_token()

    def work(tx: Transaction) -> tuple[object, object]:
        before = tx.fetch_one("SELECT n FROM counter")
        trio.from_thread.run(database.write, increment, trio_token=token)
        return before, tx.fetch_one("SELECT n FROM counter")

    before, after = await database.read(work)
    assert before == after == (0,)
    assert await count(database) == 1


async def test_writers_come_one_after_the_other(database: Database, database_url: str) -> None:
    async with (
        open_database(database_url, migrations=TABLES) as other,
        trio.open_nursery() as nursery,
    ):
        for writer in (database, other):
            for _ in range(30):
                nursery.start_soon(writer.write, increment)
    assert await count(database) == 60


async def test_a_read_cannot_write(database: Database) -> None:
    with pytest.raises(Exception, match=r"read-?only"):
        await database.read(increment)
    assert await count(database) == 0


async def test_a_table_that_is_gone_breaks_the_store_and_is_said(database: Database) -> None:
    for method in (database.read, database.write, partial(database.write, seeding=True)):
        with pytest.raises(StoreBrokenError, match=r"nowhere.*put a backup in its place") as caught:
            await method(lambda tx: tx.fetch_one("SELECT * FROM nowhere"))
        assert not isinstance(caught.value, StoreUnavailableError)
    await database.write(increment)
    assert await count(database) == 1


async def test_a_constraint_that_should_hold_is_said_without_the_values(
    database: Database,
) -> None:
    def twice(tx: Transaction) -> None:
        tx.execute("CREATE TABLE words (word TEXT PRIMARY KEY)")
        for _ in range(2):
            tx.execute("INSERT INTO words VALUES (?)", "the-value")

    with pytest.raises(StoreBrokenError, match="does not hold what bridgepool needs") as caught:
        await database.write(twice)
    assert "the-value" not in str(caught.value)
    await database.write(increment)
    assert await count(database) == 1


async def test_readers_in_the_same_process_wait_for_a_seed(database: Database) -> None:
    seen: list[int] = []

    async def read() -> None:
        seen.append(await database.read(parts))

    token = trio.lowlevel.current_trio_token()
    async with trio.open_nursery() as nursery:

        async def in_the_middle() -> None:
            for _ in range(10):
                nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            assert not seen

        def work(tx: Transaction) -> None:
            tx.execute("INSERT INTO parts VALUES (1)")
            trio.from_thread.run(in_the_middle, trio_token=token)
            tx.execute("INSERT INTO parts VALUES (2)")

        await database.write(work, seeding=True)
    assert seen == [2] * 10


async def test_a_seed_that_fails_lets_readers_go_on(database: Database) -> None:
    def work(tx: Transaction) -> None:
        tx.execute("INSERT INTO parts VALUES (1)")
        raise LookupError

    with pytest.raises(LookupError):
        await database.write(work, seeding=True)
    assert await database.read(parts) == 0


async def test_who_waits_for_a_seed_or_a_writer_can_be_cancelled(
    database: Database, database_url: str
) -> None:
    token = trio.lowlevel.current_trio_token()
    async with open_database(database_url, migrations=TABLES) as other:

        async def in_the_middle() -> None:
            for waiting in (other.read(parts), other.write(parts), database.write(parts)):
                with trio.move_on_after(0.02) as scope:
                    await waiting
                assert scope.cancelled_caught

        await database.write(
            lambda tx: trio.from_thread.run(in_the_middle, trio_token=token), seeding=True
        )
        await other.write(increment)
        await database.write(increment)
        assert await other.read(parts) == 0
    assert await count(database) == 2


async def test_what_is_cancelled_before_it_begins_does_nothing(database: Database) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await database.write(increment)
    assert scope.cancelled_caught
    assert await count(database) == 0


async def test_every_method_is_a_checkpoint(database: Database) -> None:
    for method in (database.read, database.write, partial(database.write, seeding=True)):
        with trio.testing.assert_checkpoints():
            await method(parts)


async def test_a_store_that_was_left_is_closed(database_url: str) -> None:
    async with open_database(database_url, migrations=TABLES) as database:
        changes = database.subscribe()
        await _drain(changes)
    with pytest.raises(trio.EndOfChannel):
        await changes.receive()
    with pytest.raises(trio.ClosedResourceError):
        await database.read(parts)
    with pytest.raises(trio.ClosedResourceError):
        await database.write(parts)
    with pytest.raises(trio.ClosedResourceError):
        database.subscribe()


async def test_the_blocks_own_exception_comes_out_as_it_went_in(database_url: str) -> None:
    with pytest.raises(LookupError, match="mine"):
        async with open_database(database_url, migrations=TABLES):
            raise LookupError("mine")


@pytest.mark.parametrize("url", ["", "mysql://u:hunter2@host/db", "sqlite:///x", ":memory:"])
async def test_an_unknown_kind_of_store_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ValueError, match="a store is a") as caught:
        async with open_database(url, migrations=TABLES):
            pass
    assert "hunter2" not in str(caught.value)
