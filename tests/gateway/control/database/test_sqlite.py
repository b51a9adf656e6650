"""What can befall a store's SQLite file, and that it is said so that one knows what to do."""

import resource
import shutil
import signal
import sqlite3
import stat
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from bridgepool.gateway.control._errors import StoreUnavailableError
from bridgepool.gateway.control.database import Database, open_database
from tests.gateway.control.database.child import TABLES, increment, open_child, parts


def _move(path: Path, name: str) -> Path:
    return path.replace(path.with_name(name))


def _content(path: Path) -> bytes:
    return path.read_bytes()


def _fill(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _modes(path: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
async def database(path: Path) -> AsyncIterator[Database]:
    async with open_database(str(path), migrations=TABLES) as opened:
        yield opened


async def test_a_new_store_is_reported_so_that_a_mistyped_name_is_seen(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for expected in ([str(path)], []):
        caplog.clear()
        async with open_database(str(path), migrations=TABLES):
            pass
        event = "created a new, empty store"
        lines = [line.__dict__ for line in caplog.records if line.getMessage() == event]
        assert [line["store"] for line in lines] == expected


async def test_its_files_are_for_its_owner_only(database: Database, path: Path) -> None:
    await database.write(increment)
    names = ("store.db", "store.db-seed", "store.db-shm", "store.db-wal")
    assert _modes(path) == dict.fromkeys(names, 0o600)


async def test_commits_are_synced_and_readers_never_wait(database: Database) -> None:
    async def ask(what: str) -> list[object]:
        rows = [
            await run(lambda tx: (parts(tx), tx.fetch_one(f"PRAGMA {what}"))[1])
            for run in (database.read, database.write)
        ]
        return [row[0] for row in rows if row is not None]

    assert await ask("journal_mode") == ["wal", "wal"]
    assert await ask("synchronous") == [2, 2]
    assert await ask("foreign_keys") == [1, 1]


async def test_a_file_that_was_moved_is_missed_and_good_again_when_it_is_back(
    database: Database, path: Path
) -> None:
    await database.write(increment)
    moved = _move(path, "moved.db")
    for run in (database.read, database.write, partial(database.write, seeding=True)):
        with pytest.raises(StoreUnavailableError, match=r"was not found .*; put it back$"):
            await run(parts)  # a restart, as it was advised once, begins with an empty store
    _move(moved, path.name)
    await database.write(increment)
    assert await database.read(lambda tx: tx.fetch_one("SELECT n FROM counter")) == (2,)


async def test_a_file_put_in_its_place_is_not_taken_for_it(database: Database, path: Path) -> None:
    await database.write(increment)
    _move(Path(shutil.copy(path, path.with_name("copy.db"))), path.name)
    with pytest.raises(
        StoreUnavailableError, match=r"if that is a backup .*, restart to use it, else put"
    ):
        await database.write(increment)


async def test_a_damaged_file_is_said_to_be_damaged(path: Path) -> None:
    async with open_database(str(path), migrations=TABLES) as database:
        await database.write(increment)
    content = _content(path)
    _fill(path, content[:100] + b"\x55" * (len(content) - 100))
    with pytest.raises(StoreUnavailableError, match="damaged"):
        async with open_database(str(path), migrations=TABLES):
            pass


async def test_a_file_of_another_kind_is_refused(path: Path) -> None:
    _fill(path, b"providers:\n  - name: openai\n" * 100)
    with pytest.raises(StoreUnavailableError, match="not an SQLite file"):
        async with open_database(str(path), migrations=TABLES):
            pass


async def test_another_programs_database_is_refused_and_left_as_it_is(path: Path) -> None:
    with sqlite3.connect(path) as theirs:
        theirs.execute("CREATE TABLE theirs (n INTEGER)")
    theirs.close()
    before = _content(path)
    with pytest.raises(StoreUnavailableError, match="another program"):
        async with open_database(str(path), migrations=TABLES):
            pass
    assert _content(path) == before


@pytest.mark.parametrize("name", ["no folder/store.db", "."])
async def test_a_file_that_cannot_be_made_is_said(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreUnavailableError, match=r"No such file|Is a directory"):
        async with open_database(str(tmp_path / name), migrations=TABLES):
            pass


async def test_a_full_disk_is_said_and_the_store_lives_on(database: Database, path: Path) -> None:
    """The limit on the size of files stands in for the disk: the same error from the system."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with pytest.raises(StoreUnavailableError, match="disk"):
            await database.write(
                lambda tx: [
                    tx.execute("CREATE TABLE big (data BLOB)"),
                    *(tx.execute("INSERT INTO big VALUES (zeroblob(100000))") for _ in range(100)),
                ]
            )
        assert await database.read(parts) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    await database.write(increment)
    assert await database.read(lambda tx: tx.fetch_one("SELECT n FROM counter")) == (1,)


async def test_watching_goes_on_when_the_file_is_back(
    database: Database, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with trio.fail_after(60), database.subscribe() as changes:
        moved = _move(path, "moved.db")
        while "notices of other processes unavailable" not in caplog.text:  # noqa: ASYNC110 -- a log line has no event
            await trio.sleep(0.01)
        _move(moved, path.name)
        async with open_child(str(path), "increment") as child:
            await changes.receive()
            assert await child.hear_to_the_end() == ["done"]
    assert caplog.text.count("notices of other processes unavailable") == 1


async def test_nobody_polls_while_nobody_listens(
    mock_clock: trio.testing.MockClock, database: Database
) -> None:
    before = trio.lowlevel.current_statistics().tasks_living

    async def pass_time() -> None:
        for _ in range(5):
            mock_clock.jump(0.3)
            await database.read(parts)  # a thread has run meanwhile, as one of a poll would
            await trio.testing.wait_all_tasks_blocked()

    async def is_polled() -> bool:
        for _ in range(100):  # it has no deadline while a thread of a poll runs
            if trio.lowlevel.current_statistics().seconds_to_next_deadline < 1:
                return True
            await database.read(parts)
        return False

    with database.subscribe():
        await pass_time()
        assert await is_polled()
    await pass_time()
    statistics = trio.lowlevel.current_statistics()
    assert statistics.tasks_living == before
    assert statistics.seconds_to_next_deadline > 1
