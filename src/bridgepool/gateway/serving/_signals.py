"""The signals of the programs.

SIGINT and SIGTERM shut down: the first one begins it, a second one ends the program. SIGHUP opens
the log files anew and looks again at the files that the program has read. SIGUSR1 opens the log
files anew. SIGUSR2 is ignored. No signal but a second SIGINT or SIGTERM cuts a request.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
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
    look_again: Callable[[], Awaitable[None]]
    """Called at SIGHUP: looks at files anew. It runs once at a time."""


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
    send, hangups = trio.open_memory_channel[None](1)  # those during a look are one more look
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_look_again, logger, actions, hangups)
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
                    with suppress(trio.WouldBlock):
                        send.send_nowait(None)
                elif draining:
                    fields.update(actions.fields())
                    logger.warning("second signal; shutting down immediately", extra=fields)
                    actions.end_at_once()
                else:
                    draining = True
                    fields.update(actions.fields())
                    logger.info("draining", extra=fields)
                    actions.begin_shutdown()


async def _look_again(
    logger: logging.Logger, actions: SignalActions, hangups: trio.MemoryReceiveChannel[None]
) -> None:
    async for _ in hangups:
        try:
            await actions.look_again()
        except Exception:  # a bug: it must not end the program
            logger.exception("files could not be looked at again")
