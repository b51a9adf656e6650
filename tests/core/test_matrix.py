"""Every pair and triple of ten events, within one tick, in every order.

After each, the oracle of `bridgepool.testing` checks its invariants A and Q, and E at the end:
invariants 6 to 11, 13 to 29, 32 to 35 and 37 to 41, and as callers get control invariants 1 to 5,
9 and 12. The events are acted out without a checkpoint between them, so that the pool's tasks
learn of all of them at once.
"""

from itertools import permutations

import pytest
import trio
from trio.testing import MockClock

from tests.core.scenario import Scenario

_EVENTS = (
    "build ok",
    "build fails",
    "build times out",
    "replace",
    "expiry",
    "eviction",
    "leader cancelled",
    "last waiter cancelled",
    "release",
    "leave",
)
_PAIRS = list(permutations(_EVENTS, 2))
_TRIPLES = list(permutations(_EVENTS, 3))


def _run(*names: str, tick_between: bool = False) -> None:
    clock = MockClock()

    async def main() -> None:
        await Scenario(clock).run(names, tick_between=tick_between)

    trio.run(main, clock=clock)


def test_the_matrix_covers_every_event() -> None:
    assert set(Scenario(MockClock()).actions) == set(_EVENTS)


@pytest.mark.parametrize("event", _EVENTS)
def test_one_event_alone_keeps_the_invariants(event: str) -> None:
    _run(event)


@pytest.mark.parametrize(("first", "second"), _PAIRS)
def test_two_events_in_one_tick_keep_the_invariants(first: str, second: str) -> None:
    for _ in range(3):  # Trio itself runs the tasks of one tick in one of two orders
        _run(first, second)


@pytest.mark.parametrize(("first", "second"), _PAIRS)
def test_two_events_in_two_ticks_keep_the_invariants(first: str, second: str) -> None:
    _run(first, second, tick_between=True)


@pytest.mark.parametrize(("first", "second", "third"), _TRIPLES)
def test_three_events_in_one_tick_keep_the_invariants(first: str, second: str, third: str) -> None:
    _run(first, second, third)
