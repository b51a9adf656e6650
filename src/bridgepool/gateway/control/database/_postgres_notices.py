"""Hear the notices of other processes from PostgreSQL."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from functools import partial
from typing import Final

import psycopg
import trio

from bridgepool.gateway.control._errors import StoreUnavailableError
from bridgepool.gateway.control.database._connecting import connect_in_thread
from bridgepool.gateway.control.database._postgres_connection import CHANNEL, Target, notices
from bridgepool.gateway.control.database._transactions import Row

logger = logging.getLogger("bridgepool.store")

_FIRST_WAIT: Final = 0.1
_LONGEST_WAIT: Final = 10.0


async def listen(target: Target, heard: Callable[[set[int]], None]) -> None:
    """Listen until cancelled; connects again when the connection ends.

    Args:
        target: Where.
        heard: Called with the backends that notices came from; with none whenever listening has
            begun, since those that came before were lost.
    """
    wait = _FIRST_WAIT
    failing = False
    thread = trio.CapacityLimiter(1)
    while True:
        try:
            connection = await connect_in_thread(partial(_connect, target), thread)
            try:
                if failing:
                    failing = False
                    logger.info("changes of other processes are seen again")
                wait = _FIRST_WAIT
                heard(set())
                while True:
                    await trio.lowlevel.wait_readable(connection.fileno())
                    if pids := set(notices(connection)):
                        heard(pids)
            except psycopg.Error as error:
                raise target.unavailable(error) from error
            finally:
                connection.close()
        except StoreUnavailableError as error:
            if not failing:
                failing = True
                logger.warning("changes of other processes are not seen: %s", error)
        # Full jitter: those who lost their connections together come back spread out.
        await trio.sleep(random.random() * wait)  # noqa: S311 -- not for secrets
        wait = min(_LONGEST_WAIT, wait * 2)


def _connect(target: Target) -> psycopg.Connection[Row]:
    connection = target.connect()
    try:
        connection.execute(f"LISTEN {CHANNEL}")
    except psycopg.Error as error:
        connection.close()
        raise target.unavailable(error) from error
    return connection
