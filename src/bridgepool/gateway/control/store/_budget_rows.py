"""What was drawn of clients' budgets: a row for each budget and day or month.

Control planes draw many at a time, in one transaction; it makes no revision. What is drawn counts
as spent until it is given back. A row that has less than a control plane has seen in it was
restored from a backup, and is set right by the next draw.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Final

import attrs

from bridgepool.gateway.control._records import BudgetView, ClientView
from bridgepool.gateway.control.store._programs import Run
from bridgepool.gateway.control.store._store import Store
from bridgepool.gateway.control.store._transaction import PROGRAM, StoreTransaction
from bridgepool.gateway.limits._budgets import period_end, period_start
from bridgepool.gateway.limits._draws import UNITS, Draw, Drawn
from bridgepool.gateway.limits._kinds import BUDGETS

_HIGHEST: Final = 2**63 - 1
_KEPT_FOR: Final = 7 * 86400  # seconds after its end; a clock may be set back


@attrs.frozen
class StoredBudgets:
    """The budgets of a store. Every method is a checkpoint."""

    _read: Run
    _write: Run

    async def list_of(self, client: ClientView) -> tuple[BudgetView, ...]:
        """Return what is spent and left of the budgets of a client and its keys."""
        return await self._read(_list_of, client)

    async def draw(self, draws: Iterable[Draw]) -> tuple[Drawn, ...]:
        """Draw what is left, and return how much that was, in the order of the draws."""
        return await self._write(_draw_all, tuple(draws))

    async def forget_old(self) -> int:
        """Remove the rows of days and months that ended long ago; return how many."""
        return await self._write(_forget_old)


def budgets_of(store: Store) -> StoredBudgets:
    """Return the budgets of a store."""
    return StoredBudgets(store._read, partial(store._write, PROGRAM))


def _list_of(tx: StoreTransaction, client: ClientView) -> tuple[BudgetView, ...]:
    return tuple(_views(tx, client))


def _views(tx: StoreTransaction, client: ClientView) -> Iterator[BudgetView]:
    now = tx.now.timestamp()
    scopes = [("client", client.id, client.rules)]
    scopes += [("key", key.id, key.rules) for key in client.keys]
    for scope, name, rules in scopes:
        for rule, (_unit, period) in BUDGETS.items():
            limit = getattr(rules, rule)
            if limit is None:
                continue
            row = tx.sql.fetch_one(
                "SELECT spent, until FROM budgets WHERE scope = ? AND id = ? AND rule = ? "
                "AND period >= ? ORDER BY period DESC LIMIT 1",
                scope,
                name,
                rule,
                int(period_start(period, now)),
            )
            units, ends = row if row is not None else (0, period_end(period, now))
            spent = units / UNITS
            yield BudgetView(
                scope=scope,
                id=name,
                rule=rule,
                limit=limit,
                spent=spent,
                remaining=max(0.0, round(limit - spent, 6)),
                ends=datetime.fromtimestamp(ends, UTC),
            )


def _draw_all(tx: StoreTransaction, draws: tuple[Draw, ...]) -> tuple[Drawn, ...]:
    return tuple(_draw(tx, draw) for draw in draws)


def _draw(tx: StoreTransaction, draw: Draw) -> Drawn:
    key = (int(draw.period), draw.scope, draw.id, draw.rule)
    row = tx.sql.fetch_one(
        "SELECT spent FROM budgets WHERE period = ? AND scope = ? AND id = ? AND rule = ?", *key
    )
    drawn = draw.take_from(row[0] / UNITS if row is not None else 0.0)
    tx.sql.execute(
        "INSERT INTO budgets (period, scope, id, rule, until, spent) VALUES (?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (period, scope, id, rule) DO UPDATE SET spent = excluded.spent",
        *key,
        int(draw.until),
        min(round(drawn.spent * UNITS), _HIGHEST),
    )
    return drawn


def _forget_old(tx: StoreTransaction) -> int:
    before = int(tx.now.timestamp()) - _KEPT_FOR
    return tx.sql.execute("DELETE FROM budgets WHERE until < ?", before)
