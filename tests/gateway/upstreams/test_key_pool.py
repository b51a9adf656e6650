"""The key pool: its rules one by one, and all of them against a model."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bridgepool._secret import Secret
from bridgepool.gateway.providers._key_fingerprint import fingerprint
from bridgepool.gateway.upstreams._key_pool import MAX_RETIRED, Cooling, KeyPool, KeyRing, KeyUse
from bridgepool.gateway.upstreams._upstream_state import UpstreamStates


def ring_of(names: str, pool: KeyPool | None = None, *, in_turn: bool = False) -> KeyRing:
    return (pool or KeyPool()).open_ring([Secret(name) for name in names], round_robin=in_turn)


def take(ring: KeyRing, now: float = 0.0) -> KeyUse:
    use = ring.take(now)
    assert use is not None
    return use


def taken(ring: KeyRing, now: float = 0.0) -> str | None:
    """The key that a request gets that ends well at once."""
    use = ring.take(now)
    if use is None:
        return None
    use.accepted()
    use.end()
    return use.secret.reveal()


def test_the_first_free_key_is_used_and_with_round_robin_the_next_in_turn() -> None:
    assert [taken(ring_of("abc")) for _ in range(3)] == ["a", "a", "a"]
    pool = KeyPool()
    assert [taken(ring_of("abc", pool, in_turn=True)) for _ in range(4)] == ["a", "b", "c", "a"]
    assert taken(ring_of("xab", pool, in_turn=True)) == "b", "the turn goes on after a reordering"
    assert taken(ring_of("xy", pool, in_turn=True)) == "x"


def test_a_429_cools_its_key_and_the_later_deadline_wins() -> None:
    ring = ring_of("ab")
    early, late = take(ring), take(ring)
    late.rate_limited(0.0, 50.0)
    early.rate_limited(1.0, 5.0)
    assert [taken(ring, now) for now in (1.0, 49.9, 50.0)] == ["b", "b", "a"]


def test_an_answer_that_was_under_way_does_not_end_a_cooldown() -> None:
    ring = ring_of("ab")
    slow = take(ring)
    take(ring).rate_limited(0.0, 50.0)
    slow.accepted()
    assert taken(ring, 1.0) == "b"


def test_a_401_cools_for_a_minute_doubling_to_an_hour_with_one_try_at_a_time() -> None:
    ring, now = ring_of("a"), 0.0
    take(ring).refused(now)
    for seconds in (60, 120, 240, 480, 960, 1920, 3600, 3600):
        assert ring.take(now + seconds - 0.1) is None
        now += seconds
        trying = take(ring, now)
        assert ring.take(now) is None, "one try at a time"
        trying.refused(now)
        trying.end()
    good = take(ring, now + 3600)
    good.accepted()
    assert taken(ring, now + 3600) == "a"
    take(ring, now + 3600).refused(now + 3600)
    assert taken(ring, now + 3660) == "a", "an answer makes the next refusal the first again"


def test_many_requests_that_are_refused_at_once_count_as_one() -> None:
    ring = ring_of("a")
    for use in [take(ring) for _ in range(20)]:
        use.refused(0.0)
        use.end()
    assert taken(ring, 60.0) == "a"


def test_a_try_that_ends_without_an_answer_leaves_the_next_request_to_try() -> None:
    ring = ring_of("a")
    take(ring).refused(0.0)
    take(ring, 60.0).end()
    trying = take(ring, 60.0)
    trying.rate_limited(60.0, 10.0)
    assert ring.keys[0].state.cooling is Cooling.RATE_LIMITED, "the provider knows the key"
    assert taken(ring, 70.0) == "a"


def test_the_time_until_a_key_is_free_is_that_of_the_first_rate_limited_one() -> None:
    ring = ring_of("abc")
    take(ring).refused(0.0)
    take(ring).rate_limited(0.0, 90.0)
    take(ring).rate_limited(0.0, 70.0)
    assert ring.rate_limited_for(10.0) == 60.0
    only = ring_of("a")
    take(only).refused(0.0)
    assert only.rate_limited_for(0.0) is None


def test_states_go_with_the_key_and_are_kept_while_a_table_lists_the_provider() -> None:
    states = UpstreamStates()
    pool = states.lease("ai").keys
    old = ring_of("ab", pool)
    take(old).rate_limited(0.0, 50.0)
    pool.close_ring(old)  # its table has gone before the next form was opened
    new = ring_of("cba", pool)
    assert new.keys[2].state.until == 50.0
    assert [key.state.until > 0 for key in new.keys] == [False, False, True]
    assert states.lease("other").keys.states == {}
    states.release("ai")
    assert states.get("ai") is None


def test_keys_that_were_taken_out_are_remembered_up_to_a_number() -> None:
    pool = KeyPool()
    kept = ring_of("z", pool)
    busy = ring_of("y", pool)
    use = take(busy, -100.0)
    pool.close_ring(busy)
    for number in range(MAX_RETIRED + 5):
        ring = pool.open_ring([Secret(f"key {number}")])
        take(ring, float(number)).end()
        pool.close_ring(ring)
    assert len(pool.states) == MAX_RETIRED + 1
    assert fingerprint(Secret("y")) in pool.states, "a request still has it"
    assert fingerprint(Secret("key 0")) not in pool.states
    use.end()
    assert kept.keys[0].state.fingerprint in pool.states


def test_a_fingerprint_does_not_show_its_key() -> None:
    key = Secret("sk-0123456789abcdefghij")
    assert fingerprint(key) == fingerprint(Secret(key.reveal()))
    assert fingerprint(key) != fingerprint(Secret(key.reveal() + "k"))
    assert len(fingerprint(key)) == 12
    [state] = KeyPool().open_ring([key]).keys
    assert state.state.hint == "…ghij"
    assert key.reveal() not in repr(state)
    [short] = KeyPool().open_ring([Secret("sk-short")]).keys
    assert short.state.hint == "…"


@attrs.define
class Model:
    """One key, as the rules tell it."""

    limited: float = 0.0
    refused: float = 0.0
    refusals: int = 0
    trying: KeyUse | None = None

    def free(self, now: float) -> bool:
        due = max(self.limited, self.refused)
        return now >= due and (not self.refusals or self.trying is None)


class Pool(RuleBasedStateMachine):
    """Any order of requests and answers, with replacements between."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.pool = KeyPool()
        self.order = "abc"
        self.ring = ring_of(self.order, self.pool)
        self.models = {name: Model() for name in "abcd"}
        self.open: list[tuple[str, KeyUse]] = []

    @rule(seconds=st.sampled_from([0.5, 5.0, 60.0, 3600.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(order=st.permutations("abcd").map(lambda names: "".join(names[:3])))
    def replace(self, order: str) -> None:
        old, self.order = self.ring, order
        self.ring = ring_of(order, self.pool)
        self.pool.close_ring(old)

    @rule()
    def take(self) -> None:
        free = [name for name in self.order if self.models[name].free(self.now)]
        use = self.ring.take(self.now)
        assert (use.secret.reveal() if use is not None else None) == (free[0] if free else None)
        if use is not None:
            model = self.models[free[0]]
            if model.refusals:
                model.trying = use
            self.open.append((free[0], use))

    def _pick(self, data: st.DataObject) -> tuple[str, KeyUse, Model]:
        # A place, not the use itself: Hypothesis notes what is drawn, and a use can be changed.
        name, use = self.open[data.draw(st.integers(0, len(self.open) - 1))]
        return name, use, self.models[name]

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        _, use, model = self._pick(data)
        use.accepted()
        if model.trying is use:
            model.limited, model.refused, model.refusals, model.trying = 0.0, 0.0, 0, None

    @precondition(lambda self: self.open)
    @rule(data=st.data(), seconds=st.sampled_from([1.0, 30.0, 600.0]))
    def limit(self, data: st.DataObject, seconds: float) -> None:
        _, use, model = self._pick(data)
        use.rate_limited(self.now, seconds)
        if model.trying is use:
            model.limited, model.refused, model.refusals, model.trying = 0.0, 0.0, 0, None
        model.limited = max(model.limited, self.now + seconds)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        _, use, model = self._pick(data)
        use.refused(self.now)
        if not model.refusals or model.trying is use:
            model.refusals += 1
            model.refused = self.now + min(60.0 * 2 ** (model.refusals - 1), 3600.0)
            model.trying = None

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        name, use, model = self._pick(data)
        use.end()
        self.open.remove((name, use))
        if model.trying is use:
            model.trying = None

    @invariant()
    def every_request_is_counted(self) -> None:
        for key in self.ring.keys:
            open_now = sum(name == key.secret.reveal() for name, _ in self.open)
            assert key.state.in_flight == open_now


TestAnyOrder = pytest.mark.filterwarnings("error")(Pool.TestCase)
