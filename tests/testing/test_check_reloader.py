"""`check_reloader` passes the reloaders that we ship, and finds each breach of the contract."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio

from bridgepool import ChangeBus, ProviderSnapshot, ReloadError
from bridgepool.testing import ReloaderPromiseBrokenError, check_reloader

Snapshot = ProviderSnapshot[int]


class Source:
    """A reloader on a number, and the rig that changes the number."""

    def __init__(self, bus: ChangeBus, changes: trio.abc.ReceiveChannel[None]) -> None:
        self._bus = bus
        self.changes = changes
        self.number = 0
        self.revision = 0
        self.is_broken = False

    @property
    def reloader(self) -> "Source":
        return self

    async def reload(self) -> Snapshot:
        await trio.lowlevel.checkpoint()
        if self.is_broken:
            raise ReloadError("the source is broken")
        return Snapshot([self.number], self.revision)

    async def change(self, number: int) -> None:
        self.number, self.is_broken = number, False
        self.revision += 1
        self._bus.publish()
        await trio.lowlevel.checkpoint()

    async def break_source(self) -> None:
        self.is_broken = True
        await trio.lowlevel.checkpoint()


class RaisesAnything(Source):
    async def reload(self) -> Snapshot:
        await trio.lowlevel.checkpoint()
        if self.is_broken:
            raise KeyError("oops")
        return await super().reload()


class NeverFails(Source):
    async def reload(self) -> Snapshot:
        await trio.lowlevel.checkpoint()
        return Snapshot([self.number], self.revision)


class GoesBack(Source):
    async def reload(self) -> Snapshot:
        snapshot = await super().reload()
        return Snapshot(snapshot.providers, -self.revision)


class IsStuckOnceCancelled(Source):
    _is_reloading = False

    async def reload(self) -> Snapshot:
        if self._is_reloading:
            return Snapshot([-1], self.revision)
        self._is_reloading = True
        snapshot = await super().reload()
        self._is_reloading = False
        return snapshot


class IsLockedOnceCancelled(Source):
    _is_reloading = False

    async def reload(self) -> Snapshot:
        if self._is_reloading:
            raise RuntimeError("locked")
        self._is_reloading = True
        try:
            snapshot = await super().reload()
        except ReloadError:
            self._is_reloading = False
            raise
        self._is_reloading = False
        return snapshot


class NeverYields(Source):
    async def reload(self) -> Snapshot:
        if self.is_broken:
            raise ReloadError("the source is broken")
        return Snapshot([self.number], self.revision)


class CountsNothing(Source):
    async def reload(self) -> Snapshot:
        return Snapshot((await super().reload()).providers, 1)


class ForgetsToTell(Source):
    async def change(self, number: int) -> None:
        self.number, self.is_broken = number, False
        self.revision += 1
        await trio.lowlevel.checkpoint()


def rig(kind: type[Source]) -> Callable[[], AbstractAsyncContextManager[Source]]:
    @asynccontextmanager
    async def open_rig() -> AsyncIterator[Source]:
        bus = ChangeBus()
        async with bus.subscribe() as changes:
            yield kind(bus, changes)

    return open_rig


def test_a_good_reloader_passes() -> None:
    check_reloader(rig(Source))


@pytest.mark.parametrize(
    ("kind", "breach"),
    [
        (RaisesAnything, "not a ReloadError"),
        (NeverFails, "must raise ReloadError"),
        (GoesBack, "revisions must not go back"),
        (IsStuckOnceCancelled, "a cancelled reload must not affect the next one"),
        (IsLockedOnceCancelled, r"a reload after a cancelled one: RuntimeError\('locked'\)"),
        (NeverYields, r"reload\(\) must be a checkpoint"),
        (CountsNothing, "a revision must grow with each change"),
        (ForgetsToTell, "must reach the source's last state"),
    ],
)
def test_a_breach_of_the_contract_is_found(kind: type[Source], breach: str) -> None:
    with pytest.raises(ReloaderPromiseBrokenError, match=breach):
        check_reloader(rig(kind))
