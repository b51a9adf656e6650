"""The options of pools, singleflights and watchers, checked when they are given."""

from math import inf, isnan
from typing import Any

import attrs


def _seconds(instance: object, attribute: "attrs.Attribute[float]", value: float) -> None:
    if isnan(value) or value < 0:
        raise ValueError(f"{attribute.name} must be 0 or more seconds, not {value!r}")


def _positive_seconds(instance: object, attribute: "attrs.Attribute[float]", value: float) -> None:
    if isnan(value) or value <= 0:
        raise ValueError(f"{attribute.name} must be more than 0 seconds, not {value!r}")


def _count(instance: object, attribute: "attrs.Attribute[Any]", value: float) -> None:
    if value != inf and (value != int(value) or value < 1):
        raise ValueError(f"{attribute.name} must be a whole number from 1 up, not {value!r}")


def _moves(instance: object, attribute: "attrs.Attribute[int]", value: int) -> None:
    if value < 0:
        raise ValueError(f"{attribute.name} must be 0 or more, not {value!r}")


@attrs.frozen(kw_only=True)
class FlightOptions:
    """What `open_singleflight` takes; its docstring explains each."""

    abandon_grace: float = attrs.field(default=2.0, validator=_seconds)
    build_timeout: float = attrs.field(default=inf, validator=_positive_seconds)


@attrs.frozen(kw_only=True)
class PoolOptions:
    """What `open_bridge_pool` takes; its docstring explains each."""

    max_items: float = attrs.field(default=5000, validator=_count)
    max_live: float = attrs.field(default=inf, validator=_count)
    max_concurrent_builds: float = attrs.field(default=inf, validator=_count)
    max_rebuilds: int = attrs.field(default=3, validator=_moves)
    ttl: float = attrs.field(default=900.0, validator=_positive_seconds)
    refresh_ahead: float = attrs.field(default=0.0, validator=_seconds)
    build_timeout: float = attrs.field(default=30.0, validator=_positive_seconds)
    abandon_grace: float = attrs.field(default=2.0, validator=_seconds)
    retry_after_error: float = attrs.field(default=0.0, validator=_seconds)
    drain_timeout: float = attrs.field(default=600.0, validator=_seconds)
    shutdown_timeout: float = attrs.field(default=30.0, validator=_seconds)
    close_timeout: float = attrs.field(default=5.0, validator=_seconds)

    @property
    def reap_period(self) -> float:
        """Within how many seconds after it is due an idle bridge is closed, at the latest."""
        return min(5.0, self.ttl / 10)


@attrs.frozen(kw_only=True)
class WatchOptions:
    """What `watch_providers` takes; its docstring explains each."""

    poll_interval: float = attrs.field(default=300.0, validator=_positive_seconds)
    reload_timeout: float = attrs.field(default=30.0, validator=_positive_seconds)
    min_interval: float = attrs.field(default=0.1, validator=_positive_seconds)
    retry_delay: float = attrs.field(default=0.1, validator=_positive_seconds)
    max_retry_delay: float = attrs.field(default=30.0, validator=_positive_seconds)
