"""What `/readyz` says."""

from __future__ import annotations

import math

import trio
import trio.testing

from bridgepool import MemoryReloader, ProviderSnapshot
from bridgepool.gateway import Gateway, GatewaySettings, SourceReport, open_gateway
from bridgepool.gateway.providers import Provider
from bridgepool.gateway.proxy._runtimes import Snapshot

SETTINGS = GatewaySettings(allow_anonymous=True, max_stale=100.0)


class Away(MemoryReloader[Provider]):
    """Does not answer until it is back."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__(snapshot)
        self.back = trio.Event()

    async def reload(self) -> Snapshot:
        await self.back.wait()
        return await super().reload()


def document(gateway: Gateway) -> dict[str, object]:
    return gateway._readiness.document(gateway.pool.generation, gateway.pool.snapshot.revision)


async def test_the_age_of_a_first_snapshot_counts_on_until_it_is_confirmed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    first = ProviderSnapshot[Provider]((), 7, allow_empty=True)
    source = Away(first)
    reports = [SourceReport(source="snapshot file", connected=False)]
    async with open_gateway(
        source,
        source.subscribe(),
        first=first,
        first_age=60.0,
        settings=SETTINGS,
        report=lambda: reports[-1],
    ) as gateway:
        assert document(gateway) == {
            "ready": True,
            "generation": 1,
            "revision": 7,
            "providers": 0,
            "unusable": 0,
            "age": 60.0,
            "source": "snapshot file",
            "connected": False,
            "failed_reloads": 0,
        }
        await trio.sleep(41)
        assert gateway.staleness == 101.0
        assert gateway.why_not_ready() == "the providers are too old"
        source.back.set()
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(30)  # a retry may have to come first
        assert gateway.why_not_ready() is None
        assert gateway.staleness < 100


async def test_an_age_that_nobody_knows_is_too_old_and_shown_as_null() -> None:
    first = ProviderSnapshot[Provider](())
    source = Away(first)
    async with open_gateway(
        source, source.subscribe(), first=first, first_age=math.inf, settings=SETTINGS
    ) as gateway:
        found = document(gateway)
        assert found["age"] is None
        assert found["reason"] == "the providers are too old"


async def test_a_source_that_is_in_trouble_says_why() -> None:
    first = ProviderSnapshot[Provider](())
    source = MemoryReloader(first)
    report = SourceReport(source="control plane", connected=False, problem="it is refused")
    async with open_gateway(
        source, source.subscribe(), first=first, report=lambda: report
    ) as gateway:
        assert gateway.why_not_ready() == "it is refused"


async def test_before_the_first_snapshot_there_is_no_age() -> None:
    source = Away(ProviderSnapshot(()))
    async with open_gateway(source, source.subscribe()) as gateway:
        assert document(gateway) == {
            "ready": False,
            "reason": "no snapshot of providers yet",
            "failed_reloads": 0,
        }
        assert gateway.staleness == math.inf
