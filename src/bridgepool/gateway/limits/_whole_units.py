"""How units that cannot be divided are given by demand, such as requests at a time. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from bridgepool.gateway.limits._budgets import ROUNDING

_STAYS: Final = 1 / 3  # of a unit, for the one that has it


def divide_units(units: int, asking: Sequence[tuple[float, float]]) -> list[int]:
    """Return how many of some units each gets: by demand, the largest remainders first.

    One that has a unit keeps it unless the demand elsewhere is much larger: while a unit moves,
    nobody can use it.

    Args:
        units: The units.
        asking: The demand of each, and what it has.
    """
    demand = sum(each for each, _ in asking)
    if demand <= 0:
        return [0] * len(asking)
    parts = [units * each / demand + ROUNDING for each, _ in asking]
    given = [math.floor(part) for part in parts]
    claims = [
        part % 1 + _STAYS * (held > part) for part, (_, held) in zip(parts, asking, strict=True)
    ]
    first = sorted(range(len(asking)), key=claims.__getitem__, reverse=True)
    for place in first[: units - sum(given)]:
        given[place] += 1
    return given
