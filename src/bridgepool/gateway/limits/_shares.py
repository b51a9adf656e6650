"""Shares of clients' limits, as a control plane gives them to gateways. Pure.

Theory of operation. A limit is one pool. Each gateway holds a share of it and uses only that, so
the sum of the shares is all that can be used. A gateway asks again about every second: it reports
the share that it holds, what it has spent of a budget, and its demand; it gets its next share. A
share grows only by what nobody holds. It shrinks when the gateway says so: a smaller share that was
given is still counted in full until the gateway has confirmed it in its next question. So an answer
that is lost, late or doubled never makes the sum larger than the limit.

Shares follow demand; a gateway without any keeps the least share, so that its next request need not
wait. A share of a rate grows at once by what was asked for in the last seconds. Beyond that it
grows only by an even part of what nobody holds. So each gateway has a share when a burst is spread
over all of them. What a gateway held that is gone stays reserved for a moment, in which it connects
again if it still runs. Then it is given to others; of a rate it counts as taken, and comes back
within a minute (`_lost_shares`). What it held of a budget counts as spent after that minute. After
the start of a control plane shares hardly grow for a moment, until all gateways
have reported what they hold. A gateway that was there before and does not report may have used its
share of a rate. That share is given to others, but counts as taken, and comes back within a minute.

Of a budget that is kept in a store, only what was *drawn* from there is given: what is drawn counts
as spent in the store. So what gateways hold outlives the control plane that gave it, and the next
one, or another on the same store, takes over what a gateway reports to hold without drawing it
again. What a control plane had drawn and not given is lost if it is killed. A budget that is short
stays so until it was drawn, even if nobody asks for it any more. So after a draw that failed there
is always something to draw, and the next success is one of the store.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

import attrs

from bridgepool.gateway.limits._draws import Draw, Drawn
from bridgepool.gateway.limits._kinds import BUDGETS, RATES, WHOLE_UNITS
from bridgepool.gateway.limits._lost_shares import RESERVED_FOR
from bridgepool.gateway.limits._share_pool import Holder, PoolId, Share, ShareDemand, SharePool

SETTLING_TIME: Final = 3.0
"""Seconds after the start in which shares hardly grow."""
_MANY_POOLS: Final = 100_000  # beyond them, those that nobody uses are dropped
_MAX_POOLS: Final = 300_000  # beyond them, nothing is given of a limit that is not known
_DROP_EVERY: Final = 10.0  # seconds; each time all of them are looked at


@attrs.define(eq=False)
class ShareLedger:
    """All limits of all clients, and who holds what of them.

    Args:
        started: When the control plane started, by the clock that `lease` gets.
        awaited: The gateway processes that may hold shares then.
        stored: Whether what is spent of budgets is kept in a store; see `draws`.
    """

    started: float
    _awaited: Iterable[str] = ()
    stored: bool = False
    part: tuple[int, int] = attrs.field(default=(0, 1), init=False)
    """Which part of how many is given of the limits that are no budgets: the first is 0."""
    _missing: set[str] = attrs.field(init=False)
    _pools: dict[PoolId, SharePool] = attrs.field(factory=dict, init=False)
    # budget to be drawn, in order -> whether that was begun since the last report that lacked it
    _short: dict[PoolId, bool] = attrs.field(factory=dict, init=False)
    _dropped: float = attrs.field(default=-math.inf, init=False)  # when idle ones were dropped
    # gateway process -> how many sessions it has
    _sessions: dict[str, int] = attrs.field(factory=dict, init=False)

    @_missing.default
    def _all_awaited(self) -> set[str]:
        return set(self._awaited)

    def begin(self, holder: str) -> None:
        """Note that a session with a gateway process has begun."""
        self._missing.discard(holder)
        self._sessions[holder] = self._sessions.get(holder, 0) + 1

    def end(self, holder: str, now: float) -> None:
        """Note that a session has ended; after the last one its shares are kept for a while."""
        self._sessions[holder] -= 1
        if self._sessions[holder]:
            return
        del self._sessions[holder]
        for pool_id, pool in list(self._pools.items()):
            found = pool.holders.get(holder)
            if found is not None and found.held <= 0 and pool.period is None:
                del pool.holders[holder]
            elif found is not None:
                found.gone = now
            if not pool.holders and pool.period is None and not pool.lost.remaining(now):
                del self._pools[pool_id]

    def lease(
        self, holder: str, demands: Iterable[ShareDemand], now: float, wall: float
    ) -> tuple[Share, ...]:
        """Return the next shares of a gateway, in the order of its demands.

        Args:
            holder: The gateway process.
            demands: What it reports.
            now: Seconds of a clock that never goes back.
            wall: Seconds since the epoch.
        """
        return self.give(self.note(holder, demands, now, wall), now)

    def note(
        self, holder: str, demands: Iterable[ShareDemand], now: float, wall: float
    ) -> tuple[tuple[SharePool, Holder], ...]:
        """Take what a gateway reports; what is returned is for `give`."""
        return tuple(self._note(holder, asked, now, wall) for asked in demands)

    def give(self, noted: Iterable[tuple[SharePool, Holder]], now: float) -> tuple[Share, ...]:
        """Return the next shares of a gateway that has reported."""
        since = now - self.started
        missing = bool(self._missing) and SETTLING_TIME <= since < RESERVED_FOR
        shares = []
        for pool, holder in noted:
            held, free = holder.held, pool.limit - pool.held
            share = pool.give(holder, len(self._sessions), settling=since < SETTLING_TIME)
            taken = 0.0
            if pool.rule in RATES:
                taken = pool.lost.taken(free, share - held, now, since, missing=missing)
            holder.given = Share(share, pool.remaining, taken)
            shares.append(holder.given)
        return tuple(shares)

    def _note(
        self, holder: str, asked: ShareDemand, now: float, wall: float
    ) -> tuple[SharePool, Holder]:
        pool_id = (asked.scope, asked.id, asked.rule)
        limit = self._limit(asked)
        pool = self._pools.get(pool_id)
        if pool is None:
            if len(self._pools) >= _MANY_POOLS and now >= self._dropped + _DROP_EVERY:
                self._dropped = now
                self._drop_idle(now, wall)
            if len(self._pools) >= _MAX_POOLS:
                return SharePool(pool_id, 0.0, stored=False), Holder()
            stored = self.stored and asked.rule in BUDGETS
            pool = self._pools[pool_id] = SharePool(pool_id, limit, stored)
        pool.turn(now, wall)
        noted = pool.note(holder, asked, limit, now)
        if pool.is_short(now):
            self._short[pool_id] = False
        return pool, noted

    def _limit(self, asked: ShareDemand) -> float:
        index, count = self.part
        if count <= 1 or asked.rule in BUDGETS:
            return asked.limit
        if asked.rule not in WHOLE_UNITS:
            return asked.limit / count
        whole, more = divmod(int(asked.limit), count)
        return float(whole + (index < more))

    def _drop_idle(self, now: float, wall: float) -> None:
        for pool_id, pool in list(self._pools.items()):
            pool.turn(now, wall)
            if not pool.holders and not pool.spent and pool_id not in self._short:
                del self._pools[pool_id]

    # -- budgets in a store

    def lacks_draws(self, noted: Iterable[tuple[SharePool, Holder]]) -> bool:
        """Return whether a report asks for something that is to be drawn first."""
        return any(self._short.get(pool.pool_id) is False for pool, _holder in noted)

    @property
    def _is_alone(self) -> bool:
        return self.part[1] <= 1

    def draws(self, now: float, most: int) -> list[Draw]:
        """Return what is to be drawn from the store now, again and again until `drew`.

        Args:
            now: As for `lease`.
            most: At most so many.
        """
        begun = list(islice(self._short, most))
        self._short.update(dict.fromkeys(begun, True))
        return [self._pools[pool_id].draw(now, alone=self._is_alone) for pool_id in begun]

    def drew(self, draws: Sequence[Draw], drawn: Sequence[Drawn], now: float) -> None:
        """Take what was drawn, in the order of the draws."""
        for draw, one in zip(draws, drawn, strict=True):
            pool_id = (draw.scope, draw.id, draw.rule)
            self._pools[pool_id].drew(draw, one, now)
            if self._short[pool_id]:
                del self._short[pool_id]

    def give_back(self) -> list[Draw]:
        """Return what to write to the store at the end, when nothing more will be given."""
        found = (pool.give_back(alone=self._is_alone) for pool in self._pools.values())
        return [draw for draw in found if draw is not None]
