"""The shares of clients' limits that a control plane gives, and what it keeps of them in the store.

Theory of operation. What is spent of a budget is in the store, for all control planes on it and for
the next one: each draws from there in small parts, many budgets in one transaction, and gives what
it drew (`limits/_shares`). A report waits a moment for what is to be drawn. While the store cannot
be written, what was drawn is given and then nothing.

Of the other limits each running control plane gives an equal part.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Final

import attrs
import trio

from bridgepool._services import open_service_nursery
from bridgepool.gateway.control._errors import StoreError
from bridgepool.gateway.control._store_access import StoreAccess
from bridgepool.gateway.control.store import Store, budgets_of
from bridgepool.gateway.limits._kinds import BUDGETS
from bridgepool.gateway.limits._share_pool import Share, ShareDemand
from bridgepool.gateway.limits._shares import ShareLedger

logger = logging.getLogger("bridgepool.control")

_DRAW_TIMEOUT: Final = 0.3  # seconds that a report waits for what is drawn
_MOST: Final = 500  # draws of one transaction
_SILENT_AFTER: Final = 5  # looks; control planes register again at every second one
_FORGET_EVERY: Final = 3600.0
_GIVE_BACK_TIMEOUT: Final = 2.0


@attrs.define(eq=False)
class LimitShares:
    """The shares of clients' limits that gateways hold; `Hub.limits` keeps budgets in its store."""

    _wall: Callable[[], float] = time.time
    _ledger: ShareLedger = attrs.field(factory=lambda: ShareLedger(trio.current_time()), init=False)
    _wanted: trio.Event = attrs.field(factory=trio.Event, init=False)
    _drawn: trio.Event = attrs.field(factory=trio.Event, init=False)  # of the next transaction
    _memory_logged: bool = attrs.field(default=False, init=False)

    @property
    def in_memory(self) -> bool:
        """Whether what is spent of budgets ends with this process."""
        return not self._ledger.stored

    def begin(self, instance: str) -> None:
        """Note that a session with a gateway process has begun."""
        self._ledger.begin(instance)

    def end(self, instance: str) -> None:
        """Note that a session has ended."""
        self._ledger.end(instance, trio.current_time())

    async def run_draws(self, store: Store, pause: float) -> None:
        """Draw what is wanted from the store, until cancelled."""
        access = StoreAccess("budgets cannot be drawn from the store", "budgets can be drawn again")

        async def draw() -> None:
            while draws := self._ledger.draws(trio.current_time(), _MOST):
                done, self._drawn = self._drawn, trio.Event()
                try:
                    drawn = await budgets_of(store).draw(draws)
                    self._ledger.drew(draws, drawn, trio.current_time())
                finally:
                    done.set()

        async def wait_wanted() -> None:
            await trio.sleep(pause)
            await self._wanted.wait()
            self._wanted = trio.Event()

        await access.keep_trying(draw, wait_wanted)

    async def run_looks(self, store: Store, control_plane: str, interval: float) -> None:
        """Look which control planes run, until cancelled."""
        # control plane, last contact -> when it was first seen so
        seen: dict[tuple[str, datetime], float] = {}
        while True:
            try:
                running = await store.programs.list_running()
            except StoreError:
                pass  # the parts stay as they are
            else:
                now = trio.current_time()
                contacts = [
                    (row.name, row.last_contact)
                    for row in running
                    if row.program == "control plane"
                ]
                seen = {contact: seen.get(contact, now) for contact in contacts}
                limit = now - _SILENT_AFTER * interval
                alive = {name for (name, _), since in seen.items() if since > limit}
                names = sorted({*alive, control_plane})
                self._ledger.part = names.index(control_plane), len(names)
            await trio.sleep(interval)

    async def give_back(self, store: Store) -> None:
        """Return what was drawn of budgets to the store, without what gateways hold."""
        draws = self._ledger.give_back()
        if draws:
            await budgets_of(store).draw(draws)


async def lease_shares(
    shares: LimitShares, instance: str, demands: Iterable[ShareDemand]
) -> tuple[Share, ...]:
    """Take the report of a gateway process, and return its next shares; a checkpoint."""
    ledger, demands = shares._ledger, list(demands)
    is_news = shares.in_memory and not shares._memory_logged
    if is_news and any(asked.rule in BUDGETS for asked in demands):
        shares._memory_logged = True
        logger.warning("budgets of clients are in memory; a restart begins them anew")
    noted = ledger.note(instance, demands, trio.current_time(), shares._wall())
    if ledger.lacks_draws(noted):
        shares._wanted.set()
        with trio.move_on_after(_DRAW_TIMEOUT):
            await shares._drawn.wait()
    else:
        await trio.lowlevel.checkpoint()
    return ledger.give(noted, trio.current_time())


async def _forget_old(store: Store) -> None:
    while True:
        with suppress(StoreError):  # there is another time
            await budgets_of(store).forget_old()
        await trio.sleep(_FORGET_EVERY)


@asynccontextmanager
async def open_limit_shares(
    store: Store,
    control_plane: str,
    *,
    wall: Callable[[], float] = time.time,
    pause: float = 0.1,
    look_interval: float = 5.0,
) -> AsyncIterator[LimitShares]:
    """Give shares of limits for as long as the block lasts, with budgets in a store.

    Args:
        store: The store.
        control_plane: The name of this control plane, as it is registered.
        wall: Returns the seconds since the epoch.
        pause: Seconds between two transactions at least.
        look_interval: Seconds between two looks at which control planes run.

    Resource handling:
        Leaving returns what was drawn of budgets, without what gateways hold; at most 2 s.

    Raises:
        StoreError: The store cannot be read.
    """
    rows = await store.list_gateways()
    awaited = [row.instance for row in rows if row.connected or row.reconnecting]
    shares = LimitShares(wall)
    shares._ledger = ShareLedger(trio.current_time(), awaited, True)
    async with open_service_nursery() as nursery:
        nursery.start_soon(shares.run_draws, store, pause)
        nursery.start_soon(shares.run_looks, store, control_plane, look_interval)
        nursery.start_soon(_forget_old, store)
        try:
            yield shares
        finally:
            nursery.cancel_scope.cancel()
            # What is not given back counts as spent.
            with trio.move_on_after(_GIVE_BACK_TIMEOUT, shield=True), suppress(StoreError):
                await shares.give_back(store)
