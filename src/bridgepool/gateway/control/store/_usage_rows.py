"""Usage records in the store: each kept once, summed in the database, forgotten after a while.

They are written by gateways, many at a time, and make no revision. What a gateway sends is cut to
what a column holds: one odd value must not keep a gateway from getting rid of its records.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from math import isnan
from typing import Final

import attrs

from bridgepool._printable import printable
from bridgepool.gateway.control._usage import (
    GROUPINGS,
    MAX_SUMS,
    UsageFilter,
    UsagePage,
    UsageReport,
    UsageSum,
)
from bridgepool.gateway.control.database import Codec, Row, Table, Value
from bridgepool.gateway.control.store._programs import Run
from bridgepool.gateway.control.store._transaction import StoreTransaction
from bridgepool.gateway.usage._records import UsageRecord
from bridgepool.gateway.usage._tokens import Tokens

_LONGEST: Final = 256  # characters of a text
_HIGHEST: Final = 10**10  # of a number, so that no sum exceeds what a database counts to
_MOST: Final = 1000  # records of a page
_MOST_COSTS: Final = 10 * MAX_SUMS  # each sum may have costs in some currencies
_BILLION: Final = 10**9
_HIGHEST_COST: Final = 10**6  # of one request, in its currency
_AHEAD: Final = timedelta(days=7)  # a record of a later time would be kept that much longer
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")
_MODEL: Final = "CASE WHEN answered_model <> '' THEN answered_model ELSE model END"
# field of `UsageSum` -> what is summed
_COUNTED: Final = {
    "requests": "1",
    "refused": "CASE WHEN outcome = 'refused' THEN 1 ELSE 0 END",
    "unpriced": "CASE WHEN cost IS NULL THEN 1 ELSE 0 END",
    "complete": "complete",
    "priced_as_unknown": "priced_as_unknown",
    **{f"{kind}_tokens": f"{kind}_tokens" for kind in Tokens._fields},
}
# In two parts, since the sum of the billionths may be more than a database counts to.
_COSTS: Final = ", ".join(
    f"CAST(SUM(cost {operator} {_BILLION}) AS BIGINT)" for operator in ("/", "%")
)
_EXPRESSIONS: Final = {name: name for name in GROUPINGS} | {
    "day": "SUBSTR(time, 1, 10)",
    "model": _MODEL,
}
_DURATION: Final = Codec(
    lambda ms: None if ms is None else round(ms * 1000),
    lambda us: None if us is None else us / 1000,
)
_COST: Final = Codec(
    lambda cost: None if cost is None else round(cost * _BILLION),
    lambda billionths: None if billionths is None else billionths / _BILLION,
)
_USAGE: Final = Table(
    "usage",
    UsageRecord,
    codecs={
        "tools": Codec(json.dumps, lambda text: tuple(json.loads(text))),
        "cost": _COST,
        "first_byte_ms": _DURATION,
        "duration_ms": _DURATION,
    },
)


@attrs.frozen
class StoredUsage:
    """The usage records of a store; see `Store.usage`. Every method is a checkpoint."""

    _read: Run
    _write: Run

    async def add(self, gateway: str, records: Iterable[UsageRecord]) -> int:
        """Keep records of a gateway, each once, whatever its id was sent before.

        Returns:
            How many of them are new.
        """
        return await self._write(_add, gateway, tuple(records))

    async def sums(self, by: Iterable[str], which: UsageFilter) -> UsageReport:
        """Sum the records that a filter admits, by some of `GROUPINGS`."""
        return await self._read(_sums, frozenset(by), which)

    async def page(self, limit: int, before: str | None, which: UsageFilter) -> UsagePage:
        """Return records that a filter admits, the newest first.

        Args:
            limit: At most so many, at most 1,000.
            before: Only those with a lower id: the last one's of the page before.
            which: The filter.
        """
        found = await self._read(_page, limit, before, which)
        full = len(found) == limit > 0
        return UsagePage(found, found[-1].id if full else None)

    async def has(self, record_id: str) -> bool:
        """Return whether there is a record of this id."""
        return await self._read(_has, record_id)

    async def forget(self, before: str, *, limit: int = 5000) -> int:
        """Remove the records of the days before one, in small transactions; return how many.

        Args:
            before: The first day that stays, `YYYY-MM-DD` in UTC.
            limit: The most that one transaction removes.
        """
        removed = 0
        while True:
            found = await self._write(_forget, before, limit)
            removed += found
            if found < limit:
                return removed


def _add(tx: StoreTransaction, gateway: str, records: Iterable[UsageRecord]) -> int:
    """Keep records of a gateway; one that is there already stays. Returns how many were new."""
    return sum(_USAGE.insert_new(tx.sql, _sound(one, gateway, tx.now)) for one in records)


def _sound(record: UsageRecord, gateway: str, now: datetime) -> UsageRecord:
    """Return a record as columns hold it, and screens show it."""
    values: dict[str, object] = {}
    for name, value in attrs.asdict(record, recurse=False).items():
        if isinstance(value, str):
            values[name] = printable(value, _LONGEST)
        elif isinstance(value, tuple):
            values[name] = tuple(printable(str(one), _LONGEST) for one in value[:64])
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            values[name] = 0 if isnan(value) else min(max(value, 0), _HIGHEST)
    values["gateway"] = gateway
    if record.cost is not None and not (0 <= record.cost <= _HIGHEST_COST and record.currency):
        values["cost"], values["currency"] = None, ""
    if not _TIME.fullmatch(record.time) or record.time > _text(now + _AHEAD):
        values["time"] = _text(now)
    return attrs.evolve(record, **values)  # type: ignore[arg-type]  # each of its field's type


def _text(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _sums(tx: StoreTransaction, by: frozenset[str], which: UsageFilter) -> UsageReport:
    """Sum records, by what `by` names."""
    names = [name for name in GROUPINGS if name in by]
    groups = [_EXPRESSIONS[name] for name in names]
    where, values = _conditions(which)
    counted = ", ".join(f"CAST(COALESCE(SUM({one}), 0) AS BIGINT)" for one in _COUNTED.values())
    rows = tx.sql.fetch_all(_grouped(groups, counted, where), *values, MAX_SUMS + 1)
    costs: dict[Row, dict[str, float]] = {}
    priced = f"{where} AND cost IS NOT NULL" if where else " WHERE cost IS NOT NULL"
    statement = _grouped([*groups, "currency"], _COSTS, priced)
    sums = tx.sql.fetch_all(statement, *values, _MOST_COSTS + 1)
    for *group, currency, whole, billionths in sums[:_MOST_COSTS]:
        costs.setdefault(tuple(group), {})[str(currency)] = whole + billionths / _BILLION
    found = tuple(
        UsageSum(
            **dict(zip((*names, *_COUNTED), row, strict=True)),
            costs=costs.get(row[: len(names)], {}),
        )
        for row in rows[:MAX_SUMS]
    )
    return UsageReport(found, len(rows) > MAX_SUMS or len(sums) > _MOST_COSTS)


def _grouped(groups: list[str], sums: str, where: str) -> str:
    """Return a query for sums by groups, in their order, up to a number of them."""
    by = ", ".join(groups)
    clauses = f" GROUP BY {by} ORDER BY {by}" if groups else ""
    return f"SELECT {', '.join([*groups, sums])} FROM usage{where}{clauses} LIMIT ?"  # noqa: S608 -- names of ours


def _page(
    tx: StoreTransaction, limit: int, before: str | None, which: UsageFilter
) -> tuple[UsageRecord, ...]:
    """Return records, the newest first."""
    where, values = _conditions(which, before)
    clauses = f"{where} ORDER BY id DESC LIMIT ?"
    return tuple(_USAGE.select(tx.sql, clauses, *values, max(0, min(limit, _MOST))))


def _has(tx: StoreTransaction, record_id: str) -> bool:
    return bool(tx.sql.fetch_all("SELECT 1 FROM usage WHERE id = ?", record_id))


def _conditions(which: UsageFilter, before: str | None = None) -> tuple[str, list[Value]]:
    conditions: dict[str, str | None] = {
        "time >= ?": which.get("since"),
        "time < ?": which.get("until"),
        "client = ?": which.get("client"),
        "provider = ?": which.get("provider"),
        f"{_MODEL} = ?": which.get("model"),
        "gateway = ?": which.get("gateway"),
        "session = ?": which.get("session"),
        "id < ?": before,
    }
    given = {condition: value for condition, value in conditions.items() if value is not None}
    where = f" WHERE {' AND '.join(given)}" if given else ""
    return where, list(given.values())


def _forget(tx: StoreTransaction, before: str, limit: int) -> int:
    """Remove records of days before one, at most so many; return how many."""
    return tx.sql.execute(
        "DELETE FROM usage WHERE id IN (SELECT id FROM usage WHERE time < ? LIMIT ?)",
        before,
        limit,
    )
