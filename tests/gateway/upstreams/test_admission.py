"""Admission: how many run, who is next, and what cancellation and time leave behind."""

from __future__ import annotations

from collections import deque

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from bridgepool.gateway.upstreams._admission import Admission, AdmissionRules, OverloadedError


async def test_without_a_limit_everything_runs_and_nothing_waits() -> None:
    admission = Admission()
    for _ in range(500):
        await admission.enter()
        admission.enter_nowait()
    assert admission.document() == {"running": 1000, "waiting": 0, "limit": None, "refused": 0}


async def test_beyond_the_limit_and_the_queue_requests_are_refused_at_once() -> None:
    admission = Admission(AdmissionRules(limit=1, max_waiting=1, wait_timeout=60))
    await admission.enter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(admission.enter)
        await wait_all_tasks_blocked()
        with pytest.raises(OverloadedError, match="1 requests run and 1 wait"):
            await admission.enter()
        with pytest.raises(trio.WouldBlock):
            admission.enter_nowait()
        assert admission.document() == {"running": 1, "waiting": 1, "limit": 1, "refused": 1}
        admission.leave()
    assert (admission.running, admission.waiting) == (1, 0)


@pytest.mark.parametrize("rules", [AdmissionRules(1, 0, 9), AdmissionRules(1, 9, 0)])
async def test_without_a_queue_or_time_nobody_waits(rules: AdmissionRules) -> None:
    admission = Admission(rules)
    await admission.enter()
    with pytest.raises(OverloadedError):
        await admission.enter()


async def test_a_request_waits_no_longer_than_it_may(autojump_clock: MockClock) -> None:
    admission = Admission(AdmissionRules(limit=1, max_waiting=9, wait_timeout=5))
    await admission.enter()
    started = trio.current_time()
    with pytest.raises(OverloadedError, match="waited for 5 s"):
        await admission.enter()
    assert trio.current_time() - started == 5
    assert (admission.running, admission.waiting, admission.refused) == (1, 0, 1)


async def test_a_higher_limit_lets_those_in_that_wait() -> None:
    admission = Admission(AdmissionRules(limit=1, max_waiting=9, wait_timeout=60))
    await admission.enter()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(admission.enter)
        await wait_all_tasks_blocked()
        admission.apply(AdmissionRules(limit=3, max_waiting=9, wait_timeout=60))
        assert (admission.running, admission.waiting) == (3, 1)
        admission.apply(AdmissionRules())
    assert admission.running == 4


async def test_a_request_that_is_cancelled_as_it_gets_its_turn_gives_it_to_the_next() -> None:
    admission = Admission(AdmissionRules(limit=1, max_waiting=9, wait_timeout=60))
    await admission.enter()
    order: list[str] = []

    async def serve(name: str, scope: trio.CancelScope) -> None:
        with scope:
            await admission.enter()
            try:
                await trio.lowlevel.checkpoint()
                order.append(name)
            finally:
                admission.leave()

    first, second = trio.CancelScope(), trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, "first", first)
        await wait_all_tasks_blocked()
        nursery.start_soon(serve, "second", second)
        await wait_all_tasks_blocked()
        admission.leave()
        first.cancel()
    assert order == ["second"]
    assert (admission.running, admission.waiting) == (0, 0)


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.sampled_from(["enter", "enter", "leave", "cancel", "wait", "limit"]), max_size=60),
    st.integers(1, 3),
    st.integers(0, 3),
)
@example(["enter", "enter", "enter", "leave", "leave"], 1, 2)  # who came first runs first
def test_any_order_of_arrivals_ends_and_cancellations_agrees_with_a_queue(
    script: list[str], limit: int, max_waiting: int
) -> None:
    async def main() -> None:
        rules = AdmissionRules(limit, max_waiting, wait_timeout=2.5)
        admission = Admission(rules)
        inside: list[int] = []  # that were admitted, in that order
        running = 0
        queue: deque[tuple[int, float]] = deque()  # the model: who waits, until when
        expected: list[int] = []
        scopes: dict[int, trio.CancelScope] = {}
        refused = 0

        async def come(number: int) -> None:
            with scopes[number]:
                try:
                    await admission.enter()
                except OverloadedError:
                    return
                inside.append(number)

        def grant() -> None:
            nonlocal running
            while queue and running < admission.rules.limit:
                expected.append(queue.popleft()[0])
                running += 1

        async with trio.open_nursery() as nursery:
            for number, step in enumerate(script):
                if step == "enter":
                    scopes[number] = trio.CancelScope()
                    nursery.start_soon(come, number)
                    if running < admission.rules.limit:
                        expected.append(number)
                        running += 1
                    elif len(queue) < max_waiting:
                        queue.append((number, trio.current_time() + 2.5))
                    else:
                        refused += 1
                elif step == "leave" and running:
                    running -= 1
                    admission.leave()
                    grant()
                elif step == "cancel" and queue:
                    gone, _ = queue.popleft()
                    scopes[gone].cancel()
                elif step == "wait":
                    await trio.sleep(1)
                    while queue and queue[0][1] <= trio.current_time():
                        queue.popleft()
                        refused += 1
                elif step == "limit":
                    wanted = 1 + admission.rules.limit % 3
                    admission.apply(AdmissionRules(wanted, max_waiting, 2.5))
                    grant()
                await wait_all_tasks_blocked()
                assert inside == expected
                assert (admission.running, admission.waiting) == (running, len(queue))
                assert admission.refused == refused
            nursery.cancel_scope.cancel()
        assert admission.waiting == 0

    trio.run(main, clock=MockClock(autojump_threshold=0))
