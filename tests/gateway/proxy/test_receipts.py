"""What a source is told of each revision, and when."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing

from bridgepool import MemoryReloader, ProviderSnapshot
from bridgepool.gateway import FailedProvider, GatewaySettings, Receipt, open_gateway
from bridgepool.gateway import _opening as opening
from bridgepool.gateway.providers import Provider, ProviderType
from bridgepool.gateway.proxy._provider_runtime import ProviderRuntime, open_provider_runtime
from bridgepool.gateway.proxy._runtimes import CheckProvider, OpenRuntime, Runtimes
from bridgepool.gateway.upstreams._upstream_state import UpstreamStates
from bridgepool.http import UpstreamLimits
from tests.gateway.proxy.rig import openai
from tests.waiting import wait_until

SETTINGS = GatewaySettings(allow_anonymous=True, min_reload_interval=0.001)
URL = "http://127.0.0.1:9/v1"


@attrs.define(eq=False)
class Sink:
    """Takes receipts, and waits for one."""

    receipts: list[Receipt] = attrs.field(factory=list)
    _came: trio.Event = attrs.field(factory=trio.Event)

    def take(self, receipt: Receipt) -> None:
        self.receipts.append(receipt)
        self._came.set()
        self._came = trio.Event()

    async def wait_for(self, revision: int) -> Receipt:
        with trio.fail_after(60):
            while not self.receipts or self.receipts[-1].revision != revision:
                await self._came.wait()
        return self.receipts[-1]


def at(revision: int, *providers: Provider) -> ProviderSnapshot[Provider]:
    return ProviderSnapshot(providers, revision, allow_empty=True)


async def test_each_revision_that_is_applied_or_found_unchanged_is_told() -> None:
    sink, source = Sink(), MemoryReloader(at(1, openai(URL)))
    async with open_gateway(
        source, source.subscribe(), settings=SETTINGS, on_applied=sink.take
    ) as gateway:
        assert await sink.wait_for(1) == Receipt(1)
        source.replace(at(2, openai(URL, "other")))
        assert await sink.wait_for(2) == Receipt(2)
        generation = gateway.pool.generation
        source.replace(at(3, openai(URL, "other")))
        assert await sink.wait_for(3) == Receipt(3)
        assert gateway.pool.generation == generation
        source.replace(at(4))
        assert await sink.wait_for(4) == Receipt(4), "no providers at all is an answer"


async def test_an_older_revision_is_not_told() -> None:
    sink, source = Sink(), MemoryReloader(at(5, openai(URL)))
    async with open_gateway(
        source, source.subscribe(), settings=SETTINGS, on_applied=sink.take
    ) as gateway:
        await sink.wait_for(5)
        source.replace(at(4, openai(URL, "older")))
        await wait_until(lambda: gateway.reload_status.out_of_date)
        await trio.testing.wait_all_tasks_blocked()
        assert [receipt.revision for receipt in sink.receipts] == [5]


async def test_providers_that_cannot_be_built_are_named_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("BRIDGEPOOL_TEST_NOT_SET", raising=False)
    broken = openai(URL, "broken", key_env="BRIDGEPOOL_TEST_NOT_SET")
    off = openai(URL, "off", enabled=False)
    sink, source = Sink(), MemoryReloader(at(1, openai(URL), broken, off))
    async with open_gateway(source, source.subscribe(), settings=SETTINGS, on_applied=sink.take):
        receipt = await sink.wait_for(1)
    [failed] = receipt.failed
    assert failed.name == "broken"
    assert "BRIDGEPOOL_TEST_NOT_SET is not set" in failed.reason


async def test_what_is_not_foreseen_is_told_by_its_type_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(provider: Provider, types: object) -> None:
        raise ValueError("sk-5ecre7")

    monkeypatch.setattr(opening, "check_provider", broken)
    sink, source = Sink(), MemoryReloader(at(1, openai(URL)))
    async with open_gateway(source, source.subscribe(), settings=SETTINGS, on_applied=sink.take):
        receipt = await sink.wait_for(1)
    reason = "unexpected ValueError; the gateway's log has more"
    assert receipt.failed == (FailedProvider("ai", reason),)


async def test_a_receipt_waits_for_the_runtimes_and_an_overtaken_one_is_not_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate, real = trio.Event(), open_provider_runtime

    @asynccontextmanager
    async def slow(
        provider: Provider,
        *,
        types: Iterable[ProviderType],
        limits: UpstreamLimits,
        states: UpstreamStates,
    ) -> AsyncIterator[ProviderRuntime]:
        await gate.wait()
        async with real(provider, types=types, limits=limits, states=states) as runtime:
            yield runtime

    def without_check(
        nursery: trio.Nursery,
        open_runtime: OpenRuntime,
        check: CheckProvider,
        states: UpstreamStates,
    ) -> Runtimes:
        return Runtimes(nursery, open_runtime, states=states)

    monkeypatch.setattr(opening, "open_provider_runtime", slow)
    monkeypatch.setattr(opening, "Runtimes", without_check)  # so they are opened when they come
    sink, source = Sink(), MemoryReloader(at(1, openai(URL)))
    async with open_gateway(
        source, source.subscribe(), settings=SETTINGS, on_applied=sink.take
    ) as gateway:
        for revision in (2, 3):
            source.replace(at(revision, openai(URL, f"r{revision}")))
            with trio.fail_after(60):
                while gateway.pool.snapshot.revision != revision:  # noqa: ASYNC110
                    await trio.sleep(0.001)
        await trio.testing.wait_all_tasks_blocked()
        assert sink.receipts == []
        gate.set()
        await sink.wait_for(3)
        # A notice that the last reload had already seen causes another reload, and receipt.
        assert {receipt.revision for receipt in sink.receipts} == {3}


async def test_a_sink_that_raises_costs_nothing_but_a_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink, source = Sink(), MemoryReloader(at(1))

    def take(receipt: Receipt) -> None:
        sink.take(receipt)
        raise ValueError("no")

    async with open_gateway(source, source.subscribe(), settings=SETTINGS, on_applied=take):
        await sink.wait_for(1)
        source.replace(at(2))
        await sink.wait_for(2)
    assert "receipt callback failed" in caplog.text
