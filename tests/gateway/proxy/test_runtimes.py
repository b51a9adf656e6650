"""Provider runtimes: who keeps one open, and what becomes of one that cannot be."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio
import trio.testing

from bridgepool import ProviderSnapshot
from bridgepool.gateway.providers import OPENAI, Provider
from bridgepool.gateway.proxy._provider_runtime import ProviderRuntime
from bridgepool.gateway.proxy._runtimes import (
    Runtimes,
    Snapshot,
    UnavailableProvider,
)
from bridgepool.http import open_upstream_client


def provider(name: str, **fields: object) -> Provider:
    return Provider(
        name=name,
        type="openai",
        base_url="https://api.example/v1",
        keys=("k",),
        **fields,  # type: ignore[arg-type]  # a test's short cut
    )


@attrs.define(eq=False)
class Opener:
    """Opens runtimes and counts; fails for the names in `broken`."""

    opened: Counter[str] = attrs.field(factory=Counter)
    closed: Counter[str] = attrs.field(factory=Counter)
    broken: set[str] = attrs.field(factory=set)
    hold: trio.Event | None = None

    @asynccontextmanager
    async def __call__(self, provider: Provider) -> AsyncIterator[ProviderRuntime]:
        if self.hold is not None:
            await self.hold.wait()
        if provider.name in self.broken:
            raise ValueError("no")
        self.opened[provider.name] += 1
        async with open_upstream_client(str(provider.base_url)) as client:
            yield ProviderRuntime(provider, OPENAI, client, None)
        self.closed[provider.name] += 1


def snapshot(*providers: Provider) -> Snapshot:
    return ProviderSnapshot(providers)


async def test_an_unchanged_provider_keeps_its_runtime_in_the_next_generation(
    nursery: trio.Nursery,
) -> None:
    opener = Opener()
    runtimes = Runtimes(nursery, opener)
    first, second = snapshot(provider("a"), provider("b")), snapshot(provider("a"), provider("c"))
    runtimes.put_in_force(first)
    table = runtimes.take(first)
    await table.wait_opened()
    before = table.get("a")
    runtimes.put_in_force(second)
    newer = runtimes.take(second)
    await newer.wait_opened()
    assert newer.get("a") is before
    assert newer.get("b") is None
    await trio.testing.wait_all_tasks_blocked()
    assert opener.closed == {}, "the first table is still in use"
    runtimes.release(table)
    await trio.testing.wait_all_tasks_blocked()
    assert opener.closed == {"b": 1}
    runtimes.release(newer)
    await trio.testing.wait_all_tasks_blocked()
    assert opener.closed == {"b": 1}, "what is in force stays open without users"
    runtimes.close()
    await trio.testing.wait_all_tasks_blocked()
    assert opener.opened == opener.closed == {"a": 1, "b": 1, "c": 1}
    assert runtimes.open_count == 0


async def test_a_changed_field_makes_another_runtime(nursery: trio.Nursery) -> None:
    opener = Opener()
    runtimes = Runtimes(nursery, opener)
    runtimes.put_in_force(snapshot(provider("a")))
    runtimes.put_in_force(snapshot(provider("a", headers={"openai-project": "p"})))
    await trio.testing.wait_all_tasks_blocked()
    assert (opener.opened["a"], opener.closed["a"]) == (2, 1)
    runtimes.close()


async def test_a_runtime_that_cannot_be_built_is_a_sentinel_and_tried_again_with_the_next_change(
    nursery: trio.Nursery,
) -> None:
    opener = Opener(broken={"a"})
    runtimes = Runtimes(nursery, opener)
    first = snapshot(provider("a"), provider("b"))
    runtimes.put_in_force(first)
    table = runtimes.take(first)
    await table.wait_opened()
    sentinel = table.get("a")
    assert isinstance(sentinel, UnavailableProvider)
    assert sentinel.refusal.code == "provider_misconfigured"
    assert sentinel.reason == "unexpected ValueError; the gateway's log has more"
    assert "no" not in sentinel.refusal.message.split()
    assert isinstance(table.get("b"), ProviderRuntime)
    opener.broken.clear()
    second = snapshot(provider("a"), provider("b"), provider("c"))
    runtimes.put_in_force(second)
    newer = runtimes.take(second)
    await newer.wait_opened()
    assert isinstance(newer.get("a"), ProviderRuntime)
    runtimes.release(table)
    runtimes.release(newer)
    runtimes.close()
    await trio.testing.wait_all_tasks_blocked()
    assert opener.opened == opener.closed == {"a": 1, "b": 1, "c": 1}
    assert runtimes.open_count == 0


async def test_a_disabled_provider_opens_nothing(nursery: trio.Nursery) -> None:
    opener = Opener()
    runtimes = Runtimes(nursery, opener)
    table = runtimes.take(snapshot(provider("a", enabled=False)))
    await table.wait_opened()
    sentinel = table.get("a")
    assert isinstance(sentinel, UnavailableProvider)
    assert sentinel.refusal.code == "provider_disabled"
    runtimes.release(table)
    assert not opener.opened


async def test_runtimes_outlive_the_cancellation_of_their_nursery_until_they_are_released() -> None:
    opener = Opener()
    async with trio.open_nursery() as nursery:
        runtimes = Runtimes(nursery, opener)
        table = runtimes.take(snapshot(provider("a")))
        await table.wait_opened()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
            assert not opener.closed
        runtimes.release(table)
    assert opener.closed == {"a": 1}


async def test_one_that_is_released_while_it_opens_is_closed_all_the_same(
    nursery: trio.Nursery,
) -> None:
    opener = Opener(hold=trio.Event())
    runtimes = Runtimes(nursery, opener)
    table = runtimes.take(snapshot(provider("a")))
    await trio.testing.wait_all_tasks_blocked()
    runtimes.release(table)
    assert opener.hold is not None
    opener.hold.set()
    await trio.testing.wait_all_tasks_blocked()
    assert opener.opened == opener.closed == {"a": 1}


async def test_what_was_found_good_is_opened_by_its_first_use(nursery: trio.Nursery) -> None:
    def check(provider: Provider) -> None:
        if provider.name == "bad":
            raise ValueError("no")

    opener = Opener(broken={"worse"})
    runtimes = Runtimes(nursery, opener, check)
    first = snapshot(*map(provider, ("a", "b", "bad", "worse")), provider("off", enabled=False))
    runtimes.put_in_force(first)
    table = runtimes.take(first)
    await table.wait_opened()
    assert not opener.opened
    assert runtimes.open_count == 0
    assert table.get("a") is None, "nobody knows yet"
    assert isinstance(table.get("bad"), UnavailableProvider)
    assert isinstance(await table.use("bad"), UnavailableProvider)
    assert isinstance(await table.use("off"), UnavailableProvider)
    assert await table.use("c") is None

    used: list[ProviderRuntime | UnavailableProvider | None] = []

    async def use() -> None:
        used.append(await table.use("a"))

    async with trio.open_nursery() as users:
        for _ in range(3):
            users.start_soon(use)
    assert used == [table.get("a")] * 3
    assert isinstance(used[0], ProviderRuntime)
    assert isinstance(await table.use("worse"), UnavailableProvider)
    assert opener.opened == {"a": 1}

    second = snapshot(provider("a"), provider("worse"))
    runtimes.put_in_force(second)
    runtimes.release(table)
    newer = runtimes.take(second)
    assert newer.get("a") is used[0]
    opener.broken.clear()
    assert isinstance(await newer.use("worse"), ProviderRuntime), "tried again"
    runtimes.release(newer)
    runtimes.close()
    await trio.testing.wait_all_tasks_blocked()
    assert opener.opened == opener.closed == {"a": 1, "worse": 1}
    assert runtimes.open_count == 0


async def test_one_that_cannot_be_built_is_served_by_its_last_good_form(
    nursery: trio.Nursery,
) -> None:
    opener = Opener()
    runtimes = Runtimes(nursery, opener)
    good = provider("a")
    runtimes.put_in_force(snapshot(good))
    first = runtimes.take_in_force()
    await first.wait_opened()
    opener.broken.add("a")
    # Twice: what stands in for a bad one stands in for the next bad one, too.
    for path in ("v2", "v3"):
        bad = attrs.evolve(good, base_url=f"https://api.example/{path}")
        runtimes.put_in_force(snapshot(bad))
        table = runtimes.take_in_force()
        await table.wait_opened()
        sentinel = table.get("a")
        assert isinstance(sentinel, UnavailableProvider)
        assert "ValueError" in sentinel.reason
        assert await table.use("a") is await first.use("a")
        runtimes.release(table)
    runtimes.release(first)
    await trio.testing.wait_all_tasks_blocked()
    assert opener.closed["a"] == 0
    opener.broken.clear()
    runtimes.put_in_force(snapshot(attrs.evolve(good, base_url="https://api.example/v4")))
    table = runtimes.take_in_force()
    await table.wait_opened()
    target = await table.use("a")
    assert isinstance(target, ProviderRuntime)
    assert str(target.provider.base_url) == "https://api.example/v4"
    runtimes.release(table)
    await trio.testing.wait_all_tasks_blocked()
    assert (opener.opened["a"], opener.closed["a"]) == (2, 1)
    runtimes.close()
    await trio.testing.wait_all_tasks_blocked()
    assert runtimes.open_count == 0


async def test_the_last_good_form_that_was_never_used_is_opened_when_it_has_to_serve(
    nursery: trio.Nursery,
) -> None:
    opener, bad = Opener(), provider("a", allow_private=True)

    def check(one: Provider) -> None:
        if one == bad:
            raise ValueError("no")

    runtimes = Runtimes(nursery, opener, check)
    runtimes.put_in_force(snapshot(provider("a")))
    runtimes.put_in_force(snapshot(bad))
    table = runtimes.take_in_force()
    assert isinstance(table.get("a"), UnavailableProvider)
    target = await table.use("a")
    assert isinstance(target, ProviderRuntime)
    assert target.provider == provider("a")
    runtimes.put_in_force(snapshot(attrs.evolve(bad, enabled=False)))
    off = runtimes.take_in_force()
    assert isinstance(await off.use("a"), UnavailableProvider)
    runtimes.release(off)
    runtimes.release(table)
    runtimes.put_in_force(snapshot())
    await trio.testing.wait_all_tasks_blocked()
    assert runtimes.open_count == 0
    assert opener.closed["a"] == 1
