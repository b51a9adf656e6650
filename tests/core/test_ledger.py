"""Plain examples of the ledger, where the state machine's model is too naive or too slow."""

from math import inf

from bridgepool import ProviderSnapshot, ReplaceOutcome
from bridgepool._generation import Entry
from bridgepool._ledger import Ledger

PlainLedger = Ledger[str, int, str, str]
PlainEntry = Entry[str, int, str, str]


def _ledger(max_items: float = inf) -> PlainLedger:
    return Ledger(ProviderSnapshot([1]), max_items=max_items, drain_timeout=10.0, reap_period=5.0)


def _publish(ledger: PlainLedger, key: str, leases: int = 0) -> PlainEntry:
    current = ledger.current
    entry: PlainEntry = Entry(key, f"bridge of {key}", current, current.once, inf, inf)
    ledger.publish(entry, leases)
    return entry


def test_a_bridge_that_closes_while_its_forced_close_is_due_is_not_handed_out() -> None:
    """Invariant 14: batches of forced closes leave time in which a lease may end by itself."""
    ledger = _ledger()
    entries = [_publish(ledger, key, leases=1) for key in "abc"]
    assert ledger.replace(ProviderSnapshot([2]), now=0.0) is ReplaceOutcome.APPLIED
    assert ledger.overdue(9.9, limit=1) == ([], [])
    assert ledger.overdue(10.0, limit=1) == ([entries[0]], [])
    assert ledger.release(entries[1])
    ledger.closed_entry(entries[1])
    assert ledger.overdue(10.0, limit=1) == ([entries[2]], [])
    assert ledger.overdue(10.0, limit=1) == ([], [])


def test_the_first_tenth_of_the_places_is_for_what_was_used_once() -> None:
    """Invariant 38; promise 10: the victim comes from probation while that is over its share."""
    ledger = _ledger(max_items=20)
    regulars = [_publish(ledger, f"regular {number}") for number in range(17)]
    for entry in regulars:
        assert ledger.lease(entry.key, 1.0) is entry
        ledger.release(entry)
    strangers = [_publish(ledger, f"stranger {number}") for number in range(3)]
    assert ledger.evict_idle() is strangers[0]  # three are more than a tenth of twenty
    assert ledger.evict_idle() is regulars[0]
    assert ledger.lease("stranger 1", 1.0) is strangers[1]
    ledger.release(strangers[1])
    assert [ledger.evict_idle() for _ in range(16)] == regulars[1:]
    assert ledger.evict_idle() is strangers[1]
    assert ledger.evict_idle() is strangers[2]
    assert ledger.evict_idle() is None


def test_a_lease_never_goes_to_what_is_due_for_a_second_look() -> None:
    """Invariant 4: from `fresh_until` on a plain hit is none."""
    ledger = _ledger()
    current = ledger.current
    entry: PlainEntry = Entry("a", "bridge", current, current.once, 5.0, 9.0)
    ledger.publish(entry, 0)
    assert ledger.lease("a", 4.9) is entry
    assert ledger.lease("a", 5.0) is None
    assert ledger.lease("b", 4.9) is None
    assert entry.leases == 1


def test_a_sweep_that_took_the_last_entry_leaves_a_reaper_nothing_to_come_for() -> None:
    """Regression: an empty generation behind the last entry kept the reaper awake for one turn."""
    ledger = _ledger()
    entry = _publish(ledger, "a")
    ledger.replace(ProviderSnapshot([2]), now=0.0)
    ledger.current.flights["build"] = None
    ledger.replace(ProviderSnapshot([3]), now=0.0)
    assert ledger.sweep(limit=1) == ([entry], ["build"])
    assert ledger.next_due() == 10.0
