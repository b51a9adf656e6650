from __future__ import annotations

import math
from pathlib import Path

import pytest

from bridgepool.gateway.sources import _moments as moments
from bridgepool.gateway.sources._moments import Moment, age_of, boot_id

THEN = Moment(wall=1_000_000.0, uptime=500.0, boot="b1")


def test_within_one_boot_the_wall_clock_does_not_count() -> None:
    for wall in (0.0, 1_000_000.0, 9e9):
        assert age_of(THEN, Moment(wall, 560.0, "b1")) == 60.0


def test_across_boots_the_wall_clock_counts() -> None:
    assert age_of(THEN, Moment(1_000_300.0, 20.0, "b2")) == 300.0
    assert age_of(THEN, Moment(1_000_300.0, 2000.0, "")) == 300.0


def test_a_clock_set_back_never_makes_it_younger_than_it_was_known_to_be() -> None:
    assert age_of(THEN, Moment(1_000_010.0, 20.0, "b2"), known=7200.0) == 7200.0
    assert age_of(THEN, Moment(1_000_010.0, 560.0, "b1"), known=7200.0) == 7200.0


def test_a_clock_that_stands_before_the_moment_tells_nothing() -> None:
    assert age_of(THEN, Moment(999_999.0, 20.0, "b2"), known=10.0) == math.inf


def test_an_uptime_that_ran_backwards_is_no_uptime_of_the_same_boot() -> None:
    assert age_of(THEN, Moment(1_000_300.0, 20.0, "b1")) == 300.0


def test_now_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Moment.now()
    assert 0 <= age_of(first, Moment.now()) < 60
    monkeypatch.setattr(moments, "_BOOT_ID", Path("/nowhere/boot_id"))
    assert boot_id() == ""
