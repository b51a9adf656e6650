"""Real processes at one database, on both engines: seeds, writers, notices, migrations."""

# ruff: noqa: SIM117 -- the child is a part of the story, not of its frame

from contextlib import AsyncExitStack

import pytest
import trio

from bridgepool.gateway.control._errors import NewerSchemaError
from bridgepool.gateway.control.database import Row, Transaction, open_database
from tests.gateway.control.database.child import TABLES, increment, open_child, parts


def _versions(tx: Transaction) -> list[Row]:
    return tx.fetch_all("SELECT version FROM schema_versions")


@pytest.mark.parametrize("action", ["seed-if-empty", "increment"])
async def test_of_processes_that_start_together_each_step_is_made_once(
    database_url: str, action: str
) -> None:
    with trio.fail_after(180):
        async with AsyncExitStack() as stack:
            children = [await stack.enter_async_context(open_child(database_url, action))
                        for _ in range(4)]  # fmt: skip
            for child in children:
                assert await child.hear_to_the_end() == ["done"]
                assert child.process.returncode == 0
        async with open_database(database_url, migrations=TABLES) as database:
            versions = await database.read(_versions)
            assert sorted(versions) == [(1,), (2,)]
            assert await database.read(parts) == (2 if action == "seed-if-empty" else 0)
            row = await database.read(lambda tx: tx.fetch_one("SELECT n FROM counter"))
            assert row == (200 if action == "increment" else 0,)


async def test_a_reader_that_comes_during_a_seed_waits_and_sees_all_of_it(
    database_url: str,
) -> None:
    with trio.fail_after(180):
        async with open_database(database_url, migrations=TABLES) as database:
            async with open_child(database_url, "seed") as seeder:
                assert await seeder.hear() == "half"
                async with AsyncExitStack() as stack:
                    readers = [await stack.enter_async_context(open_child(database_url, "read"))
                               for _ in range(2)]  # fmt: skip
                    for reader in readers:
                        assert await reader.hear() == "opening"
                    with trio.move_on_after(0.2) as scope:
                        await database.read(parts)
                    assert scope.cancelled_caught
                    for reader in readers:
                        assert reader.process.poll() is None
                    await seeder.go_on()
                    assert await seeder.hear_to_the_end() == ["done"]
                    assert await database.read(parts) == 2
                    for reader in readers:
                        assert await reader.hear_to_the_end() == ["reading", "2", "done"]


async def test_a_writer_keeps_no_reader_waiting(database_url: str) -> None:
    with trio.fail_after(90):
        async with open_database(database_url, migrations=TABLES) as database:
            async with open_child(database_url, "write") as writer:
                assert await writer.hear() == "half"
                assert await database.read(parts) == 0
                await writer.go_on()
                assert await writer.hear_to_the_end() == ["done"]
            assert await database.read(parts) == 2


@pytest.mark.parametrize("action", ["seed", "write"])
async def test_what_a_killed_process_held_is_free(database_url: str, action: str) -> None:
    with trio.fail_after(90):
        async with open_database(database_url, migrations=TABLES) as database:
            async with open_child(database_url, action) as child:
                assert await child.hear() == "half"
                child.process.kill()
                assert await database.read(parts) == 0
                await database.write(increment)


async def test_a_change_is_noticed_in_another_process(database_url: str) -> None:
    with trio.fail_after(90):
        async with open_database(database_url, migrations=TABLES) as database:
            async with open_child(database_url, "listen") as child:
                assert await child.hear() == "listening"
                await database.write(increment)
                while await child.hear() != "1":
                    pass


async def test_a_newer_store_is_refused_and_left_as_it_is(database_url: str) -> None:
    with trio.fail_after(90):
        newer = (*TABLES, ("CREATE TABLE more (n INTEGER)",))
        async with open_database(database_url, migrations=newer):
            pass
        with pytest.raises(NewerSchemaError, match=r"version 3.* version 2"):
            async with open_database(database_url, migrations=TABLES):
                pass
        async with open_database(database_url, migrations=newer) as database:
            assert await database.read(lambda tx: tx.fetch_all("SELECT * FROM more")) == []


async def test_a_migration_that_fails_leaves_the_version_before(database_url: str) -> None:
    broken = (*TABLES, ("CREATE TABLE more (n INTEGER)", "NO SUCH STATEMENT"))
    with trio.fail_after(90):
        async with open_database(database_url, migrations=TABLES[:1]) as database:
            with pytest.raises(Exception, match="syntax error"):
                async with open_database(database_url, migrations=broken):
                    pass
            versions = await database.read(_versions)
            assert versions == [(1,)]
        async with open_database(database_url, migrations=TABLES) as database:
            assert await database.read(parts) == 0
