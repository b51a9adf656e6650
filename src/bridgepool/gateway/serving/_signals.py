"""Shutdown by signal: the first one begins the drain, a second one ends it."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Mapping

import trio


async def follow_signals(  # noqa: ASYNC114 -- the linter cannot be told of every startable
    logger: logging.Logger,
    begin: Callable[[], None],
    force: Callable[[], None],
    fields: Callable[[], Mapping[str, object]],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Receive SIGINT and SIGTERM until cancelled; log each.

    Args:
        logger: The program's.
        begin: Called at the first signal.
        force: Called at each later one.
        fields: Returns further fields of the log lines.
        task_status: For `nursery.start`: signals are received from `started` on.
    """
    begun = False
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for number in signals:
            extra = {"signal": signal.Signals(number).name, **fields()}
            if begun:
                logger.warning("second signal; shutting down immediately", extra=extra)
                force()
            else:
                begun = True
                logger.info("draining", extra=extra)
                begin()
