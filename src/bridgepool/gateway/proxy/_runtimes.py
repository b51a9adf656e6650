"""The provider runtimes of a gateway, shared by all bridges.

Theory of operation. A runtime belongs to one `Provider` value, which is its own fingerprint: an
unchanged provider keeps its runtime, and so its upstream connections, across any number of
generations. A `RuntimeTable` maps provider names to the runtimes of one snapshot. Tables are
reference-counted by their users (each bridge, and the gateway for the snapshot in force),
runtimes by the tables that contain them; a runtime without references is closed. All of this is
bookkeeping without an `await`; each runtime lives in one task of the gateway's nursery.

A provider is checked when a table is made. The runtime of one that passed is opened by its first
request: hundreds of new providers cost little, and those without requests nothing more.

A provider that is disabled, or whose runtime cannot be built, is in the table as an
`UnavailableProvider`: it fails alone, with a reason. One that cannot be built is served by its
last good form, the runtime under that name that was in force before, if there was one. A failed
build is not remembered: the next table that names the provider tries again.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager

import attrs
import trio

from bridgepool import BridgePoolError, ProviderSnapshot
from bridgepool.gateway.providers import Provider
from bridgepool.gateway.providers._fallbacks import UnusableFallback, unusable_fallbacks
from bridgepool.gateway.proxy._provider_runtime import ProviderRuntime
from bridgepool.gateway.proxy._refusals import Refusal, provider_disabled, provider_misconfigured
from bridgepool.gateway.upstreams._resilience import admission_rules_of
from bridgepool.gateway.upstreams._upstream_state import UpstreamStates

logger = logging.getLogger("bridgepool.gateway")

Snapshot = ProviderSnapshot[Provider]


@attrs.frozen(eq=False)
class UnavailableProvider:
    """The entry of a provider that has no runtime: disabled or misconfigured."""

    provider: Provider
    refusal: Refusal
    """The answer to its requests."""
    reason: str = ""
    """Why, for operators and the control plane; never shown to clients. Empty for a disabled
    provider. Holds no secrets."""


class ProviderState(enum.Enum):
    """Whether a provider in force can be used."""

    USABLE = "usable"
    """It serves requests, or will serve its first one."""
    LAST_GOOD = "last_good"
    """It is misconfigured; its last good form serves."""
    MISCONFIGURED = "misconfigured"
    """It cannot be used, and has no last good form."""
    DISABLED = "disabled"
    """It is disabled."""


@attrs.frozen(eq=False)
class ProviderEntry:
    """A provider in force, as operators see it."""

    provider: Provider
    state: ProviderState
    reason: str
    """Why it is misconfigured; empty if it is not."""
    runtime: ProviderRuntime | None
    """What serves it; None if nothing does, or before its first request."""


CheckProvider = Callable[[Provider], None]
"""Raises the error that opening the provider's runtime would raise; must be fast."""
OpenRuntime = Callable[[Provider], AbstractAsyncContextManager[ProviderRuntime]]
"""Opens the runtime of one provider; raising means that it cannot be built."""


@attrs.define(eq=False)
class _Slot:
    """One runtime and its references."""

    provider: Provider
    tables: int = 0  # references: tables that contain it
    target: ProviderRuntime | UnavailableProvider | None = None  # None before it is open
    life: _Life | None = None  # since its opening began
    # the last good form of that provider, which serves if this one cannot; one more reference to it
    fallback: _Slot | None = None

    @property
    def unavailable(self) -> bool:
        return isinstance(self.target, UnavailableProvider)


@attrs.define(eq=False)
class _Life:
    """The events between a runtime's task and its users."""

    opened: trio.Event = attrs.field(factory=trio.Event)  # the slot's target is set
    unused: trio.Event = attrs.field(factory=trio.Event)  # no table contains it any more


