"""Which budgets of clients are spent, or nearly so: for `/status` and the metrics.

Nothing is kept for it while requests run: what clients have used is looked through when somebody
asks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import trio

from bridgepool.gateway.limits._budgets import BudgetUse
from bridgepool.gateway.limits._limiter import Limiter, Scope

MAX_BUDGETS: Final = 100
"""How many are listed."""
_AT_ONCE: Final = 500  # scopes between two checkpoints: some hundred microseconds


async def find_nearly_spent(limiter: Limiter[Scope]) -> list[BudgetUse]:
    """Return the budgets of which 80 % or more is spent, those with the largest part first.

    A checkpoint, and more of them if there are many clients.
    """
    scopes, found = list(limiter.scopes.items()), list[BudgetUse]()
    for start in range(0, len(scopes), _AT_ONCE):
        wall = limiter.wall()
        for (kind, name), scope in scopes[start : start + _AT_ONCE]:
            for rule, limit, spent, ends in scope.nearly_spent(wall):
                found.append(BudgetUse(kind, name, rule, limit, spent, ends))
        await trio.lowlevel.checkpoint()
    await trio.lowlevel.checkpoint()
    return sorted(found, key=lambda budget: budget.spent / budget.limit, reverse=True)


def budgets_document(found: Sequence[BudgetUse], *, in_memory: bool) -> Mapping[str, object]:
    """Return the part of `/status` about budgets.

    Args:
        found: Those of which little is left.
        in_memory: Whether they end with this process, or that of the control plane.
    """
    spent = sum(budget.is_spent for budget in found)
    return {
        "in_memory": in_memory,
        "spent": spent,
        "nearly_spent": len(found) - spent,
        "most_spent": [_document(budget) for budget in found[:MAX_BUDGETS]],
    }


def _document(budget: BudgetUse) -> Mapping[str, object]:
    ends = datetime.fromtimestamp(budget.ends, UTC)
    return {
        "scope": budget.scope,
        "id": budget.id,
        "rule": budget.rule,
        "limit": budget.limit,
        "spent": round(budget.spent, 6),
        "ends": f"{ends:%Y-%m-%dT%H:%M:%SZ}",
    }
