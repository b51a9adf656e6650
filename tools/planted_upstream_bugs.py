"""Bugs of what a gateway remembers about its upstreams, as edits of our source.

As in `planted_bugs`; each names the tests that must catch it.
"""

from tools.planted_bugs import Bug
from tools.planted_remote_bugs import bug

_BREAKER_TESTS = ("tests/gateway/upstreams/test_breaker.py",)
_BUDGET_TESTS = ("tests/gateway/upstreams/test_retry_budget.py",)
_ADMISSION_TESTS = ("tests/gateway/upstreams/test_admission.py",)
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
)  # fmt: skip
