"""The retention of usage records."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import trio

from bridgepool.gateway.control._errors import StoreError
from bridgepool.gateway.control.store import StoredUsage

logger = logging.getLogger("bridgepool.control")

_INTERVAL: Final = 3600.0  # seconds


async def forget_usage(
    usage: StoredUsage, days: float, *, clock: Callable[[], float] = time.time
) -> None:
    """Remove usage records that are older than so many days, every hour, until cancelled.

    Args:
        usage: The records.
        days: Whole days of which the records stay, before the current one; `math.inf` for all.
        clock: Returns the time since the epoch.
    """
    while days < math.inf:
        first = datetime.fromtimestamp(clock(), UTC).date() - timedelta(days=days)
        try:
            removed = await usage.forget(first.isoformat())
        except StoreError as error:
            logger.warning("old usage records not removed: %s", error)
        else:
            if removed:
                logger.info("old usage records removed", extra={"records": removed})
        await trio.sleep(_INTERVAL)
