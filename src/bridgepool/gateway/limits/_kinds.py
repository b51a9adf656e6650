"""The rules that limit how much is used, by kind."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from bridgepool.gateway.limits._budgets import Period

Unit: TypeAlias = Literal["tokens", "money"]

BUDGETS: Final[dict[str, tuple[Unit, Period]]] = {
    "tokens_per_day": ("tokens", "day"),
    "tokens_per_month": ("tokens", "month"),
    "money_per_day": ("money", "day"),
    "money_per_month": ("money", "month"),
}
"""What each budget counts, and for how long."""
RATES: Final = ("requests_per_minute", "tokens_per_minute")
LIMITS: Final = ("max_concurrent", *RATES, *BUDGETS)
WHOLE_UNITS: Final = frozenset(("max_concurrent", "requests_per_minute"))
"""The limits of which there is no part of one."""
