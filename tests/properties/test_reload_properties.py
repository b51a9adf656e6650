"""Whatever happens to notices and reloads, a pool ends at its source's last revision and on the
way there never goes back."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Literal

import attrs
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from bridgepool import ProviderSnapshot, ReloadError, open_bridge_pool
from bridgepool._changes import ChangeBus
from bridgepool._pool import Replacement
from bridgepool._reload import ReloadStatus, watch_providers

Snapshot = ProviderSnapshot[int]
_POLL = 100.0
_HEALTHY_AGAIN = 1000.0  # more than a poll after the longest retry


@attrs.frozen
class Change:
    """The providers change at the source; `same` changes the revision alone."""

    notice: Literal["given", "lost", "late", "storm"]
    same: bool


@attrs.frozen
class Wait:
    seconds: float


@attrs.frozen
class Trouble:
    """How the next reload goes."""

    kind: Literal["fails", "bug", "slow", "hangs", "old"]


@attrs.frozen
class EndOfNotices:
    pass


Step = Change | Wait | Trouble | EndOfNotices
steps = st.one_of(
    st.builds(Change, st.sampled_from(["given", "lost", "late", "storm"]), st.booleans()),
    st.builds(Wait, st.sampled_from([0.0, 0.01, 0.09, 0.5, 3.0, 40.0, 150.0])),
    st.builds(Trouble, st.sampled_from(["fails", "bug", "slow", "hangs", "old"])),
    st.just(EndOfNotices()),
)


@attrs.define(eq=False)
class Source:
    """The truth, and a reloader that is as unreliable as the script says."""

    bus: ChangeBus = attrs.field(factory=ChangeBus)
    history: list[Snapshot] = attrs.field(factory=lambda: [Snapshot([1], 1)])
    troubles: list[str] = attrs.field(factory=list)
    closed: bool = False

    @property
    def now(self) -> Snapshot:
        return self.history[-1]

    def change(self, same: bool) -> None:
        revision = (self.now.revision or 0) + 1
        self.history.append(Snapshot(self.now.providers if same else [revision], revision))

    def publish(self) -> None:
        if not self.closed:
            self.bus.publish()

    async def reload(self) -> Snapshot:
        trouble = self.troubles.pop(0) if self.troubles else "none"
        read = self.history[-3:][0] if trouble == "old" else self.now
        if trouble == "hangs":
            await trio.sleep_forever()
        await trio.sleep(2.0 if trouble == "slow" else 0.001)
        if trouble == "fails":
            raise ReloadError("down")
        if trouble == "bug":
            raise RuntimeError("a bug")
        return read


@attrs.define(eq=False)
class Recording:
    """Stands before a pool and keeps what was in force after every replacement."""

    pool: "object"
    in_force: list[Snapshot] = attrs.field(factory=list)

    def replace_providers(self, snapshot: Snapshot) -> Replacement:
        replacement: Replacement = self.pool.replace_providers(snapshot)  # type: ignore[attr-defined]  # generic in what the test does not use
        self.in_force.append(self.pool.snapshot)  # type: ignore[attr-defined]  # as above
        return replacement


@asynccontextmanager
async def open_bridge(key: str, snapshot: Snapshot) -> AsyncIterator[str]:
    yield key


async def carry_out(script: list[Step], source: Source) -> None:
    for step in script:
        if isinstance(step, Wait):
            await trio.sleep(step.seconds)
        elif isinstance(step, Trouble):
            source.troubles.append(step.kind)
        elif isinstance(step, EndOfNotices):
            source.closed = True
            source.bus.close()
        else:
            source.change(step.same)
            if step.notice == "late":
                await trio.sleep(1.0)
            for _ in range({"lost": 0, "storm": 200}.get(step.notice, 1)):
                source.publish()


async def run(script: list[Step]) -> None:
    source = Source()
    status = ReloadStatus()
    async with open_bridge_pool(open_bridge, Snapshot([0], 0)) as pool:
        recording = Recording(pool)
        watch = partial(watch_providers, status=status, poll_interval=_POLL)
        async with trio.open_nursery() as nursery:
            await nursery.start(watch, recording, source, source.bus.subscribe())
            begun = trio.current_time()
            await carry_out(script, source)
            lasted = trio.current_time() - begun
            attempts = status.attempts
            await trio.sleep(_HEALTHY_AGAIN)
            assert pool.snapshot == source.now
            assert status.revision == source.now.revision
            assert status.failures_in_a_row == 0
            assert status.staleness <= _POLL + 1
            revisions = [snapshot.revision or 0 for snapshot in recording.in_force]
            assert revisions == sorted(revisions)
            assert all(snapshot in source.history for snapshot in recording.in_force)
            counted = status.applied + status.unchanged + status.out_of_date + status.failures
            assert counted == status.attempts
            # Bounded by notices and time, and not by how often the storm was seen.
            changes = sum(isinstance(step, Change) for step in script)
            troubles = sum(isinstance(step, Trouble) for step in script)
            assert attempts <= 2 + 2 * changes + 2 * troubles + lasted / (0.8 * _POLL) + 1
            nursery.cancel_scope.cancel()


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=25))
def test_a_pool_converges_to_the_last_revision_and_never_goes_back(script: list[Step]) -> None:
    trio.run(run, script, clock=MockClock(autojump_threshold=0))


def test_a_change_whose_notice_was_lost_during_an_outage_is_found() -> None:
    """The shape that a watcher without poll or retry gets wrong."""
    script: list[Step] = [
        Trouble("fails"),
        Trouble("hangs"),
        Change("given", same=False),
        Wait(0.01),
        Change("lost", same=False),
        EndOfNotices(),
    ]
    trio.run(run, script, clock=MockClock(autojump_threshold=0))
