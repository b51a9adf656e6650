"""The options of pools, singleflights and watchers, and how options are checked."""

from math import inf, isnan
from typing import Any

import attrs


def _require_number(attribute: "attrs.Attribute[Any]", value: object) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(
            f"{attribute.name} must be a number, not the {type(value).__name__} {value!r}"
        )


def seconds(instance: object, attribute: "attrs.Attribute[float]", value: float) -> None:
    """Refuse what is not a duration; zero is one."""
    _require_number(attribute, value)
    if isnan(value) or value < 0:
        raise ValueError(f"{attribute.name} must be 0 or more seconds, not {value!r}")


def positive_seconds(instance: object, attribute: "attrs.Attribute[float]", value: float) -> None:
    """Refuse what is not a duration above zero."""
    _require_number(attribute, value)
    if isnan(value) or value <= 0:
        raise ValueError(f"{attribute.name} must be more than 0 seconds, not {value!r}")


def count(instance: object, attribute: "attrs.Attribute[Any]", value: float) -> None:
    """Refuse what is not a number of things; infinity is one."""
    _require_number(attribute, value)
    if value != inf and (isnan(value) or value < 1 or value != int(value)):
        raise ValueError(f"{attribute.name} must be a whole number from 1 up, not {value!r}")


def amount(instance: object, attribute: "attrs.Attribute[Any]", value: float) -> None:
    """Refuse what is not a number from zero up; infinity is one."""
    _require_number(attribute, value)
    if not value >= 0:  # also of nan
        raise ValueError(f"{attribute.name} must be 0 or more, not {value!r}")


@attrs.frozen(kw_only=True)
class FlightOptions:
    """What `open_singleflight` takes; its docstring explains each."""

    abandon_grace: float = attrs.field(default=2.0, validator=seconds)
    build_timeout: float = attrs.field(default=inf, validator=positive_seconds)


@attrs.frozen(kw_only=True)
class PoolOptions:
    """What `open_bridge_pool` takes; its docstring explains each."""

    max_items: float = attrs.field(default=5000, validator=count)
    max_live: float = attrs.field(default=inf, validator=count)
    max_concurrent_builds: float = attrs.field(default=inf, validator=count)
    max_rebuilds: int = attrs.field(default=3, validator=amount)
    ttl: float = attrs.field(default=900.0, validator=positive_seconds)
    refresh_ahead: float = attrs.field(default=0.0, validator=seconds)
    build_timeout: float = attrs.field(default=30.0, validator=positive_seconds)
    abandon_grace: float = attrs.field(default=2.0, validator=seconds)
    retry_after_error: float = attrs.field(default=0.0, validator=seconds)
    drain_timeout: float = attrs.field(default=600.0, validator=seconds)
    shutdown_timeout: float = attrs.field(default=30.0, validator=seconds)
    close_timeout: float = attrs.field(default=5.0, validator=seconds)

    @property
    def reap_period(self) -> float:
        """Within how many seconds after it is due an idle bridge is closed, at the latest."""
        return min(5.0, self.ttl / 10)


@attrs.frozen(kw_only=True)
class WatchOptions:
    """What `watch_providers` takes; its docstring explains each."""

    poll_interval: float = attrs.field(default=300.0, validator=positive_seconds)
    reload_timeout: float = attrs.field(default=30.0, validator=positive_seconds)
    min_interval: float = attrs.field(default=0.1, validator=positive_seconds)
    retry_delay: float = attrs.field(default=0.1, validator=positive_seconds)
    max_retry_delay: float = attrs.field(default=30.0, validator=positive_seconds)
