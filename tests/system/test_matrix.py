"""Every change, to the control plane on each engine, seen through each kind of gateway.

Each step is asserted by real requests through one gateway that runs all the time; a stream that
began before the step finishes on the provider as it was; a known client asks another provider
all the time, and none of its requests fails.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import attrs
import pytest
import trio

from bridgepool.gateway.demo._upstream import SimulatedUpstream
from tests.system.asking import GENEROUS, Front, Gate, Home, slowly, used_key
from tests.system.load import Load, open_load
from tests.system.rig import Plane, make_home, memory_source, open_front, open_plane, run_front

Opener: TypeAlias = Callable[[Plane], AbstractAsyncContextManager[Front]]


@asynccontextmanager
async def in_memory(plane: Plane) -> AsyncIterator[Front]:
    """In the process of the control plane, fed from its store without a socket between."""
    async with open_front(plane.home, memory_source(plane)) as (front, _):
        yield front


@asynccontextmanager
async def embedded(plane: Plane) -> AsyncIterator[Front]:
    """A process that opens the store itself."""
    async with run_front(plane.home, *plane.home.embedded()) as (front, _):
        yield front


@asynccontextmanager
async def standalone(plane: Plane) -> AsyncIterator[Front]:
    """A process that follows the control plane over a websocket."""
    async with run_front(plane.home, *plane.home.standalone()) as (front, _):
        yield front


@attrs.define(eq=False)
class Story:
    """One change after the other."""

    front: Front
    load: Load
    upstreams: dict[str, SimulatedUpstream]
    gates: dict[str, Gate]
    took: dict[str, float] = attrs.field(factory=dict)

    async def look(self, name: str) -> tuple[object, str | None]:
        """Ask a provider, and tell who answered, or with which error, and the key it was shown."""
        outcome = await self.front.outcome(name)
        upstream = self.upstreams.get(str(outcome))
        return outcome, used_key(upstream) if upstream is not None else None

    async def see(self, outcome: str, key: str | None, name: str) -> None:
        """See that all new requests have that outcome."""
        for _ in range(3):
            assert await self.look(name) == (outcome, key)

    @asynccontextmanager
    async def step(
        self, what: str, name: str, *, then: tuple[str, str | None], streamed: str, by: str
    ) -> AsyncIterator[None]:
        """Make a change in the block.

        Args:
            what: The change.
            name: The provider that is asked after it.
            then: What comes of that, and the key that the upstream is shown.
            streamed: The provider of a stream that begins before it.
            by: Who serves that stream, from its first word to its last.
        """
        self.gates[by].shut()
        async with self.front.stream(streamed) as stream:
            assert await self.look(name) != then
            yield
            began = trio.current_time()
            with trio.fail_after(GENEROUS):
                while await self.look(name) != then:  # noqa: ASYNC110 -- no event tells
                    await trio.sleep(0.002)
            self.took[what] = trio.current_time() - began
            await self.see(*then, name)
            await self.load.wait_more(1)
            assert self.upstreams[by].streaming == 1, "it runs still"
            self.gates[by].open()
            assert await stream.finish() == by


@pytest.mark.parametrize("opener", [in_memory, embedded, standalone])
async def test_each_change_is_served_without_a_restart_and_no_stream_is_cut(
    database_url: str,
    opener: Opener,
    tmp_path: Path,
    north: SimulatedUpstream,
    south: SimulatedUpstream,
    steady: SimulatedUpstream,
) -> None:
    upstreams = {upstream.identity: upstream for upstream in (north, south)}
    gates = {identity: Gate() for identity in upstreams}
    north.before_word, south.before_word = gates.values()
    steady.before_word = slowly
    home = await make_home(tmp_path, database_url)
    with trio.fail_after(180):
        async with open_plane(home) as plane:
            await home.add("ai", steady)
            await home.add("first", north, "sk-first")
            async with opener(plane) as front:
                await front.wait_outcome("steady")
                await front.wait_outcome("north", "first")
                async with open_load(front.url, front.key) as load:
                    story = Story(front, load, upstreams, gates)
                    await _tell(home, story, north, south)
                revision = (await home.api("GET", "revision"))["revision"]
                told = [row["state"] for row in await home.wait_applied(revision)]
                assert told == (["applied"] if opener is standalone else [])
    listed = ", ".join(f"{what} {took * 1000:.0f} ms" for what, took in story.took.items())
    print(f"from the API's answer to the first request served by it: {listed}")
    assert max(story.took.values()) < 60  # a poll comes after minutes


async def _tell(
    home: Home, story: Story, north: SimulatedUpstream, south: SimulatedUpstream
) -> None:
    then: tuple[str, str | None] = ("north", "sk-one")
    async with story.step("create", "openai", then=then, streamed="first", by="north"):
        await home.add("openai", north, "sk-one")

    then = ("south", "sk-one")
    async with story.step("base URL", "openai", then=then, streamed="openai", by="north"):
        await home.change("openai", base_url=south.openai_url)

    then = ("south", "sk-two")
    async with story.step("key", "openai", then=then, streamed="openai", by="south"):
        await home.change("openai", keys=[{"value": "sk-two"}])

    then = ("provider_disabled", None)
    async with story.step("disable", "openai", then=then, streamed="openai", by="south"):
        await home.api("POST", "providers/openai/disable?allow_empty=true")

    then = ("south", "sk-two")
    async with story.step("enable", "openai", then=then, streamed="first", by="north"):
        await home.api("POST", "providers/openai/enable")

    async with story.step("rename", "renamed", then=then, streamed="openai", by="south"):
        await home.change("openai", name="renamed")
    await story.see("unknown_provider", None, "openai")

    # The name is free again; two of one type, each with its own upstream and key.
    then = ("north", "sk-three")
    async with story.step("second", "openai", then=then, streamed="renamed", by="south"):
        await home.add("openai", north, "sk-three")
    await story.see("south", "sk-two", "renamed")

    then = ("unknown_provider", None)
    async with story.step("delete", "renamed", then=then, streamed="renamed", by="south"):
        await home.api("DELETE", "providers/renamed?allow_empty=true")
    await story.see("north", "sk-three", "openai")
    assert [row["name"] for row in (await home.api("GET", "providers"))["providers"]] == [
        "ai",
        "first",
        "openai",
    ]
