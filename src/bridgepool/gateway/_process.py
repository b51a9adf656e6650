"""The gateway as a process: listeners, signals, logs, exit status.

Theory of operation. Start: open where the providers are, open the gateway, listen, say where on
standard output. A provider file or a store that cannot be read ends the program here, and only
here; a control plane need not be there. Run: the first SIGINT or SIGTERM begins the drain: no
new connections, `/readyz` says no, what runs may end until `--drain-timeout`. A second signal,
or that deadline, cuts what is left. Exit status: 0 after a drain that let everything end, 1
when requests were cut, 2 when it could not start, or when the control plane refuses it before
it has anything to serve.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial

import trio

from bridgepool.gateway._opening import open_gateway
from bridgepool.gateway._options import GatewayOptions
from bridgepool.gateway._shutdown import Shutdown
from bridgepool.gateway.proxy._access_output import open_access_log
from bridgepool.gateway.proxy._app import Gateway
from bridgepool.gateway.serving._listening import (
    Address,
    Listener,
    StartError,
    listener_url,
    open_listeners,
    tls_context,
)
from bridgepool.gateway.serving._logs import set_up_logging
from bridgepool.gateway.serving._open_files import raise_open_files_limit
from bridgepool.gateway.sources._opening import open_source
from bridgepool.gateway.sources._source import Source
from bridgepool.http import GracefulClose, HttpLimits, serve_http

logger = logging.getLogger("bridgepool.gateway")


def serve_gateway(options: GatewayOptions) -> int:
    """Run the gateway until it is signalled to end.

    Returns:
        The exit status.

    Raises:
        StartError: it could not start, or the control plane refuses it.
    """
    set_up_logging(options.log_format)
    raise_open_files_limit(options.max_connections)
    return trio.run(_main, options)


async def _main(options: GatewayOptions) -> int:
    options.check()
    addresses = [Address.parse(text) for text in options.listen]
    tls = tls_context(options.tls_cert, options.tls_key)
    settings = options.settings(addresses)
    async with AsyncExitStack() as stack:
        source = await stack.enter_async_context(
            open_source(options, allow_anyone=settings.allow_anyone)
        )
        access_log = await stack.enter_async_context(
            open_access_log(options.access_log, options.log_format)
        )
        listeners = await open_listeners(addresses, tls)
        gateway = await stack.enter_async_context(
            open_gateway(
                source.reloader,
                source.changes,
                clients=source.clients,
                first=source.first,
                first_age=source.first_age,
                settings=settings,
                access_log=access_log,
                on_applied=source.on_applied,
                report=source.report,
            )
        )
        return await _serve(gateway, source, listeners, options)


async def _serve(
    gateway: Gateway, source: Source, listeners: Sequence[Listener], options: GatewayOptions
) -> int:
    """Serve until signalled, then drain; return the exit status."""
    shutdown = Shutdown(GracefulClose(), gateway, options.drain_timeout)
    refused: str | None = None
    limits = HttpLimits(
        max_body_bytes=options.max_body_bytes, max_connections=options.max_connections
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(shutdown.follow_signals)
        serving = partial(
            serve_http, gateway.handle, listeners, limits=limits, graceful=shutdown.graceful
        )

        async def serve(  # noqa: ASYNC128  # what it calls says started
            *, task_status: trio.TaskStatus[object]
        ) -> None:
            await serving(task_status=task_status)
            nursery.cancel_scope.cancel()  # the signals are of no use any more

        async def end_when_refused() -> None:
            nonlocal refused
            refused = await source.wait_refused()
            shutdown.graceful.begin(0)

        await nursery.start(serve)
        for listener in listeners:
            print(f"listening on {listener_url(listener)}", flush=True)
        logger.info("serving", extra={"generation": gateway.pool.generation})
        nursery.start_soon(end_when_refused)
    if refused is not None:
        raise StartError(refused)
    return shutdown.report()
