"""Tables whose columns are the fields of an attrs class, on both engines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone

import attrs
import pytest

from bridgepool.gateway.control.database import Codec, Database, Table, Transaction, open_database

_SCHEMA = (
    (
        "CREATE TABLE notes (id TEXT PRIMARY KEY, position BIGINT NOT NULL, done INTEGER NOT NULL, "
        "made TEXT NOT NULL, ended TEXT, words TEXT NOT NULL)",
    ),
)
_NOON = datetime(2026, 1, 1, 12, 0, 0, 5, tzinfo=UTC)


@attrs.frozen(kw_only=True)
class Note:
    """A row."""

    id: str
    position: int
    done: bool = False
    made: datetime = _NOON
    ended: datetime | None = None
    words: tuple[str, ...] = ()


_NOTES = Table("notes", Note, codecs={"words": Codec(" ".join, lambda text: tuple(text.split()))})


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url, _SCHEMA) as database:
        yield database


async def test_a_row_comes_back_as_it_was_written(database: Database) -> None:
    rows = [
        Note(id="a", position=1, done=True, ended=_NOON, words=("é", "?")),
        Note(id="b", position=2, made=_NOON.astimezone(timezone(timedelta(hours=2)))),
    ]

    def write(tx: Transaction) -> None:
        for row in rows:
            _NOTES.insert(tx, row)

    await database.write(write)
    assert await database.read(lambda tx: _NOTES.select(tx, "ORDER BY position")) == rows
    assert await database.read(lambda tx: _NOTES.find(tx, "WHERE done = ?", False)) == rows[1]
    assert await database.read(lambda tx: _NOTES.find(tx, "WHERE id = ?", "c")) is None


async def test_an_update_changes_the_row_of_that_key_alone(database: Database) -> None:
    def write(tx: Transaction) -> list[Note]:
        for position, name in enumerate("ab"):
            _NOTES.insert(tx, Note(id=name, position=position))
        _NOTES.update(tx, Note(id="a", position=7, words=("new",)))
        return _NOTES.select(tx, "ORDER BY position")

    assert await database.write(write) == [
        Note(id="b", position=1),
        Note(id="a", position=7, words=("new",)),
    ]


async def test_an_upsert_changes_the_present_row_only_under_its_condition(
    database: Database,
) -> None:
    def write(tx: Transaction) -> list[int]:
        found = []
        for position in (5, 3, 8):
            row = Note(id="a", position=position)
            _NOTES.upsert(tx, row, condition="notes.position < excluded.position")
            found.append(_NOTES.select(tx)[0].position)
        _NOTES.upsert(tx, Note(id="a", position=1))
        return [*found, _NOTES.select(tx)[0].position]

    assert await database.write(write) == [5, 5, 8, 1]


async def test_the_next_number_is_above_all_others(database: Database) -> None:
    def write(tx: Transaction) -> tuple[int, int]:
        first = _NOTES.next(tx)
        _NOTES.insert(tx, Note(id="a", position=41))
        return first, _NOTES.next(tx)

    assert await database.write(write) == (1, 42)