@attrs.define(eq=False)
class RuntimeTable:
    """The runtimes of one snapshot by provider name. Leased from `Runtimes`."""

    snapshot: Snapshot
    _slots: dict[str, _Slot]
    _open: Callable[[_Slot], _Life]
    _users: int = 0  # bridges, and the gateway while the snapshot is in force

    def get(self, name: str) -> ProviderRuntime | UnavailableProvider | None:
        """Return the provider's runtime; None if it is unknown, or not opened yet.

        An `UnavailableProvider` has the reason, also while its last good form serves.
        """
        slot = self._slots.get(name)
        return slot.target if slot is not None else None

    def unavailable(self) -> list[UnavailableProvider]:
        """List the providers that are disabled or misconfigured, in their order."""
        targets = (slot.target for slot in self._slots.values())
        return [target for target in targets if isinstance(target, UnavailableProvider)]

    def unusable(self) -> int:
        """Count the enabled providers that are misconfigured and have no last good form."""
        return sum(
            slot.provider.enabled and slot.unavailable and slot.fallback is None
            for slot in self._slots.values()
        )

    def entries(self) -> Iterator[ProviderEntry]:
        """Yield the providers in their order."""
        for slot in self._slots.values():
            state, reason, serving = ProviderState.USABLE, "", slot
            if isinstance(slot.target, UnavailableProvider):
                state, reason = ProviderState.DISABLED, slot.target.reason
                if slot.fallback is not None:
                    state, serving = ProviderState.LAST_GOOD, slot.fallback
                elif slot.provider.enabled:
                    state = ProviderState.MISCONFIGURED
            runtime = serving.target if isinstance(serving.target, ProviderRuntime) else None
            yield ProviderEntry(slot.provider, state, reason, runtime)

    def serving(self) -> Iterator[Provider]:
        """Yield the form of each provider that serves it, or would: the last good one, if any."""
        for slot in self._slots.values():
            yield (slot.fallback or slot).provider

    async def use(self, name: str) -> ProviderRuntime | UnavailableProvider | None:
        """Return the runtime that serves that provider, opened if necessary; None if unknown.

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
        """Wait until every runtime whose opening has begun is open or has failed.

        Not a checkpoint when there is none.
        """
        for slot in self._slots.values():
            if slot.target is None and slot.life is not None:
                await slot.life.opened.wait()


@attrs.define(eq=False)
class Runtimes:
    """All open runtimes and their reference counts.

    Args:
        nursery: the nursery of the runtimes; when it is cancelled they stay open until `close`
            and the last `release`, so that closing bridges can still use them.
        open_runtime: opens one runtime; its exceptions make the provider unavailable.
        check: checks a provider when a table is made; its exceptions make the provider
            unavailable, too, and a good one is opened when it is needed. Without it, runtimes
            are opened when the table is made.
        states: what outlives the runtimes; given to those who open them, too.
    """

    _nursery: trio.Nursery
    _open_runtime: OpenRuntime
    _check: CheckProvider | None = None
    states: UpstreamStates = attrs.field(factory=UpstreamStates)
    """The states of the providers that a table lists."""
    _slots: dict[Provider, _Slot] = attrs.field(init=False, factory=dict)  # can be shared
    _tables: dict[int, RuntimeTable] = attrs.field(init=False, factory=dict)  # by id(snapshot)
    _in_force: RuntimeTable | None = attrs.field(init=False, default=None)
    _unusable_fallbacks: set[UnusableFallback] = attrs.field(init=False, factory=set)
    open_count: int = attrs.field(init=False, default=0)
    """Number of open runtimes, closing ones included."""

    @property
    def in_force(self) -> RuntimeTable:
        """The table of the snapshot in force; not leased."""
        if self._in_force is None:
            raise AssertionError("no snapshot is in force")
        return self._in_force

    def refuse_now(self, name: str) -> Refusal | None:
        """Return why the provider in force of that name may begin no response; None if it may."""
        if self._in_force is None:
            return None
        slot = self._in_force._slots.get(name)
        if slot is not None and slot.provider.enabled:
            return None
        return provider_disabled(name)

    def serving(self) -> Iterator[Provider]:
        """Yield the forms of the providers that serve; none before the first and after the end."""
        if self._in_force is not None:
            yield from self._in_force.serving()

    def put_in_force(self, snapshot: Snapshot) -> None:
        """Keep this snapshot's runtimes open instead of those of the snapshot before."""
        served = {provider.name: provider for provider in self.serving()}
        before, self._in_force = self._in_force, self.take(snapshot)
        unusable = set(unusable_fallbacks(snapshot.providers))
        for found in sorted(unusable - self._unusable_fallbacks, key=str):
            fields = {"provider": found.provider, "fallback": found.fallback}
            logger.warning("fallback cannot be used", extra={**fields, "reason": found.reason})
        self._unusable_fallbacks = unusable
        for provider in self.serving():
            # Not by its next request: others wait for their turn meanwhile.
            state = self.states.get(provider.name)
            if state is not None:
                state.resilience.admission.apply(admission_rules_of(provider))
                old = served.get(provider.name)
                if old is not None and old.keys != provider.keys:
                    state.keys.remember(key for key in old.keys if key not in provider.keys)
        if before is not None:
            self.release(before)

    def close(self) -> None:
        """Close every runtime that no bridge uses."""
        before, self._in_force = self._in_force, None
        if before is not None:
            self.release(before)

    def take(self, snapshot: Snapshot) -> RuntimeTable:
        """Lease the table of a snapshot; `release` it exactly once."""
        table = self._tables.get(id(snapshot))  # the table holds the snapshot: its id is its own
        if table is None:
            slots = self._slots_of(snapshot)
            table = self._tables[id(snapshot)] = RuntimeTable(snapshot, slots, self._begin)
        table._users += 1
        return table

    def take_in_force(self) -> RuntimeTable:
        """Lease the table of the snapshot in force; `release` it exactly once."""
        table = self.in_force
        table._users += 1
        return table

    def release(self, table: RuntimeTable) -> None:
        """Return a table; runtimes that no other table contains close in the background."""
        table._users -= 1
        if table._users:
            return
        del self._tables[id(table.snapshot)]
        for slot in table._slots.values():
            self._drop_reference(slot)

    def _drop_reference(self, slot: _Slot) -> None:
        slot.tables -= 1
        if slot.tables:
            return
        if slot.life is not None:
            slot.life.unused.set()
        self.states.release(slot.provider.name)
        if self._slots.get(slot.provider) is slot:
            del self._slots[slot.provider]
        self._release_fallback(slot)

    def _release_fallback(self, slot: _Slot) -> None:
        fallback, slot.fallback = slot.fallback, None
        if fallback is not None:
            self._drop_reference(fallback)

    def _last_good(self, name: str) -> _Slot | None:
        """Return the slot that serves that provider now; None if none does."""
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
            # Most are the same objects as in force: no need to hash them to find an equal one.
            if slot and slot.provider is provider and not slot.unavailable:
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
            self.states.lease(provider.name)
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
        """Start the task that opens the runtime of a slot."""
        life = slot.life = _Life()
        self.open_count += 1
        self._nursery.start_soon(self._live, slot, life, name=f"runtime of {slot.provider.name}")
        return life

    async def _live(self, slot: _Slot, life: _Life) -> None:
        """Open a runtime, keep it until no table contains it, close it."""
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
            # A runtime that cannot be built or fails affects its provider only. The error comes
            # from the TLS set-up, the environment, or a bug: none may end the gateway.
            slot.target = _misconfigured(slot, error)
            life.opened.set()
        finally:
            self.open_count -= 1


def _misconfigured(slot: _Slot, error: Exception) -> UnavailableProvider:
    provider = slot.provider
    fields = {
        "provider": provider.name,
        "error": str(error),
        "last_good_form_serves": slot.fallback is not None,
    }
    logger.warning("provider misconfigured", extra=fields)
    return UnavailableProvider(provider, provider_misconfigured(provider.name), _reason(error))


def _reason(error: Exception) -> str:
    """Return why a runtime could not be built; of unexpected errors only the type."""
    if isinstance(error, (BridgePoolError, ImportError)):
        return f"{type(error).__name__}: {error}"
    return f"unexpected {type(error).__name__}; the gateway's log has more"
