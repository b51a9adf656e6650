"""Breakers, against a model that keeps the whole history and judges it anew each time."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from bridgepool.gateway.upstreams._breaker import (
    LONGEST_OPEN,
    PROBES,
    Breaker,
    BreakerRules,
    Breakers,
    BreakerState,
    Permit,
)

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
RULES = BreakerRules()


def fail_at(breaker: Breaker, *times: float, rules: BreakerRules = RULES) -> BreakerState:
    for now in times:
        permit = breaker.admit(rules, now)
        assert permit is not None
        breaker.fail(permit, now)
    return breaker.state


def opened() -> Breaker:
    breaker = Breaker()
    assert fail_at(breaker, 0, 0, 0, 0, 0) is OPEN
    return breaker


def take(breaker: Breaker, now: float) -> Permit:
    permit = breaker.admit(RULES, now)
    assert permit is not None
    return permit


def test_five_failures_within_ten_seconds_open_it_for_thirty() -> None:
    breaker = Breaker()
    assert fail_at(breaker, 0, 3, 6, 9) is CLOSED
    assert fail_at(breaker, 10) is OPEN
    assert breaker.remaining(10) == 30
    assert breaker.admit(RULES, 39.9) is None
    assert breaker.remaining(39.75) == 0.25
    assert breaker.admit(RULES, 40) is not None
    assert breaker.state is HALF_OPEN


def test_failures_that_are_further_apart_do_not_open_it() -> None:
    assert fail_at(Breaker(), *range(0, 300, 3)) is CLOSED


@pytest.mark.parametrize(("good", "state"), [(1, OPEN), (2, CLOSED), (50, CLOSED)])
def test_an_upstream_that_answers_most_requests_is_not_cut_off(
    good: int, state: BreakerState
) -> None:
    breaker = Breaker()
    for _ in range(5):
        for _ in range(good):
            breaker.succeed(take(breaker, 1), 1)
        fail_at(breaker, 1)
        if breaker.state is OPEN:
            break
    assert breaker.state is state


def test_success_before_the_failures_does_not_delay_the_opening() -> None:
    breaker = Breaker()
    for _ in range(10_000):
        breaker.succeed(take(breaker, 1), 1)
    assert fail_at(breaker, 2, 2, 2, 2, 2) is OPEN


def test_what_is_neither_success_nor_failure_changes_nothing() -> None:
    breaker = Breaker()
    assert fail_at(breaker, 0, 0, 0, 0) is CLOSED
    for _ in range(100):
        breaker.release(take(breaker, 1))
    assert fail_at(breaker, 1) is OPEN


def test_three_probes_run_at_a_time_and_a_cancelled_one_frees_its_place() -> None:
    breaker = opened()
    probes = [take(breaker, 30) for _ in range(PROBES)]
    assert breaker.admit(RULES, 30) is None
    assert breaker.remaining(30) == 1
    breaker.release(probes[0])
    breaker.release(probes[0])
    take(breaker, 30)
    assert breaker.admit(RULES, 30) is None
    assert breaker.succeed(probes[1], 31) is CLOSED
    assert breaker.fail(probes[2], 31) is None
    assert breaker.admit(RULES, 31) is not None


def test_probes_that_hang_make_room_for_others_and_still_count() -> None:
    breaker = opened()
    hanging = [take(breaker, 30 + number) for number in range(PROBES)]
    assert not breaker.would_admit(RULES, 61)
    assert breaker.admit(RULES, 61) is None
    assert breaker.would_admit(RULES, 62)
    others = [take(breaker, 62) for _ in range(PROBES)]
    assert breaker.admit(RULES, 62) is None
    breaker.release(hanging[0])
    assert breaker.admit(RULES, 62) is None
    breaker.release(others[0])
    take(breaker, 62)
    assert breaker.succeed(hanging[1], 90) is CLOSED


def test_each_failed_probe_doubles_the_time_up_to_a_bound() -> None:
    breaker, now, times = opened(), 0.0, []
    for _ in range(6):
        times.append(breaker.remaining(now))
        now += times[-1]
        assert breaker.fail(take(breaker, now), now) is OPEN
    assert times == [30, 60, 120, 240, LONGEST_OPEN, LONGEST_OPEN]
    assert breaker.openings == 7


@pytest.mark.parametrize(("later", "time"), [(29, 60), (31, 30)])
def test_the_time_grows_only_if_it_opens_again_soon(later: float, time: float) -> None:
    breaker = opened()
    breaker.succeed(take(breaker, 30), 30)
    fail_at(breaker, *[30 + later] * 5)
    assert breaker.remaining(30 + later) == time


def test_a_request_of_before_the_opening_says_nothing_about_now() -> None:
    breaker = Breaker()
    early = [take(breaker, 0) for _ in range(10)]
    fail_at(breaker, 0, 0, 0, 0, 0)
    assert [breaker.succeed(early[0], 1), breaker.fail(early[1], 1)] == [None, None]
    probe = take(breaker, 30)
    assert [breaker.succeed(early[2], 30), breaker.fail(early[3], 30)] == [None, None]
    assert breaker.state is HALF_OPEN
    assert breaker.succeed(probe, 31) is CLOSED


def test_other_rules_apply_at_once() -> None:
    breaker = Breaker()
    assert fail_at(breaker, 0, 1, 2, 3) is CLOSED
    strict = BreakerRules(failures=2, window=5, first_open=7)
    assert fail_at(breaker, 4, rules=strict) is OPEN
    assert breaker.remaining(4) == 7


def test_the_document_says_what_a_request_would_find() -> None:
    breaker = opened()
    wait = {"probes": 0, "openings": 1}
    assert breaker.document(10) == {"state": "open", "retry_after_seconds": 20, **wait}
    assert breaker.document(30) == {"state": "half_open", "retry_after_seconds": 0, **wait}
    take(breaker, 30)
    assert breaker.document(30)["probes"] == 1


def test_an_endpoint_and_a_class_of_routes_have_one_breaker_each() -> None:
    breakers = Breakers()
    first = breakers.get("https://a", "chat")
    fail_at(first, 0, 0, 0, 0, 0)
    assert breakers.get("https://a", "models").state is CLOSED
    assert breakers.get("https://b", "chat").state is CLOSED
    assert breakers.get("https://a", "chat") is first
    assert list(breakers.of_endpoint("https://a")) == ["chat", "models"]
    assert breakers.of_endpoint("https://c") == {}
    for number in range(100):
        breakers.get(f"https://{number}", "chat")
    assert len(breakers._endpoints) == 4


@attrs.define(eq=False)
class Model:
    """The rules as the page for people has them, over the whole history."""

    now: float = 0.0
    state: BreakerState = CLOSED
    ends: list[tuple[float, bool]] = attrs.field(factory=list)  # since it was closed last
    opened_at: float = 0.0
    open_for: float = 0.0
    closed_at: float = 0.0
    out: list[int] = attrs.field(factory=list)  # permits that count, of this state
    places: list[int] = attrs.field(factory=list)  # those that hold the places of probes
    last_probe: float = 0.0
    given: int = 0

    def admit(self) -> int | None:
        if self.state is OPEN and self.now >= self.opened_at + self.open_for:
            self.state, self.out, self.places = HALF_OPEN, [], []
        if self.state is HALF_OPEN and len(self.places) == PROBES:
            if self.now < self.last_probe + 4:
                return None
            self.places = []
        if self.state is OPEN:
            return None
        self.given += 1
        self.out.append(self.given)
        if self.state is HALF_OPEN:
            self.places.append(self.given)
            self.last_probe = self.now
        return self.given

    def settle(self, permit: int, good: bool | None) -> None:
        if permit not in self.out:
            return
        self.out.remove(permit)
        self.places = [one for one in self.places if one != permit]
        if good is None:
            return
        if self.state is HALF_OPEN:
            if good:
                self.state, self.closed_at, self.ends, self.out = CLOSED, self.now, [], []
            else:
                self.open(2 * self.open_for)
            return
        self.ends.append((self.now, good))
        failures = [number for number, (_, ok) in enumerate(self.ends) if not ok][-3:]
        if good or len(failures) < 3:
            return
        span = self.ends[failures[0] :]
        if self.now - span[0][0] <= 10 and len(span) <= 6:
            soon = self.now - self.closed_at < self.open_for
            self.open(2 * self.open_for if soon else 4.0)

    def open(self, seconds: float) -> None:
        self.state, self.opened_at, self.out = OPEN, self.now, []
        self.open_for = min(seconds, LONGEST_OPEN)


_SMALL = BreakerRules(failures=3, window=10, first_open=4)


class BreakerMachine(RuleBasedStateMachine):
    """Any order of requests, ends and pauses."""

    permits: Bundle[tuple[Permit | None, int | None]] = Bundle("permits")

    def __init__(self) -> None:
        super().__init__()
        self.breaker, self.model = Breaker(), Model()

    @rule(target=permits)
    def admit(self) -> tuple[Permit | None, int | None]:
        would = self.breaker.would_admit(_SMALL, self.model.now)
        permit, expected = self.breaker.admit(_SMALL, self.model.now), self.model.admit()
        assert would == (permit is not None) == (expected is not None)
        return (permit, expected)

    @rule(pair=consumes(permits), good=st.sampled_from([True, False, False, None]))
    def settle(self, pair: tuple[Permit | None, int | None], good: bool | None) -> None:
        permit, expected = pair
        if permit is None or expected is None:
            return
        before = self.breaker.state
        changed = None
        if good is None:
            self.breaker.release(permit)
        elif good:
            changed = self.breaker.succeed(permit, self.model.now)
        else:
            changed = self.breaker.fail(permit, self.model.now)
        self.model.settle(expected, good)
        assert changed == (self.breaker.state if self.breaker.state is not before else None)

    @rule(seconds=st.sampled_from([0.5, 1.0, 4.0, 9.0, 11.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.model.now += seconds

    @invariant()
    def agrees(self) -> None:
        assert self.breaker.state is self.model.state
        if self.model.state is OPEN:
            left = max(self.model.opened_at + self.model.open_for - self.model.now, 0.0)
            assert self.breaker.remaining(self.model.now) == left
        if self.model.state is HALF_OPEN:
            assert self.breaker.document(self.model.now)["probes"] == len(self.model.places)


TestBreaker = BreakerMachine.TestCase
TestBreaker.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
