from __future__ import annotations

import logging
import math
from typing import Any

import pytest

from bridgepool.gateway.serving import _refused_keys
from bridgepool.gateway.serving._refused_keys import RefusedKeys

logger = logging.getLogger("tests.refused_keys")
ADDRESS = "192.0.2.1:5000"


def refused_keys(burst: float = 3) -> RefusedKeys:
    return RefusedKeys(logger, "keys refused", burst)


def test_a_few_refusals_are_immediate_and_the_next_ones_come_at_a_steady_rate() -> None:
    keys = refused_keys()
    delays = [keys.refuse(ADDRESS, 100.0) for _ in range(6)]
    assert delays == pytest.approx([0, 0, 0, 0.2, 0.4, 0.6])
    assert keys.count == 6


def test_no_refusal_waits_longer_than_three_seconds_nor_is_held_against_later_ones() -> None:
    keys = refused_keys()
    for _ in range(1000):
        assert keys.refuse(ADDRESS, 100.0) <= 3.0
    assert keys.refuse(ADDRESS, 103.7) == 0.0


def test_one_address_slows_down_no_other() -> None:
    keys = refused_keys(burst=1)
    for _ in range(10):
        keys.refuse(ADDRESS, 100.0)
    assert keys.refuse("192.0.2.2:5000", 100.0) == 0.0
    assert keys.refuse("192.0.2.1:7777", 100.0) > 0.1  # another port is the same address


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("[2001:db8::1]:1", "[2001:db8::ffff:1]:2", True),
        ("[2001:db8::1]:1", "[2001:db8:0:1::1]:2", False),
        ("[::ffff:192.0.2.1]:1", "192.0.2.1:2", True),
        ("[::ffff:192.0.2.1]:1", "[::ffff:192.0.2.2]:1", False),
        ("[fe80::1%lo]:1", "[fe80::2%lo]:1", True),
        ("", "", True),
        ("a-name:1", "a-name:2", True),
    ],
)
def test_a_site_of_ipv6_counts_as_one_address(one: str, other: str, same: bool) -> None:
    keys = refused_keys(burst=1)
    assert keys.refuse(one, 100.0) == 0.0
    assert (keys.refuse(other, 100.0) > 0.1) == same


def test_addresses_beyond_a_bound_forget_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_refused_keys, "_MAX_SITES", 2)
    keys = refused_keys(burst=1)
    for host in ("192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.3"):
        keys.refuse(f"{host}:1", 100.0)
    assert keys.refuse("192.0.2.1:1", 100.0) > 0.1
    assert keys.refuse("192.0.2.2:1", 100.0) == 0.0
    assert len(keys._recovered) == 2


def test_refusals_are_logged_at_most_once_a_minute_with_their_number(
    caplog: pytest.LogCaptureFixture,
) -> None:
    keys = refused_keys(burst=math.inf)
    for second in range(300):
        for _ in range(100):
            keys.refuse(ADDRESS, 1000.0 + second)
    lines: list[Any] = [record for record in caplog.records if record.message == "keys refused"]
    assert [line.refused for line in lines] == [1, 6000, 6000, 6000, 6000]
    assert lines[-1].total == 24_001
    assert lines[-1].peer == ADDRESS
    assert keys.count == 30_000
