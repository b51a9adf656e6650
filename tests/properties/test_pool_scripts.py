"""The whole pool under generated scripts: acquire, release, cancel, replace, expire, crash, leave,
in any order and within one tick, on a mock clock.

Checked after every operation: invariants 6, 7, 8, 10, 11, 13, 14, 15, 16, 33, 39 and 41; when all
tasks are blocked: invariants 17, 18, 19, 20, 21, 22, 23, 24, 25, 26 and 37; as a caller gets
control: invariants 1, 2, 3, 4, 5, 9, 12, 34 and 35; at the end: invariants 27, 28, 29, 31, 32 and
40. The checks are in `bridgepool.testing`, which users have too.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import Phase, settings

from bridgepool import ProviderSnapshot
from bridgepool._supervisor import BridgeSupervisor
from bridgepool.testing import PoolPromiseBrokenError, check_pool

# A long run shrinks what it finds, which can take minutes; the everyday one does not.
_IS_LONG = os.environ.get("BRIDGEPOOL_LONG") == "1"
_everyday = settings(phases=(Phase.explicit, Phase.reuse, Phase.generate))


def test_a_pool_keeps_its_invariants_under_generated_scripts() -> None:
    if _IS_LONG:
        check_pool(max_examples=20_000, max_steps=60)
    else:
        check_pool(max_examples=300, max_steps=40, settings=_everyday)


def test_a_pool_keeps_its_invariants_with_bridges_that_need_time_to_open_and_close() -> None:
    @asynccontextmanager
    async def open_slowly(key: str, snapshot: ProviderSnapshot[int]) -> AsyncIterator[object]:
        await trio.sleep(0.2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            yield object()
            await trio.sleep(0.2)
            nursery.cancel_scope.cancel()

    examples = 2_000 if _IS_LONG else 50
    check_pool(open_slowly, max_examples=examples, settings=None if _IS_LONG else _everyday)


def test_a_pool_that_closes_bridges_in_use_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks can fail: here every retired bridge is closed at once, leases or not."""
    monkeypatch.setattr(BridgeSupervisor, "close_when_idle", BridgeSupervisor.close)
    fresh = settings(phases=(Phase.generate,), database=None)
    with pytest.raises(PoolPromiseBrokenError, match="invariant 15"):
        check_pool(max_examples=300, settings=fresh)
