"""Where the usage records of the gateway as a program go, by its options."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from typing import Final

import trio

from bridgepool.gateway._options import GatewayOptions
from bridgepool.gateway.proxy._usage import OnUsage
from bridgepool.gateway.serving._access_log import open_log
from bridgepool.gateway.serving._listening import StartError
from bridgepool.gateway.serving._logs import ProgramLogs
from bridgepool.gateway.sources._source import Source
from bridgepool.gateway.usage._bodies import BodyRecorder, RecordedBodies, bodies_line
from bridgepool.gateway.usage._journal import JournalError
from bridgepool.gateway.usage._records import UsageRecord, usage_line
from bridgepool.gateway.usage._spool import UsageSpool, open_usage_spool

logger = logging.getLogger("bridgepool.gateway")

_BODIES_BUFFER: Final = 64 * 2**20  # bytes, as of all running requests
_LAST_SEND_TIMEOUT: Final = 5.0  # seconds, for the records of the last requests


async def enter_usage_spool(stack: AsyncExitStack, options: GatewayOptions) -> UsageSpool:
    """Open the spool that the options describe.

    Raises:
        StartError: Its directory cannot be used.
    """
    spool = open_usage_spool(
        options.usage_spool,
        max_bytes=options.usage_spool_bytes,
        refuses=options.usage_on_full == "refuse",
    )
    try:
        return await stack.enter_async_context(spool)
    except JournalError as error:
        raise StartError(f"--usage-spool {error}") from None


async def send_the_rest(spool: UsageSpool, source: Source) -> None:
    """Wait until the records of the last requests are stored, for a few seconds.

    A connection to the control plane that waits for its next try is made at once.
    """
    source.reconnect()
    with trio.move_on_after(_LAST_SEND_TIMEOUT):
        await spool.wait_empty()


def make_body_recorder(options: GatewayOptions, logs: ProgramLogs) -> BodyRecorder | None:
    """Return what records prompts and answers; None if nothing does.

    Raises:
        StartError: The body log cannot be opened.
    """
    if options.body_log is None:
        return None
    path, clients, providers = options.body_log, options.body_log_client, options.body_log_provider
    try:
        writer = logs.open_file(str(path), "body log", private=True, max_buffered=_BODIES_BUFFER)
    except OSError as error:
        raise StartError(f"--body-log {path}: {error.strerror}") from None
    fields = {"path": str(path), "clients": list(clients), "providers": list(providers)}
    logger.warning("prompts and answers are recorded", extra=fields)

    def write(bodies: RecordedBodies) -> None:
        size = len(bodies.request) + len(bodies.response)
        writer.append_pieces(bodies_line(bodies), size)

    return BodyRecorder(
        on_bodies=write,
        clients=clients,
        providers=providers,
        max_bytes=options.body_log_bytes,
    )


def usage_sink(
    options: GatewayOptions, spool: UsageSpool | None, logs: ProgramLogs
) -> OnUsage | None:
    """Return what takes usage records; None if nothing does.

    Raises:
        StartError: The usage log cannot be opened.
    """
    if options.usage_log is None:
        return None if spool is None else spool.add
    append = open_log(options.usage_log, logs, "usage log").append
    if spool is None:
        return lambda record: append(usage_line(record))

    def both(record: UsageRecord) -> None:
        append(usage_line(record))
        spool.add(record)

    return both
