"""What gateways that are gone held of a rate: it comes back within a minute, and only once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgepool.gateway.limits._lost_shares import RESERVED_FOR, LostShares


def test_what_is_lost_comes_back_by_itself_and_no_more_than_that() -> None:
    lost = LostShares()
    lost.add(60, 0.0)
    lost.add(60, 55.0)
    assert [lost.remaining(at) for at in (55.0, 85.0, 100.0, 120.0)] == [65, 30, 15, 0]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "pass on", "wait"]),
            st.floats(0, 100, allow_subnormal=False),
        )
    )
)
def test_what_was_passed_on_is_lost_no_more_and_the_rest_comes_back_in_a_minute(
    steps: list[tuple[str, float]],
) -> None:
    lost, now = LostShares(), 0.0
    for kind, amount in steps:
        before = lost.remaining(now)
        if kind == "add":
            lost.add(amount, now)
            assert lost.remaining(now) == pytest.approx(before + amount)
        elif kind == "pass on":  # perhaps more than is left of it meanwhile
            lost.pass_on(amount, now)
            assert lost.remaining(now) == pytest.approx(max(0.0, before - amount), abs=1e-9)
        else:
            now += amount
            assert 0 <= lost.remaining(now) <= before + 1e-9
    assert lost.remaining(now + RESERVED_FOR) == pytest.approx(0, abs=1e-9)


def test_what_gateways_that_did_not_come_back_may_have_used_comes_back_within_a_minute() -> None:
    """It is what was free first: load that moves between the others later counts no more."""
    lost = LostShares()

    def taken(free: float, growth: float, since: float) -> float:
        return lost.taken(free, growth, since, since, missing=True)

    assert taken(40, 100, 3.0) == 38
    assert taken(90, 100, 30.0) == 20
    assert taken(90, 5, 30.0) == 5
    assert taken(90, -5, 30.0) == 0
    assert lost.taken(90, 100, 30.0, 30.0, missing=False) == 0


def test_limits_that_were_lowered_leave_nothing_for_gateways_that_did_not_come_back() -> None:
    lost = LostShares()
    lost.add(60, 0.0)
    assert lost.taken(-50, 100, 30.0, 30.0, missing=True) == 30
