"""Delays between attempts: random parts of a limit that doubles."""

import pytest

from bridgepool._backoff import Backoff, shorten


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What `random.random` returns, first to last; 1 when there is no more."""
    parts: list[float] = []
    monkeypatch.setattr("random.random", lambda: parts.pop(0) if parts else 1.0)
    return parts


@pytest.mark.usefixtures("draws")
def test_the_limit_doubles_up_to_the_longest_and_begins_again_after_a_reset() -> None:
    backoff = Backoff(1, 5)
    assert [backoff.next_delay() for _ in range(5)] == [1, 2, 4, 5, 5]
    backoff.reset()
    assert [backoff.next_delay() for _ in range(2)] == [1, 2]


@pytest.mark.usefixtures("draws")
def test_a_first_delay_above_the_longest_is_cut() -> None:
    backoff = Backoff(9, 5)
    assert [backoff.next_delay() for _ in range(2)] == [5, 5]


def test_each_delay_is_a_random_part_also_at_the_longest(draws: list[float]) -> None:
    draws += [0.5, 0.0, 0.25, 0.75]
    backoff = Backoff(2, 4)
    assert [backoff.next_delay() for _ in range(4)] == [1, 0, 1, 3]


def test_each_backoff_draws_its_own_delays() -> None:
    found = [Backoff(1000, 1000).next_delay() for _ in range(20)]
    assert len(set(found)) == 20
    assert all(0 <= draw < 1000 for draw in found)


@pytest.mark.parametrize("by", [0.0, 0.1, 0.5])
def test_a_shortened_duration_stays_within_its_bounds(by: float) -> None:
    assert all(10 * (1 - by) <= shorten(10, by) <= 10 for _ in range(100))
