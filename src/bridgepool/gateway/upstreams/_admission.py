"""Admission: a limit of concurrent requests, with a short queue before it.

Theory of operation. At most `limit` requests run. A request beyond that waits for its turn, in the
order of arrival, for at most `wait_timeout`; at most `max_waiting` wait. Every further one is
refused at once, so that neither memory nor waiting times grow with the load.

Every method but `enter` is a plain function, and `enter` only awaits its turn. A turn is granted in
`leave`, before the waiter runs again. If the waiter was cancelled before that, Trio calls `abandon`
and the turn stays with the others; if after, `enter` still returns with its turn, and the caller is
cancelled at its next checkpoint.
"""

from __future__ import annotations

from collections import OrderedDict

import attrs
import trio

from bridgepool import BridgePoolError


@attrs.frozen
class AdmissionRules:
    """How many requests may run and wait."""

    limit: int = 0
    """The most that run at a time; 0 for any number."""
    max_waiting: int = 0
    wait_timeout: float = 0.0
    """In seconds."""


class OverloadedError(BridgePoolError):
    """A request was not admitted: too many run, and too many wait or it waited for too long."""

    status_hint = 503


@attrs.define(eq=False)
class _Waiter:
    task: trio.lowlevel.Task


@attrs.define(eq=False)
class Admission:
    """Admits requests; see the module's theory of operation."""

    rules: AdmissionRules = AdmissionRules()
    """The rules in force."""
    running: int = 0
    """Requests that were admitted and have not ended."""
    refused: int = 0
    """How many were not admitted; only grows."""
    _queue: OrderedDict[_Waiter, None] = attrs.field(factory=OrderedDict)

    @property
    def waiting(self) -> int:
        """The number of requests that wait for their turn."""
        return len(self._queue)

    @property
    def _has_room(self) -> bool:
        return not self.rules.limit or self.running < self.rules.limit

    def apply(self, rules: AdmissionRules) -> None:
        """Put other rules in force; what runs and waits goes on."""
        self.rules = rules
        self._grant_turns()

    def enter_nowait(self) -> None:
        """Admit a request that need not wait; `leave` exactly once afterwards.

        Raises:
            trio.WouldBlock: It would have to wait.
        """
        if not self._has_room:
            raise trio.WouldBlock
        self.running += 1

    async def enter(self) -> None:
        """Admit a request; `leave` exactly once afterwards. Only a checkpoint if it must wait.

        Raises:
            OverloadedError: It is not admitted.
        """
        if self._has_room:
            self.running += 1
            return
        rules = self.rules
        if self.waiting >= rules.max_waiting or not rules.wait_timeout:
            self.refused += 1
            raise OverloadedError(f"{self.running} requests run and {self.waiting} wait")
        with trio.move_on_after(rules.wait_timeout):
            await self._wait_for_turn()
            return
        self.refused += 1
        raise OverloadedError(f"the request waited for {rules.wait_timeout:g} s")

    async def _wait_for_turn(self) -> None:
        waiter = _Waiter(trio.lowlevel.current_task())
        self._queue[waiter] = None

        def abandon(_: object) -> trio.lowlevel.Abort:
            del self._queue[waiter]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abandon)

    def leave(self) -> None:
        """Note the end of an admitted request; the next takes its turn."""
        self.running -= 1
        self._grant_turns()

    def _grant_turns(self) -> None:
        while self._queue and self._has_room:
            waiter, _ = self._queue.popitem(last=False)
            self.running += 1
            trio.lowlevel.reschedule(waiter.task)

    def document(self) -> dict[str, object]:
        """Return its state for people and programs, as plain values."""
        return {
            "running": self.running,
            "waiting": self.waiting,
            "limit": self.rules.limit or None,
            "refused": self.refused,
        }
