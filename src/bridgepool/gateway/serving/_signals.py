"""The signals of the programs.

SIGINT and SIGTERM shut down: the first one begins it, a second one ends the program. SIGHUP opens
the log files anew and has the program read its files again. SIGUSR1 opens the log
files anew. SIGUSR2 is ignored. No signal but a second SIGINT or SIGTERM cuts a request.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import attrs
import trio

_RELOAD_SIGNALS: Final = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


@attrs.frozen(kw_only=True)
class SignalActions:
    """What a program does at a signal."""

    begin_shutdown: Callable[[], None]
    """Called at the first signal to shut down."""
    end_at_once: Callable[[], None]
    """Called at each later one."""
    fields: Callable[[], Mapping[str, object]]
    """Returns further fields of the log lines about a shutdown."""
    reopen_logs: Callable[[], None]
    """Called at SIGHUP and SIGUSR1. Must not block."""
    read_files_again: Callable[[], None]
    """Called at SIGHUP. Must not block."""


@contextmanager
def survive_reload_signals() -> Iterator[None]:
    """Ignore SIGHUP, SIGUSR1 and SIGUSR2, which otherwise end a process that does not expect them.

    `follow_signals` receives two of them while it runs. Before that, files are read anyway.
    """
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _RELOAD_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def follow_signals(  # noqa: ASYNC114 -- the linter cannot be told of every startable
    logger: logging.Logger,
    actions: SignalActions,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Receive signals until cancelled; log each.

    Args:
        logger: The program's.
        actions: What to do.
        task_status: For `nursery.start`: signals are received from `started` on.
    """
    draining = False
    with trio.open_signal_receiver(
        signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1
    ) as signals:
        task_status.started()
        async for number in signals:
            fields: dict[str, object] = {"signal": signal.Signals(number).name}
            if number == signal.SIGUSR1:
                logger.info("log files reopened", extra=fields)
                actions.reopen_logs()
            elif number == signal.SIGHUP:
                logger.info("log files reopened; looking at all files again", extra=fields)
                actions.reopen_logs()
                actions.read_files_again()
            elif draining:
                fields.update(actions.fields())
                logger.warning("second signal; shutting down immediately", extra=fields)
                actions.end_at_once()
            else:
                draining = True
                fields.update(actions.fields())
                logger.info("draining", extra=fields)
                actions.begin_shutdown()
