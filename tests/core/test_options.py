"""What makes no sense is refused as the pool is opened, with the name of the option."""

from math import inf, nan
from typing import Any

import pytest

from bridgepool import open_bridge_pool, open_singleflight
from bridgepool._options import PoolOptions
from tests.core.rig import Bridges, providers, use

_SECONDS = "{} must be 0 or more seconds, not {!r}"
_POSITIVE = "{} must be more than 0 seconds, not {!r}"
_COUNT = "{} must be a whole number from 1 up, not {!r}"
_MOVES = "{} must be 0 or more, not {!r}"
_BAD: list[tuple[str, float, str]] = [
    ("max_items", 0, _COUNT),
    ("max_items", 2.5, _COUNT),
    ("max_live", 0, _COUNT),
    ("max_concurrent_builds", -1, _COUNT),
    ("max_rebuilds", -1, _MOVES),
    ("ttl", 0, _POSITIVE),
    ("ttl", nan, _POSITIVE),
    ("refresh_ahead", -0.1, _SECONDS),
    ("build_timeout", 0, _POSITIVE),
    ("abandon_grace", -1, _SECONDS),
    ("retry_after_error", nan, _SECONDS),
    ("drain_timeout", -1, _SECONDS),
    ("shutdown_timeout", -inf, _SECONDS),
    ("close_timeout", -1, _SECONDS),
]


@pytest.mark.parametrize(("name", "value", "message"), _BAD)
async def test_a_pool_refuses_what_makes_no_sense(name: str, value: float, message: str) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(ValueError) as caught:  # noqa: PT011 -- its whole text is compared
        async with open_bridge_pool(Bridges().open, providers(1), **options):
            raise AssertionError("it was opened")
    assert str(caught.value) == message.format(name, value)


@pytest.mark.parametrize("name", ["abandon_grace", "build_timeout"])
async def test_a_singleflight_refuses_what_makes_no_sense(name: str) -> None:
    options: dict[str, Any] = {name: -1}
    with pytest.raises(ValueError, match=name):
        async with open_singleflight(**options):
            raise AssertionError("it was opened")


async def test_no_limit_is_a_limit_too() -> None:
    names = ("max_items", "max_live", "max_concurrent_builds", "ttl", "refresh_ahead",
             "build_timeout", "abandon_grace", "retry_after_error", "drain_timeout",
             "shutdown_timeout", "close_timeout")  # fmt: skip
    options: dict[str, Any] = dict.fromkeys(names, inf)
    bridges = Bridges()
    async with open_bridge_pool(bridges.open, providers(1), **options) as pool:
        assert await use(pool) is bridges.last


def test_an_idle_bridge_is_closed_soon_after_it_is_due() -> None:
    assert PoolOptions(ttl=900.0).reap_period == 5.0
    assert PoolOptions(ttl=2.0).reap_period == 0.2
    assert PoolOptions(ttl=inf).reap_period == 5.0
