"""The statistics of a pool, and how statistics become JSON."""

import enum
from collections.abc import Mapping
from math import isfinite
from typing import TYPE_CHECKING, TypeAlias

import attrs

from ._ledger import ReplaceOutcome, RetireReason

if TYPE_CHECKING:
    from attr import AttrsInstance

JSON: TypeAlias = bool | int | float | str | list["JSON"] | dict[str, "JSON"] | None
"""What `json.dumps` takes."""


def as_json(statistics: "AttrsInstance", **more: object) -> dict[str, JSON]:
    """Return the fields of `statistics`, and `more`, as JSON can hold them.

    An enum is its value, also as a key; a number that is not finite is None.
    """
    fields = {f.name: getattr(statistics, f.name) for f in attrs.fields(type(statistics))}
    return {name: _as_json(value) for name, value in (fields | more).items()}


def _as_json(value: object) -> JSON:
    if isinstance(value, Mapping):
        return {str(_as_json(key)): _as_json(item) for key, item in value.items()}
    if isinstance(value, enum.Enum):
        return _as_json(value.value)
    if isinstance(value, float) and not isfinite(value):
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{type(value).__name__} has no form in JSON")


class BuildOutcome(enum.Enum):
    """How a build ended."""

    OK = "ok"
    """Its bridge was listed."""
    FAILED = "failed"
    """It raised."""
    TIMED_OUT = "timed out"
    """It was cancelled after `build_timeout`."""
    ABANDONED = "abandoned"
    """Nobody waited for it any more, or the pool was left."""
    OVERTAKEN = "overtaken"
    """The providers were replaced before it ended."""


@attrs.frozen(kw_only=True)
class PoolStatistics:
    """The state of a pool at one moment, and its counts since it was opened.

    Counts only ever grow. Taking one is cheap and resets nothing.
    """

    generation: int
    """The number of the snapshot in force."""
    listed: int
    """Bridges that an acquire can find."""
    leased: int
    """Leases held now, over all bridges."""
    draining: int
    """Bridges that are retired and not closed yet."""
    building: int
    """Builds that run now, and bridges built too late that are being closed unused."""
    queued: int
    """Builds that wait for their turn, under `max_concurrent_builds` or `max_live`."""
    waiting: int
    """Callers that wait for a build."""
    hits: int
    """Leases given out on a bridge that was found at once."""
    misses: int
    """Acquires that had to start a build."""
    joins: int
    """Acquires that joined a build under way."""
    rebuilds: int
    """Times that a waiting caller was moved on, because its build was overtaken."""
    builds: Mapping[BuildOutcome, int]
    """Builds that ended, by how."""
    build_seconds: float
    """Seconds spent in the builds that ended, waiting for their turn not counted."""
    retired: Mapping[RetireReason, int]
    """Bridges that stopped being listed, by why."""
    forced_closes: int
    """Bridges closed under a lease, because a drain deadline had passed."""
    close_overruns: int
    """Bridges whose close was cancelled after `close_timeout`."""
    close_failures: int
    """Bridges whose close raised."""
    replacements: Mapping[ReplaceOutcome, int]
    """Calls of `replace_providers`, by outcome."""

    def as_dict(self) -> dict[str, JSON]:
        """Return all fields as `json.dumps` takes them; enums by their values."""
        return as_json(self)
