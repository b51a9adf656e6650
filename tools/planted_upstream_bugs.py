"""Bugs of what a gateway remembers about its upstreams, as edits of our source.

As in `planted_bugs`; each names the tests that must catch it.
"""

from tools.planted_bugs import Bug
from tools.planted_remote_bugs import bug

_BREAKER_TESTS = ("tests/gateway/upstreams/test_breaker.py",)
_BUDGET_TESTS = ("tests/gateway/upstreams/test_retry_budget.py",)
_ADMISSION_TESTS = ("tests/gateway/upstreams/test_admission.py",)
_SERVED = ("tests/gateway/proxy/test_breaker.py",)
_RETRY_TESTS = ("tests/gateway/proxy/test_retries.py",)
_RECOVERY_TESTS = ("tests/gateway/proxy/test_recovery.py",)
_ATTEMPTS = "gateway/proxy/_attempts.py:Attempts"
_STAND_INS = "gateway/proxy/_stand_ins.py"
_BREAKER = "gateway/upstreams/_breaker.py:Breaker"
_BUDGET = "gateway/upstreams/_retry_budget.py:RetryBudget"
_ADMISSION = "gateway/upstreams/_admission.py:Admission"

UPSTREAM_BUGS: tuple[Bug, ...] = (
    bug(
        "a late failure of before opens a breaker", _BREAKER_TESTS, f"{_BREAKER}._settle",
        "permit._epoch != self._epoch", "False",
    ),
    bug(
        "a cancelled probe keeps its place", _BREAKER_TESTS, f"{_BREAKER}.release",
        "self._settle(permit)", "pass",
    ),
    bug(
        "probes that hang keep a breaker half-open", _BREAKER_TESTS, f"{_BREAKER}.admit",
        "if now - self._last_probe < rules.first_open:", "if True:",
    ),
    bug(
        "a permit is settled twice", _BREAKER_TESTS, f"{_BREAKER}._settle",
        "permit._settled = True", "pass",
    ),
    bug(
        "a breaker opens for the same time each time", _BREAKER_TESTS, f"{_BREAKER}._open",
        "2 * self._open_time", "self._open_time",
    ),
    bug(
        "rare failures of a busy upstream open its breaker", _BREAKER_TESTS, f"{_BREAKER}.fail",
        "rules.failures < _SHARE * ended_since", "False",
    ),
    bug(
        "retries of long ago count", _BUDGET_TESTS, f"{_BUDGET}._second",
        "self._retries -= old.retries", "pass",
    ),
    bug(
        "a request that left keeps its place in the queue", _ADMISSION_TESTS,
        f"{_ADMISSION}._wait_for_turn", "del self._queue[waiter]", "pass",
    ),
    bug(
        "the last to come is the first to run", _ADMISSION_TESTS, f"{_ADMISSION}._grant_turns",
        "last=False", "last=True",
    ),
    bug(
        "a breaker is forgotten by an edit", _SERVED,
        "gateway/proxy/_provider_runtime.py:open_provider_runtime",
        "resilience_of(provider, state.resilience)",
        "resilience_of(provider, type(state.resilience)())",
    ),
    bug(
        "a rate limit closes a breaker", _SERVED, f"{_ATTEMPTS}._judge_provider",
        "if status != 429:", "if True:",
    ),
    bug(
        "a client that leaves holds a probe", _SERVED, f"{_ATTEMPTS}._release_permit",
        "self._breaker.release(self._permit)", "pass",
    ),
    bug(
        "an upstream's wish for no retry is ignored", _RETRY_TESTS,
        f"{_ATTEMPTS}._may_retry",
        'get_header(response.headers, b"x-should-retry") == b"false"', "False",
    ),
    bug(
        "retries have no budget", _RETRY_TESTS, f"{_ATTEMPTS}._may_retry",
        "not resilience.state.budget.take(resilience.retry_budget, trio.current_time())", "False",
    ),
    bug(
        "requests do not add to the budget of retries", _RETRY_TESTS, f"{_ATTEMPTS}.serve",
        "resilience.state.budget.count_request(trio.current_time())", "pass",
    ),
    bug(
        "the delay of a retry comes again before the next key", _RETRY_TESTS,
        f"{_ATTEMPTS}.serve", "self._delay = 0.0", "pass",
    ),
    bug(
        "no delay is longer than the first", _RETRY_TESTS, f"{_ATTEMPTS}._may_retry",
        "self._delays or Backoff", "Backoff",
    ),
    bug(
        "a key that was limited before a delay is not tried after it", _RETRY_TESTS,
        f"{_ATTEMPTS}._may_retry", "self._tried = ()", "pass",
    ),
    bug(
        "a body is kept as long as its answer takes", _RETRY_TESTS, f"{_ATTEMPTS}._judge",
        "self.body.forget()", "pass",
    ),
    bug(
        "an attempt after a failure counts for no breaker", _RETRY_TESTS, f"{_ATTEMPTS}._settle",
        "self._permit = None", "pass",
    ),
    bug(
        "each key that a probe tries takes a place", _SERVED, f"{_ATTEMPTS}._get_permit",
        " and self._permit is None:", ":",
    ),
    bug(
        "an answer is given up although no other provider can get the body", _RECOVERY_TESTS,
        f"{_ATTEMPTS}._has_ready_other", "or not self.body.can_be_sent", "",
    ),
    bug(
        "a body that nobody takes stays in memory", _RETRY_TESTS,
        "gateway/proxy/_recovery.py:forward_request", "        body.forget()", "        pass",
    ),
    bug(
        "the rest of a body goes to another provider", _RECOVERY_TESTS,
        "gateway/proxy/_recovery.py:forward_request",
        "if others is not None and body.can_be_sent else", "if others is not None else",
    ),
    bug(
        "a client's key goes to another provider", _RECOVERY_TESTS, f"{_STAND_INS}:call_on",
        "own_key=False,\n        extra", "extra",
    ),
    bug(
        "what one provider keeps is asked of another", _RECOVERY_TESTS,
        f"{_STAND_INS}:StandIns._find_all", "match.route_class == STORED", "False",
    ),
    bug(
        "an answer is given up for a provider that takes no request", _RECOVERY_TESTS,
        f"{_STAND_INS}:StandIns.next_ready",
        "not _is_ready(self._left[0], self._call.match.route_class)", "False",
    ),
    bug(
        "a request holds its place after its end", _RECOVERY_TESTS, f"{_ATTEMPTS}.serve",
        "admission.leave()", "pass",
    ),
    bug(
        "a request waits for a provider whose breaker is open", _RECOVERY_TESTS,
        f"{_ATTEMPTS}._wait_for_turn", "not self._admits()", "False",
    ),
)  # fmt: skip
