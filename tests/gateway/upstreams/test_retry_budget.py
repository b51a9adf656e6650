"""The retry budget, against a list of all that happened."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridgepool.gateway.upstreams._retry_budget import FLOOR, WINDOW, RetryBudget


def test_a_quiet_gateway_can_retry_a_few_times() -> None:
    budget = RetryBudget()
    assert [budget.take(0.2, 0) for _ in range(5)] == [True] * FLOOR + [False] * 2
    assert not budget.take(0.2, WINDOW - 1)
    assert budget.take(0.2, WINDOW)
    assert budget.document(WINDOW) == {"requests": 0, "retries": 1, "refused": 3}


def test_of_many_requests_a_fifth_can_be_tried_again() -> None:
    budget = RetryBudget()
    for _ in range(100):
        budget.count_request(5)
    assert sum(budget.take(0.2, 5) for _ in range(100)) == 20


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.9, 3.0, 12.0]), st.booleans()), max_size=300),
    st.sampled_from([0.0, 0.2, 0.5, 1.0]),
)
def test_there_are_never_more_retries_than_the_budget(
    script: list[tuple[float, bool]], part: float
) -> None:
    budget, now = RetryBudget(), 1000.0
    requests: list[int] = []
    retries: list[int] = []
    for pause, retry in script:
        now += pause
        recent = range(int(now) - WINDOW + 1, int(now) + 1)
        count = sum(second in recent for second in requests)
        spent = sum(second in recent for second in retries)
        if retry:
            granted = budget.take(part, now)
            assert granted == (spent < FLOOR or spent + 1 <= part * count)
            retries += [int(now)] * granted
        else:
            budget.count_request(now)
            requests.append(int(now))
    assert len(budget._seconds) <= WINDOW
