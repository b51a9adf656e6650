import pytest
from trio.testing import MockClock


@pytest.fixture
def clock(mock_clock: MockClock) -> MockClock:
    """Time passes quickly, so that delays take none."""
    mock_clock.rate = 20
    return mock_clock
