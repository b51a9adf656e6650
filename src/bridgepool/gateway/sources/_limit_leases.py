"""Shares of clients' limits, leased from a control plane.

Theory of operation. About every second the gateway reports what it holds and uses, and gets its
next shares (`limits/_shares`). A request of a client that nothing is held for yet waits for a
report, for a moment; so does one that would be refused, since a larger share may be free. There is
one report at a time. While there is no session, the gateway goes on with what it holds, or with the
least share where it holds less.

A control plane of an earlier version does not know of shares. Then this gateway uses the whole
limits, as one that is alone does.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, TypeAlias

import attrs
import trio

from bridgepool import BridgePoolError
from bridgepool.gateway._protocol import LeasedShares, LeaseShares
from bridgepool.gateway.limits._leased import LeasedScope
from bridgepool.gateway.limits._limiter import Costs, Limiter, wall_clock
from bridgepool.gateway.limits._share_pool import MAX_DEMANDS, ShareDemand
from bridgepool.gateway.providers import Caller
from bridgepool.remote import RemoteError

logger = logging.getLogger("bridgepool.gateway")

_INTERVAL: Final = 1.0  # seconds between two reports
_LEAST_INTERVAL: Final = 0.1  # seconds between two that requests cause
_REPORT_TIMEOUT: Final = 0.5  # seconds that a request waits for one
_ANSWER_TIMEOUT: Final = 5.0
_UNKNOWN_METHOD: Final = "unknown_method"

Lease: TypeAlias = Callable[[LeaseShares], Awaitable[LeasedShares]]
"""Reports to the control plane."""


@attrs.define(eq=False)
class LimitLeases:
    """The limits of clients, shared with the other gateways of a control plane."""

    limiter: Limiter[LeasedScope] = attrs.field(init=False)
    """What clients have used of this gateway's shares."""
    _in_memory: bool = attrs.field(default=False, init=False)  # at the control plane
    _lease: Lease | None = attrs.field(default=None, init=False)  # None without a session
    _alone: bool = attrs.field(default=False, init=False)  # the control plane gives no shares
    _reporting: trio.Event | None = attrs.field(default=None, init=False)
    _reported: float = attrs.field(default=-math.inf, init=False)  # when the last report began

    def __attrs_post_init__(self) -> None:
        """Make the limiter."""
        self.limiter = Limiter(
            trio.current_time, wall_clock, lambda rules: LeasedScope(rules, alone=self._alone)
        )

    @property
    def in_memory(self) -> bool:
        """Whether what is spent of budgets ends with this process, or the control plane's.

        False until the control plane has given a share.
        """
        return self._alone or self._in_memory

    def note_session(self, lease: Lease | None) -> None:
        """Note that a session has begun, on which shares are leased; or, None, ended."""
        self._lease = lease
        if lease is None:
            for scope in self.limiter.scopes.values():
                scope.lend_least(trio.current_time())
        elif self._alone:
            self._set_alone(False)

    async def run(self) -> None:
        """Report again and again, until cancelled."""
        while True:
            await trio.sleep(_INTERVAL)
            if self._reporting is None:
                await self._report()

    async def report_last(self) -> None:
        """Report what the last requests used, and give shares back, at the end of a gateway.

        A checkpoint. Waits for the control plane if there is a session; the end of the session
        sets the deadline.
        """
        while self._reporting is not None:  # it may have begun before they ended
            await self._reporting.wait()
        await self._report(last=True)

    async def prepare(self, caller: Caller, costs: Costs) -> None:
        """Wait a moment for shares of limits that this gateway has none of yet.

        A checkpoint if something is awaited.
        """
        lacking = [scope for scope in self.limiter.scopes_of(caller) if scope.lacks_shares]
        if not lacking:
            return
        now = trio.current_time()
        for scope in lacking:
            scope.expect(costs, now, wall_clock())
        with trio.move_on_after(_REPORT_TIMEOUT):
            # A report that is under way may be of before.
            while any(scope.lacks_shares for scope in lacking) and await self._report_soon():
                pass

    async def refresh(self, caller: Caller) -> bool:
        """Wait a moment for larger shares; return whether there may be. A checkpoint."""
        if self._alone:
            await trio.lowlevel.checkpoint()
            return False
        return await self._report_soon()

    async def _report_soon(self) -> bool:
        if self._lease is None:
            await trio.lowlevel.checkpoint()
            return False
        with trio.move_on_after(_REPORT_TIMEOUT):
            if self._reporting is None:
                await trio.sleep_until(self._reported + _LEAST_INTERVAL)
            if self._reporting is not None:  # another request may have begun one meanwhile
                await self._reporting.wait()
            else:
                await self._report()
            return True
        return False

    async def _report(self, *, last: bool = False) -> None:
        """Report once, and take the shares that come of it."""
        lease, asked = self._lease, list(self._demands())
        self._reported = trio.current_time()
        if last:
            asked = [(scope, scope.given_back(one, self._reported)) for scope, one in asked]
        if lease is None or self._alone or not asked:
            await trio.lowlevel.checkpoint()
            return
        self._reporting = trio.Event()
        try:
            with trio.fail_after(_ANSWER_TIMEOUT):
                for start in range(0, len(asked), MAX_DEMANDS):
                    await self._ask(lease, asked[start : start + MAX_DEMANDS])
        except RemoteError as error:
            if error.code == _UNKNOWN_METHOD:
                logger.warning("control plane does not share limits; this gateway counts alone")
                self._set_alone(True)
        except (BridgePoolError, trio.TooSlowError):
            pass  # the session is over, or will be; there are other reports
        finally:
            self._reporting.set()
            self._reporting = None

    async def _ask(self, lease: Lease, asked: Sequence[tuple[LeasedScope, ShareDemand]]) -> None:
        answer = await lease(LeaseShares(tuple(one for _scope, one in asked)))
        self._in_memory = answer.in_memory
        now = trio.current_time()
        for (scope, one), share in zip(asked, answer.shares, strict=False):
            # One that is no number would be in all reports that follow.
            if all(map(math.isfinite, (share.share, share.remaining, share.taken))):
                scope.apply(one, share, now)

    def _demands(self) -> Iterator[tuple[LeasedScope, ShareDemand]]:
        now = trio.current_time()
        for (kind, scope_id), scope in self.limiter.scopes.items():
            if scope.is_to_be_reported(now):
                for one in scope.demands(kind, scope_id, now):
                    yield scope, one

    def _set_alone(self, alone: bool) -> None:
        self._alone = alone
        for scope in self.limiter.scopes.values():
            scope.set_alone(alone, trio.current_time())
