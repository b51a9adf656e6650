"""The gateway as a process: listeners, signals, logs, exit status.

Theory of operation. Start: listen, open the source of providers, open the gateway, print the
URLs. A provider file or a store that cannot be read ends the program here, and only here; a
control plane need not be reachable. Run: the first SIGINT or SIGTERM begins the shutdown:
`/readyz` answers 503, and everything is served for `--shutdown-delay`. Then the listeners close,
and running requests may end until `--drain-timeout`; a websocket is closed as soon as no response
is under way on it. A second signal, or that deadline, cuts the rest. The admin port is served until
all that has ended. Exit status: 0 after a complete drain, 1 when requests were cut, 2 when it could
not start, or when the control plane refused it before it had any providers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial

import trio

from bridgepool._connection_limiter import ConnectionLimiter
from bridgepool._version import __version__
from bridgepool.gateway._opening import open_gateway
from bridgepool.gateway._options import GatewayOptions
from bridgepool.gateway._price_file import price_file, read_price_table
from bridgepool.gateway._usage_sinks import (
    enter_usage_spool,
    make_body_recorder,
    send_the_rest,
    usage_sink,
)
from bridgepool.gateway.metrics._gateway import GatewayMetrics, RequestMetrics
from bridgepool.gateway.metrics._program import ProgramMetrics
from bridgepool.gateway.proxy._access_log import RequestObserver, console_line, json_line
from bridgepool.gateway.proxy._app import Gateway
from bridgepool.gateway.proxy._recorder import Tracing
from bridgepool.gateway.serving._access_log import make_access_log
from bridgepool.gateway.serving._admin import Page, enter_admin_listeners, json_page, serve_admin
from bridgepool.gateway.serving._certificate import load_certificate, watch_certificate
from bridgepool.gateway.serving._collector import exempt_startup_objects
from bridgepool.gateway.serving._connections import make_limiter
from bridgepool.gateway.serving._files_in_use import FilesInUse, open_files_in_use
from bridgepool.gateway.serving._listening import (
    Address,
    Listener,
    StartError,
    enter_listeners,
    listener_url,
)
from bridgepool.gateway.serving._logs import ProgramLogs
from bridgepool.gateway.serving._proxy_protocol import read_proxy_heads
from bridgepool.gateway.serving._shutdown import Shutdown, shutdown_delay
from bridgepool.gateway.serving._signals import SignalActions, follow_signals
from bridgepool.gateway.sources._source import Source, open_file_source
from bridgepool.gateway.usage._spool import UsageSpool
from bridgepool.http import Headers, serve_http

logger = logging.getLogger("bridgepool.gateway")


def serve_gateway(options: GatewayOptions, logs: ProgramLogs) -> int:
    """Run the gateway until it is signalled to end.

    Args:
        options: Its options.
        logs: Its logs, which are open.

    Returns:
        The exit status.

    Raises:
        StartError: it could not start, or the control plane refuses it.
    """
    return trio.run(_main, options, logs)


async def _main(options: GatewayOptions, logs: ProgramLogs) -> int:
    options.check()
    addresses = [Address.parse(text) for text in options.listen]
    certificate = load_certificate(options.tls_cert, options.tls_key)
    tls = certificate.context if certificate is not None else None
    settings = options.settings(addresses)
    async with AsyncExitStack() as stack:
        # First: a process that cannot listen or log changes nothing.
        listeners = await enter_listeners(stack, addresses, tls)
        admin = await enter_admin_listeners(
            stack, options.admin_listen, options.admin_token_file, tls
        )
        access_log = make_access_log(
            options.access_log,
            options.log_format,
            logs,
            json_line=json_line,
            console_line=console_line,
        )
        await stack.enter_async_context(watch_certificate(certificate))
        table = options.price_table
        prices = None if table is None else read_price_table(table)
        spool = await enter_usage_spool(stack, options) if options.store_usage else None
        requests = RequestMetrics(options.metrics_by_client)
        observers: list[RequestObserver] = [] if access_log is None else [access_log]
        if options.admin_listen:
            observers.append(requests.observe)
        source = await stack.enter_async_context(
            open_source(options, allow_anonymous=settings.allow_anonymous, usage=spool)
        )
        if spool is not None:  # when the gateway has closed
            stack.push_async_callback(send_the_rest, spool, source)
        gateway = await stack.enter_async_context(
            open_gateway(
                source.reloader,
                source.changes,
                clients=source.clients,
                first=source.first,
                first_age=source.first_age,
                settings=settings,
                observers=observers,
                tracing=await _enter_tracing(stack, options),
                on_usage=usage_sink(options, spool, logs),
                bodies=make_body_recorder(options, logs),
                usage_full=None if spool is None else lambda: spool.full,
                usage_report=None if spool is None else spool.report,
                prices=prices,
                on_applied=source.on_applied,
                report=source.report,
                log_lines_dropped=lambda: logs.dropped,
            )
        )
        source.follow_keys(gateway.key_report)

        read = [*source.files]
        if certificate is not None:
            read.append(certificate.file)
        if admin.token is not None:
            read.append(admin.token)
        if table is not None and prices is not None:
            read.append(price_file(table, prices, gateway.replace_prices))
        files = await stack.enter_async_context(open_files_in_use(read))

        def read_files_again() -> None:
            files.read_again()
            source.look_again()

        delay = shutdown_delay(options.shutdown_delay, addresses)
        shutdown = Shutdown(delay, options.drain_timeout, gateway.close_websockets)
        limiter = make_limiter(
            logger, options.max_connections, options.max_connections_per_peer, options.trusted_proxy
        )
        program = ProgramMetrics(
            program="gateway",
            limiters={"main": limiter},
            log_lines_dropped=lambda: logs.dropped,
            certificate=certificate,
        )
        metrics = GatewayMetrics(gateway, requests, program, spool)
        await stack.enter_async_context(
            serve_admin(admin, _admin_pages(gateway, source, files, metrics))
        )
        stack.enter_context(exempt_startup_objects())
        return await _serve(
            gateway, source, listeners, limiter, read_files_again, shutdown, options, logs
        )


async def _enter_tracing(stack: AsyncExitStack, options: GatewayOptions) -> Tracing | None:
    """Open what traces requests; the stack closes it.

    Raises:
        StartError: OpenTelemetry is not installed.
    """
    if options.otel_endpoint is None:
        return None
    try:
        from bridgepool.gateway.tracing._otlp import open_tracing
    except ImportError as error:
        raise StartError(f"--otel-endpoint: {error}; pip install 'bridgepool[otel]'") from None
    tracing = open_tracing(options.otel_endpoint, sample=options.otel_sample)
    return await stack.enter_async_context(tracing)


def _admin_pages(
    gateway: Gateway, source: Source, files: FilesInUse, metrics: GatewayMetrics
) -> Mapping[str, Page]:
    async def status() -> tuple[int, Headers, bytes]:
        document = {"program": "gateway", "version": __version__, **gateway.status()}
        document["budgets"] = await gateway.budgets()
        document["files"] = files.report()
        connection = source.connection()
        if connection is not None:
            document["control"] = connection
        return await json_page(lambda: (200, document))()

    return {
        "/healthz": json_page(lambda: (200, {"status": "listening"})),
        "/readyz": json_page(gateway.readiness),
        "/status": status,
        "/metrics": lambda: metrics.page(source.report().connected),
    }


def open_source(
    options: GatewayOptions, *, allow_anonymous: bool, usage: UsageSpool | None = None
) -> AbstractAsyncContextManager[Source]:
    """Open the source that the options name.

    Args:
        options: They were checked.
        allow_anonymous: Whether a gateway without clients may serve, since only programs of
            this machine reach it.
        usage: Its records are stored there; not in a provider file.

    Raises:
        StartError: on entering: it cannot be used.
    """
    if options.providers is not None:
        return open_file_source(options.providers, allow_anonymous)
    if options.store is not None:
        from bridgepool.gateway.sources._store_source import open_store_source

        return open_store_source(options.store, options.encryption_key_file, options.name, usage)
    from bridgepool.gateway.sources._control_source import open_control_source

    return open_control_source(options, usage)


async def _serve(
    gateway: Gateway,
    source: Source,
    listeners: Sequence[Listener],
    limiter: ConnectionLimiter,
    read_files_again: Callable[[], None],
    shutdown: Shutdown,
    options: GatewayOptions,
    logs: ProgramLogs,
) -> int:
    """Serve until signalled, then drain; return the exit status."""
    forced = False  # a second signal cut running requests
    refused: str | None = None

    def requests_left() -> Mapping[str, object]:
        return {"requests": gateway.statistics().requests}

    def begin_shutdown() -> None:
        gateway.start_draining()
        shutdown.begin()
        source.reconnect()
        nursery.start_soon(shutdown.run, logger, requests_left)

    def end_at_once() -> None:
        nonlocal forced
        forced = forced or gateway.statistics().requests > 0
        shutdown.graceful.begin(0)

    def log_fields() -> Mapping[str, object]:
        return {**requests_left(), **shutdown.fields()}

    actions = SignalActions(
        begin_shutdown=begin_shutdown,
        end_at_once=end_at_once,
        fields=log_fields,
        reopen_logs=logs.reopen,
        read_files_again=read_files_again,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(follow_signals, logger, actions)
        serving = partial(
            serve_http,
            gateway.handle,
            listeners,
            limits=options.http_limits(),
            graceful=shutdown.graceful,
            limiter=limiter,
            over_limit=gateway.handle_over_limit,
            answer_invalid=gateway.answer_invalid,
            find_address=read_proxy_heads(options.trusted_proxy)
            if options.proxy_protocol
            else None,
        )

        async def serve(  # noqa: ASYNC128 -- serve_http calls started()
            *, task_status: trio.TaskStatus[object]
        ) -> None:
            await serving(task_status=task_status)
            nursery.cancel_scope.cancel()

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
    ended = gateway.statistics().ended
    fields = {f"requests_{outcome.value}": count for outcome, count in ended.items()}
    if forced or shutdown.timed_out:
        logger.warning("stopped; running requests were cut", extra=fields)
        return 1
    logger.info("stopped; every request had ended", extra=fields)
    return 0
