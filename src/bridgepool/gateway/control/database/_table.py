"""A table whose columns are the fields of an attrs class: statements and decoding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar, final

import attrs

from bridgepool.gateway.control.database._database import Row, Transaction, Value

R = TypeVar("R", bound=attrs.AttrsInstance)


@attrs.frozen
class Codec:
    """How a field is kept in a column."""

    encode: Callable[[Any], Value]
    decode: Callable[[Any], object]


def time_to_text(moment: datetime) -> str:
    """Return a time as a column holds it; in this form texts sort as times do."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


_TIME: Final = Codec(time_to_text, datetime.fromisoformat)
# By the type of a field; those of other types are columns as they are.
_CODECS: Final[Mapping[object, Codec]] = MappingProxyType(
    {
        bool: Codec(int, bool),
        datetime: _TIME,
        datetime | None: Codec(
            lambda moment: None if moment is None else time_to_text(moment),
            lambda text: None if text is None else datetime.fromisoformat(text),
        ),
    }
)


@final
class Table(Generic[R]):
    """A table.

    Args:
        name: Its name.
        row: The attrs class of its rows. Its fields are the columns; a ``bool`` and a
            ``datetime`` are converted.
        key: The column of its primary key.
        codecs: How fields of other types are kept.
    """

    def __init__(
        self,
        name: str,
        row: type[R],
        *,
        key: str = "id",
        codecs: Mapping[str, Codec] = MappingProxyType({}),
    ) -> None:
        # Resolved here, since types of the row may be names of its module.
        fields = attrs.fields(attrs.resolve_types(row))
        names = [field.name for field in fields]
        others = [column for column in names if column != key]
        columns, marks = ", ".join(names), ", ".join("?" for _ in names)
        excluded = ", ".join(f"{column} = excluded.{column}" for column in others)
        assignments = ", ".join(f"{column} = ?" for column in others)
        # All of these are names in our own code.
        self.name = name
        self._row = row
        self._names = names
        self._key = key
        found = {field.name: codecs.get(field.name) or _CODECS.get(field.type) for field in fields}
        self._codecs = [(column, codec) for column, codec in found.items() if codec is not None]
        self._select = f"SELECT {columns} FROM {name}"  # noqa: S608 -- names of tables and columns of ours
        self._insert = f"INSERT INTO {name} ({columns}) VALUES ({marks})"  # noqa: S608 -- names of tables and columns of ours
        self._on_conflict = f"ON CONFLICT ({key}) DO UPDATE SET {excluded}"
        self._update = f"UPDATE {name} SET {assignments} WHERE {key} = ?"  # noqa: S608 -- names of tables and columns of ours

    def select(self, tx: Transaction, clauses: str = "", *args: Value) -> list[R]:
        """Return rows.

        Args:
            tx: The transaction.
            clauses: What follows the table, such as ``WHERE name = ? ORDER BY position``.
            args: Their arguments.
        """
        return [self._decode(row) for row in tx.fetch_all(f"{self._select} {clauses}", *args)]

    def find(self, tx: Transaction, clauses: str, *args: Value) -> R | None:
        """Return the first of the rows that `select` would return, None if there is none."""
        row = tx.fetch_one(f"{self._select} {clauses}", *args)
        return self._decode(row) if row is not None else None

    def insert(self, tx: Transaction, row: R) -> None:
        """Add a row."""
        tx.execute(self._insert, *self._encode(row).values())

    def insert_new(self, tx: Transaction, row: R) -> bool:
        """Add a row, unless there is one with its key; return whether it was added."""
        statement = f"{self._insert} ON CONFLICT ({self._key}) DO NOTHING"
        return tx.execute(statement, *self._encode(row).values()) == 1

    def upsert(self, tx: Transaction, row: R, *, condition: str = "1 = 1") -> None:
        """Add a row, or change the one with its key.

        Args:
            tx: The transaction.
            row: The row.
            condition: Change the present row only if this holds; ``excluded`` is the new one.
        """
        statement = f"{self._insert} {self._on_conflict} WHERE {condition}"
        tx.execute(statement, *self._encode(row).values())

    def update(self, tx: Transaction, row: R) -> None:
        """Change the row with the key of this one."""
        values = self._encode(row)
        key = values.pop(self._key)
        tx.execute(self._update, *values.values(), key)

    def next(self, tx: Transaction, column: str = "position") -> int:
        """Return a number above all of a column. Writers are serialized, so it is unused."""
        [(highest,)] = tx.fetch_all(f"SELECT MAX({column}) FROM {self.name}")  # noqa: S608 -- names of tables and columns of ours
        return (highest or 0) + 1

    def _decode(self, row: Row) -> R:
        values = dict(zip(self._names, row, strict=True))
        for column, codec in self._codecs:
            values[column] = codec.decode(values[column])
        return self._row(**values)

    def _encode(self, row: R) -> dict[str, Value]:
        values = {column: getattr(row, column) for column in self._names}
        for column, codec in self._codecs:
            values[column] = codec.encode(values[column])
        return values
