"""Provider runtimes: what is live for one provider, shared by every bridge that needs it.

Theory of operation. A runtime belongs to one `Provider` value, which is its own fingerprint:
an unchanged provider keeps its runtime, and so its upstream connections, across any number of
generations. A `RuntimeTable` names the runtimes of one snapshot. Tables are counted by those who
use them (each bridge, and the gateway for the snapshot in force), runtimes by the tables that
name them; what nobody counts any more is closed, idle connections and all. All of this is
bookkeeping without an `await`; each runtime's life is one task in the registry's nursery.

What can be wrong with a provider is found when it comes into a table, and the runtime of one
that was found good is opened by the first request for it: so hundreds of new providers cost
little when they come, and those that nobody asks for nothing more.

A provider that is disabled, or whose runtime cannot be built, is in the table as an
`UnavailableProvider`: it fails alone, with a reason. One that cannot be built is served by its
last good form, the runtime under that name that was in force before, if there was one. A failed
build is not remembered: the next table that names the provider tries again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import attrs
import trio

from bridgepool import BridgePoolError, ProviderSnapshot
from bridgepool.gateway.providers import Provider
from bridgepool.gateway.proxy._provider_runtime import ProviderRuntime
from bridgepool.gateway.proxy._refusals import Refusal, provider_disabled, provider_misconfigured

logger = logging.getLogger("bridgepool.gateway")

Snapshot = ProviderSnapshot[Provider]


@attrs.frozen(eq=False)
class UnavailableProvider:
    """Stands in a route table where there is no runtime."""

    provider: Provider
    refusal: Refusal
    """What requests get."""
    reason: str = ""
    """Why, for operators; never shown to clients. Empty for one that is switched off. Holds no
    secrets: it is told to the control plane."""


CheckProvider = Callable[[Provider], None]
"""Raises what opening the provider's runtime would; must be fast."""
OpenRuntime = Callable[[Provider], AbstractAsyncContextManager[ProviderRuntime]]
"""Opens the runtime of one provider; raising means that it cannot be built."""


@attrs.define(eq=False)
class _Slot:
    """One runtime with its count: the registry's side of it."""

    provider: Provider
    tables: int = 0  # route tables that name it
    target: ProviderRuntime | UnavailableProvider | None = None  # None before it is open
    life: _Life | None = None  # since its opening began
    # the last good form of that provider: it serves if this one cannot, and counts this as a table
    fallback: _Slot | None = None

    @property
    def unavailable(self) -> bool:
        return isinstance(self.target, UnavailableProvider)


@attrs.define(eq=False)
class _Life:
    """What the task of a runtime waits for, and who waits for the task."""

    opened: trio.Event = attrs.field(factory=trio.Event)  # the slot's target is set
    unused: trio.Event = attrs.field(factory=trio.Event)  # no table names it any more


@attrs.define(eq=False)
class RuntimeTable:
    """The runtimes of one snapshot by provider name. Taken from `Runtimes`."""

    snapshot: Snapshot
    _slots: dict[str, _Slot]
    _open: Callable[[_Slot], _Life]
    _users: int = 0  # bridges, and the gateway while the snapshot is in force

    def get(self, name: str) -> ProviderRuntime | UnavailableProvider | None:
        """Return what is known of that provider; None if nothing, or if it is not opened yet.

        An `UnavailableProvider` tells what is wrong with it, also while its last good form serves.
        """
        slot = self._slots.get(name)
        return slot.target if slot is not None else None

    def unavailable(self) -> list[UnavailableProvider]:
        """List what stands in for providers that cannot be used, or may not, in their order."""
        targets = (slot.target for slot in self._slots.values())
        return [target for target in targets if isinstance(target, UnavailableProvider)]

    async def use(self, name: str) -> ProviderRuntime | UnavailableProvider | None:
        """Return what serves that provider, opened if need be; None if there is none.

        Not a checkpoint when it is open.
        """
        slot = self._slots.get(name)
        if slot is None:
            return None
        target = await self._opened(slot)
        if isinstance(target, UnavailableProvider) and slot.fallback is not None:
            return await self._opened(slot.fallback)
        return target

    async def _opened(self, slot: _Slot) -> ProviderRuntime | UnavailableProvider | None:
        if slot.target is None:
            await (slot.life or self._open(slot)).opened.wait()
        return slot.target

    async def wait_opened(self) -> None:
        """Wait until every runtime whose opening has begun is open or has failed to open.

        Not a checkpoint when there is none to wait for.
        """
        for slot in self._slots.values():
            if slot.target is None and slot.life is not None:
                await slot.life.opened.wait()


