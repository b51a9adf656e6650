"""The gateway as a process: listeners, signals, logs, exit status.

Theory of operation. Start: read the provider file (a bad one ends the program here, and only
here), open everything, listen, say where on standard output. Run: the first SIGINT or SIGTERM
begins the drain: no new connections, `/readyz` says no, what runs may end until
`--drain-timeout`. A second signal, or that deadline, cuts what is left. Exit status: 0 after a
drain that let everything end, 1 when requests were cut, 2 when it could not start.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio

from bridgepool import ReloadError
from bridgepool._services import open_service_nursery
from bridgepool.gateway.access_log import (
    AccessLog,
    AccessRecord,
    LineWriter,
    console_line,
    json_line,
    write_to,
)
from bridgepool.gateway.app import Gateway
from bridgepool.gateway.auth import is_loopback
from bridgepool.gateway.opening import open_gateway
from bridgepool.gateway.settings import GatewaySettings
from bridgepool.http import GracefulClose, HttpLimits, serve_http
from bridgepool.providers import ProviderFileSource, open_provider_file
from bridgepool.serving.listening import (
    Address,
    Listener,
    StartError,
    listener_url,
    open_listeners,
    tls_context,
)
from bridgepool.serving.logs import LogFormat, set_up_logging, use_json

logger = logging.getLogger("bridgepool.gateway")


@attrs.frozen(kw_only=True)
class GatewayOptions:
    """What `bridgepool gateway` was asked for; see its help."""

    providers: Path
    listen: Sequence[str] = ("127.0.0.1:8080",)
    drain_timeout: float = 600.0
    log_format: LogFormat = "auto"
    access_log: str = "-"
    expose_route_headers: bool = False
    max_stale: float = math.inf
    max_body_bytes: float = math.inf
    tls_cert: Path | None = None
    tls_key: Path | None = None


@attrs.define(eq=False)
class _Shutdown:
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


def serve_gateway(options: GatewayOptions) -> int:
    """Run the gateway until it is signalled to end.

    Returns:
        The exit status.

    Raises:
        StartError: it could not start.
    """
    set_up_logging(options.log_format)
    return trio.run(_main, options)


async def _main(options: GatewayOptions) -> int:
    addresses = [Address.parse(text) for text in options.listen]
    tls = tls_context(options.tls_cert, options.tls_key)
    settings = GatewaySettings(
        allow_anyone=all(is_loopback(address.host) for address in addresses),
        expose_route_headers=options.expose_route_headers,
        max_stale=options.max_stale,
        # Read again in time, so that a file that nobody changes does not grow too old.
        poll_interval=min(300.0, options.max_stale / 3),
        drain_timeout=options.drain_timeout,
    )
    async with AsyncExitStack() as stack:
        source = await stack.enter_async_context(open_provider_file(options.providers))
        try:
            first = await source.reload()
        except ReloadError as error:
            raise StartError(str(error)) from None
        _check_clients(source, settings)
        access_log = await stack.enter_async_context(_open_access_log(options))
        listeners = await open_listeners(addresses, tls)
        gateway = await stack.enter_async_context(
            open_gateway(
                source,
                source.changes,
                clients=lambda: source.clients,
                first=first,
                settings=settings,
                access_log=access_log,
            )
        )
        return await _serve(gateway, listeners, options)


def _check_clients(source: ProviderFileSource, settings: GatewaySettings) -> None:
    """Say who may come, and refuse to serve everybody on a network."""
    if source.clients:
        logger.info("clients are configured", extra={"clients": len(source.clients)})
        return
    if not settings.allow_anyone:
        raise StartError(
            f"{source.path}: has no [[clients]], and without clients a gateway may listen on "
            "loopback addresses only; make one with `bridgepool hash-key`"
        )
    logger.warning("no clients are configured: every program on this machine is served")


@asynccontextmanager
async def _open_access_log(options: GatewayOptions) -> AsyncIterator[AccessLog | None]:
    """Open where the line per request goes, with its writer task."""
    if options.access_log == "none":
        yield None
        return
    if options.access_log == "-":
        as_json = use_json(options.log_format, sys.stdout)
    else:
        as_json = options.log_format != "console"
    line = json_line if as_json else console_line
    descriptor = 1
    if options.access_log != "-":
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            descriptor = os.open(options.access_log, flags, 0o640)
        except OSError as error:
            raise StartError(f"--access-log {options.access_log}: {error.strerror}") from None
    writer = LineWriter(write_to(descriptor))

    def log(record: AccessRecord) -> None:
        writer.append(line(record))

    try:
        async with open_service_nursery() as nursery:
            nursery.start_soon(writer.run)
            try:
                yield log
            finally:
                nursery.cancel_scope.cancel()
    finally:
        if descriptor != 1:
            os.close(descriptor)


async def _serve(gateway: Gateway, listeners: Sequence[Listener], options: GatewayOptions) -> int:
    """Serve until signalled, then drain; return the exit status."""
    shutdown = _Shutdown(GracefulClose(), gateway, options.drain_timeout)
    async with trio.open_nursery() as nursery:
        await nursery.start(shutdown.follow_signals)
        serving = partial(
            serve_http,
            gateway.handle,
            listeners,
            limits=HttpLimits(max_body_bytes=options.max_body_bytes),
            graceful=shutdown.graceful,
        )

        async def serve(  # noqa: ASYNC128  # what it calls says started
            *, task_status: trio.TaskStatus[object]
        ) -> None:
            await serving(task_status=task_status)
            nursery.cancel_scope.cancel()  # the signals are of no use any more

        await nursery.start(serve)
        for listener in listeners:
            print(f"listening on {listener_url(listener)}", flush=True)
        logger.info("serving", extra={"generation": gateway.pool.generation})
    return shutdown.report()
