"""Whether the store can be read, and whether it can be written: tried again and again, and noted.

Changes are rare, so whether one would succeed is tried at an interval: a failure is noticed before
somebody makes a change, and so is its end.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import attrs
import trio

from bridgepool._backoff import Backoff
from bridgepool.gateway.control._errors import StoreError

logger = logging.getLogger("bridgepool.control")

_FIRST_RETRY: Final = 0.1
_TIMEOUT: Final = 45.0  # more than the 30 for which a writer waits for others


@attrs.define(eq=False)
class StoreAccess:
    """Whether the store can be used in one way.

    Args:
        lost: What is logged when it cannot be used any more; by default nothing.
        regained: What is logged when it can be used again.
        facts: The fields of both log lines.
        longest_retry: At most so many seconds after a failure it is tried again.
    """

    _lost: str | None = None
    _regained: str | None = None
    _facts: Callable[[], Mapping[str, object]] = dict
    _longest_retry: float = 2.0
    problem: str | None = attrs.field(default=None, init=False)
    """Why it cannot be used; None when it can."""

    async def keep_trying(
        self, use: Callable[[], Awaitable[None]], wait: Callable[[], Awaitable[None]]
    ) -> None:
        """Use the store again and again, until cancelled.

        Args:
            use: Uses it.
            wait: Returns when it is to be used again; after a failure it soon is.
        """
        backoff = Backoff(_FIRST_RETRY, self._longest_retry)
        while True:
            if await self.attempt(use):
                backoff.reset()
                await wait()
            else:
                await trio.sleep(backoff.next_delay())

    async def attempt(self, use: Callable[[], Awaitable[None]]) -> bool:
        """Use the store once; return whether that worked."""
        try:
            with trio.fail_after(_TIMEOUT):
                await use()
        except Exception as error:
            self._note_problem(error)
            return False
        if self.problem is not None and self._regained is not None:
            logger.warning(self._regained, extra={**self._facts()})
        self.problem = None
        return True

    def _note_problem(self, error: Exception) -> None:
        known = isinstance(error, StoreError | trio.TooSlowError)
        problem = f"it failed with {type(error).__name__}"
        if isinstance(error, StoreError):
            problem = str(error)
        elif isinstance(error, trio.TooSlowError):
            problem = f"the store did not answer within {_TIMEOUT:g} s"
        if self.problem is None and self._lost is not None:  # logged once in a row
            facts = {"problem": problem, **self._facts()}
            logger.error(self._lost, extra=facts, exc_info=None if known else error)
        self.problem = problem
