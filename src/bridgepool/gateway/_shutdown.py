"""How the gateway process ends: signals, drain, and what is said of it."""

from __future__ import annotations

import logging
import math
import signal

import attrs
import trio

from bridgepool.gateway.proxy._app import Gateway
from bridgepool.http import GracefulClose

logger = logging.getLogger("bridgepool.gateway")


@attrs.define(eq=False)
class Shutdown:
    """The way from running to ended."""

    graceful: GracefulClose
    gateway: Gateway
    drain_timeout: float
    _deadline: float = math.inf  # of the drain, on Trio's clock
    _forced: int = 0  # requests that ran when a second signal came

    async def follow_signals(  # noqa: ASYNC114  # the linter cannot be told of every startable
        self, *, task_status: trio.TaskStatus[None]
    ) -> None:
        """Begin the drain at the first signal, end it at the second."""
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for number in signals:
                running = self.gateway.statistics().requests
                facts = {"signal": signal.Signals(number).name, "requests": running}
                if self.graceful.begun:
                    logger.warning("second signal: ending at once", extra=facts)
                    self._forced = running
                    self.graceful.begin(0)
                else:
                    facts["drain_timeout"] = self.drain_timeout
                    logger.info("draining", extra=facts)
                    self._deadline = trio.current_time() + self.drain_timeout
                    self.gateway.start_draining()
                    self.graceful.begin(self.drain_timeout)

    def report(self) -> int:
        """Log how it went, and return the exit status."""
        cut = self._forced > 0 or trio.current_time() >= self._deadline
        ended = self.gateway.statistics().ended
        facts = {f"requests_{outcome.value}": count for outcome, count in ended.items()}
        if cut:
            logger.warning("stopped; running requests were cut", extra=facts)
        else:
            logger.info("stopped; every request had ended", extra=facts)
        return 1 if cut else 0