@attrs.define(eq=False)
class Runtimes:
    """Every open runtime, and who needs it.

    Args:
        nursery: where the runtimes live; when it is cancelled they stay open until `close`
            and the last `release`, so that bridges which are closing still find them.
        open_runtime: opens one runtime; its exceptions become sentinels.
        check: checks a provider when it comes; its exceptions become sentinels, too, and what is
            good is opened when it is needed. Without, runtimes are opened when they come.
    """

    _nursery: trio.Nursery
    _open_runtime: OpenRuntime
    _check: CheckProvider | None = None
    _slots: dict[Provider, _Slot] = attrs.field(init=False, factory=dict)  # may be joined
    _tables: dict[int, RuntimeTable] = attrs.field(init=False, factory=dict)  # by id(snapshot)
    _in_force: RuntimeTable | None = attrs.field(init=False, default=None)
    _open: int = attrs.field(init=False, default=0)

    @property
    def open_count(self) -> int:
        """Runtimes that are open, those that are closing included."""
        return self._open

    def put_in_force(self, snapshot: Snapshot) -> None:
        """Keep this snapshot's runtimes open, used or not, and no longer those of the last."""
        before, self._in_force = self._in_force, self.take(snapshot)
        if before is not None:
            self.release(before)

    def close(self) -> None:
        """Keep nothing open any more that no bridge uses."""
        before, self._in_force = self._in_force, None
        if before is not None:
            self.release(before)

    def take(self, snapshot: Snapshot) -> RuntimeTable:
        """Lease the route table of a snapshot; `release` it exactly once."""
        table = self._tables.get(id(snapshot))  # the table holds the snapshot: its id is its own
        if table is None:
            slots = self._slots_of(snapshot)
            table = self._tables[id(snapshot)] = RuntimeTable(snapshot, slots, self._begin)
        table._users += 1
        return table

    def take_in_force(self) -> RuntimeTable:
        """Lease the route table of what is in force; `release` it exactly once."""
        if self._in_force is None:
            raise AssertionError("nothing is in force")
        self._in_force._users += 1
        return self._in_force

    def release(self, table: RuntimeTable) -> None:
        """Give a table back; runtimes that no other table names close in the background."""
        table._users -= 1
        if table._users:
            return
        del self._tables[id(table.snapshot)]
        for slot in table._slots.values():
            self._leave(slot)

    def _leave(self, slot: _Slot) -> None:
        slot.tables -= 1
        if slot.tables:
            return
        if slot.life is not None:
            slot.life.unused.set()
        if self._slots.get(slot.provider) is slot:
            del self._slots[slot.provider]
        self._release_fallback(slot)

    def _release_fallback(self, slot: _Slot) -> None:
        fallback, slot.fallback = slot.fallback, None
        if fallback is not None:
            self._leave(fallback)

    def _last_good(self, name: str) -> _Slot | None:
        """Return what serves that provider now; None if nothing does."""
        slot = self._in_force._slots.get(name) if self._in_force is not None else None
        if slot is not None and slot.unavailable:
            return slot.fallback
        return slot

    def _slots_of(self, snapshot: Snapshot) -> dict[str, _Slot]:
        in_force = self._in_force._slots if self._in_force is not None else {}
        slots: dict[str, _Slot] = {}
        for provider in snapshot.providers:
            name = provider.name
            slot = in_force.get(name)
            # Most are the very ones in force, and need no dearer look for one that is equal.
            if (
                slot
                and slot.provider is provider
                and not isinstance(slot.target, UnavailableProvider)
            ):
                slot.tables += 1
            else:
                slot = self._slot(provider)
            slots[name] = slot
        return slots

    def _slot(self, provider: Provider) -> _Slot:
        slot = self._slots.get(provider)
        failed = slot is not None and slot.unavailable and provider.enabled
        if slot is None or failed:
            slot = self._slots[provider] = _Slot(provider)
            if not provider.enabled:
                slot.target = UnavailableProvider(provider, provider_disabled(provider.name))
            elif self._check is None:
                self._add_fallback(slot)
                self._begin(slot)
            else:
                try:
                    self._check(provider)
                except Exception as error:
                    self._add_fallback(slot)
                    slot.target = _misconfigured(slot, error)
        slot.tables += 1
        return slot

    def _add_fallback(self, slot: _Slot) -> None:
        slot.fallback = self._last_good(slot.provider.name)
        if slot.fallback is not None:
            slot.fallback.tables += 1

    def _begin(self, slot: _Slot) -> _Life:
        """Have a task open the runtime of a slot."""
        life = slot.life = _Life()
        self._open += 1
        self._nursery.start_soon(self._live, slot, life, name=f"runtime of {slot.provider.name}")
        return life

    async def _live(self, slot: _Slot, life: _Life) -> None:
        """Open a runtime, keep it until no table names it, close it."""
        provider = slot.provider
        try:
            # No deadline of its own: `unused` comes when the last bridge has closed, and the
            # pool closes every bridge in bounded time, cancelled or not.
            with trio.CancelScope(shield=True):
                async with self._open_runtime(provider) as runtime:
                    slot.target = runtime
                    self._release_fallback(slot)
                    life.opened.set()
                    await life.unused.wait()
        except Exception as error:
            # What cannot be built or breaks down is this provider's own trouble. The error
            # comes from TLS set-up, the environment, or a bug: none may end the gateway.
            slot.target = _misconfigured(slot, error)
            life.opened.set()
        finally:
            self._open -= 1


def _misconfigured(slot: _Slot, error: Exception) -> UnavailableProvider:
    provider = slot.provider
    facts = {"last_good_form_serves": slot.fallback is not None}
    logger.warning("provider %s is misconfigured: %s", provider.name, error, extra=facts)
    return UnavailableProvider(provider, provider_misconfigured(provider.name), _reason(error))


def _reason(error: Exception) -> str:
    """Say why a runtime could not be built; of errors that are not foreseen, only the type."""
    if isinstance(error, (BridgePoolError, ImportError)):
        return f"{type(error).__name__}: {error}"
    return f"unexpected {type(error).__name__}; the gateway's log has more"
