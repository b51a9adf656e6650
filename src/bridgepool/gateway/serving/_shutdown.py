"""The shutdown of the programs, from the first signal on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import attrs
import trio

from bridgepool.gateway.serving._listening import Address
from bridgepool.http import GracefulClose

_REPORT_INTERVAL: Final = 30.0  # seconds
_DELAY: Final = 10.0  # seconds, for addresses that other machines reach


def shutdown_delay(given: float | None, addresses: Iterable[Address]) -> float:
    """Return how long a program serves on after a signal; see `--shutdown-delay`."""
    if given is not None:
        return given
    return 0.0 if all(address.is_loopback for address in addresses) else _DELAY


@attrs.define(eq=False)
class Shutdown:
    """Shuts HTTP servers down in two steps.

    In the delay they serve on, so that load balancers can notice that the program is not ready;
    clients of kept connections are asked to leave. Then the listeners close, and running requests
    have until the timeout to end.

    Args:
        delay: Seconds of the first step.
        drain_timeout: Seconds of the second.
        on_close: Called when it begins.
    """

    _delay: float
    _drain_timeout: float
    _on_close: Callable[[], None] = lambda: None
    graceful: GracefulClose = attrs.field(init=False, factory=GracefulClose)
    """Of the servers."""
    _deadline: float | None = attrs.field(init=False, default=None)

    @property
    def timed_out(self) -> bool:
        """Whether the time for running requests is over."""
        return self._deadline is not None and trio.current_time() >= self._deadline

    def begin(self) -> None:
        """Ask clients to leave; `run` does the rest."""
        self._deadline = trio.current_time() + self._delay + self._drain_timeout
        self.graceful.announce()

    def fields(self) -> dict[str, object]:
        """Return the fields of the log line of its beginning."""
        return {"shutdown_delay": self._delay, "drain_timeout": self._drain_timeout}

    async def run(self, logger: logging.Logger, left: Callable[[], Mapping[str, object]]) -> None:
        """Close the listeners after the delay; then log what is left, until cancelled.

        Args:
            logger: The program's.
            left: Returns the fields of that line.
        """
        await trio.sleep(self._delay)
        self.graceful.begin(self._drain_timeout)
        self._on_close()
        while True:
            await trio.sleep(_REPORT_INTERVAL)
            logger.info("still draining", extra=dict(left()))
