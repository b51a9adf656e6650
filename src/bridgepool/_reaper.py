"""Retires what is due, a batch at a time, so that no other task is held up."""

from collections.abc import Hashable
from typing import TypeVar

import trio

from ._alarm import Alarm
from ._bridge import PoolLedger
from ._supervisor import BridgeSupervisor

K = TypeVar("K", bound=Hashable)
P = TypeVar("P")
B = TypeVar("B")

# Waking 5,000 bridges at once holds the loop up for hundreds of milliseconds, fifty for three.
_BATCH = 50


async def reap(
    ledger: PoolLedger[K, P, B], supervisor: BridgeSupervisor[K, P, B], alarm: Alarm
) -> None:
    """Carry out what the ledger says is due, until the pool is closed and empty."""
    # Shielded without a deadline: leaving the pool is what ends it, and it is what keeps
    # the deadlines that leaving sets.
    with trio.CancelScope(shield=True):
        while not (ledger.closed and not ledger.generations):
            _reap_batch(ledger, supervisor, trio.current_time())
            await alarm.wait_until(min(ledger.next_due(), supervisor.scheduler.next_due()))


def _reap_batch(
    ledger: PoolLedger[K, P, B], supervisor: BridgeSupervisor[K, P, B], now: float
) -> None:
    entries, overtaken = ledger.sweep(_BATCH)
    for entry in [*entries, *ledger.expire(now, _BATCH)]:
        supervisor.close_when_idle(entry)
    for flight in overtaken:
        supervisor.overtake(flight)
    forced, late = ledger.overdue(now, _BATCH)
    supervisor.scheduler.cancel_late(now)
    for entry in forced:
        supervisor.close(entry)
    for flight in late:
        supervisor.overtake(flight, everyone=True)
