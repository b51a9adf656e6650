"""The control plane as a process: listeners, signals, logs, exit status.

Theory of operation. Start: read the seed, listen, open and read the store, apply the seed, read the
store again, print the URLs. An error ends the program here, and only here. Run: an unreachable
store prevents changes, and nothing else. The first SIGINT or SIGTERM begins the shutdown: `/readyz`
answers 503, waiting requests are answered, and everything is served for `--shutdown-delay`. Then
the API's listeners close, its running requests may end until `--drain-timeout`, and gateways are
asked to reconnect. A second signal ends the program at once. Exit status: 0 after a complete drain,
1 when a second signal cut it short, 2 when it could not start.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import msgspec
import trio

from bridgepool import BridgePoolError
from bridgepool._connection_limiter import ConnectionLimiter
from bridgepool._version import __version__
from bridgepool.gateway._control_options import ControlPlaneOptions
from bridgepool.gateway.control._encryption import find_encryption_keys
from bridgepool.gateway.control._errors import EncryptionError, StoreError
from bridgepool.gateway.control._first_keys import ensure_key
from bridgepool.gateway.control._gateway_service import open_gateway_service
from bridgepool.gateway.control._hub import Hub, open_hub
from bridgepool.gateway.control._key_renewal import encryption_key_file
from bridgepool.gateway.control._metrics import ControlPlaneMetrics
from bridgepool.gateway.control._usage_retention import forget_usage
from bridgepool.gateway.control.api import ApiRecord, Guard, console_line, json_line, make_api
from bridgepool.gateway.control.store import Store, open_store
from bridgepool.gateway.metrics._program import ProgramMetrics
from bridgepool.gateway.providers import ProviderFile, ProviderFileError, parse_provider_file
from bridgepool.gateway.serving._access_log import make_access_log
from bridgepool.gateway.serving._admin import (
    JSON_HEADERS,
    Page,
    enter_admin_listeners,
    serve_admin,
)
from bridgepool.gateway.serving._certificate import load_certificate, watch_certificate
from bridgepool.gateway.serving._collector import exempt_startup_objects
from bridgepool.gateway.serving._connections import UNAUTHENTICATED_TIMEOUT, make_limiter
from bridgepool.gateway.serving._files_in_use import FileInUse, FilesInUse, open_files_in_use
from bridgepool.gateway.serving._listening import (
    Address,
    Listener,
    StartError,
    enter_listeners,
    listener_url,
)
from bridgepool.gateway.serving._logs import ProgramLogs
from bridgepool.gateway.serving._peer import find_peer_behind
from bridgepool.gateway.serving._shutdown import Shutdown, shutdown_delay
from bridgepool.gateway.serving._signals import SignalActions, follow_signals
from bridgepool.http import Headers, HttpLimits, serve_http
from bridgepool.remote import Admitted
from bridgepool.transports._handshake import Handshake, Refused
from bridgepool.transports.websocket import serve_websockets

logger = logging.getLogger("bridgepool.control")

_SHUTTING_DOWN = Refused(503, "shutting_down", "the control plane is shutting down; connect again")
_CLOSE_TIMEOUT = 1.0  # seconds for sessions to close


def serve_control_plane(options: ControlPlaneOptions, logs: ProgramLogs) -> int:
    """Run a control plane until it is signalled to end.

    Args:
        options: Its options.
        logs: Its logs, which are open.

    Returns:
        The exit status.

    Raises:
        StartError: It could not start.
    """
    return trio.run(_main, options, logs)


async def _main(options: ControlPlaneOptions, logs: ProgramLogs) -> int:
    options.check()
    api_addresses = _addresses("--listen", options.listen, options)
    rpc_addresses = _addresses("--rpc-listen", options.rpc_listen, options)
    certificate = load_certificate(options.tls_cert, options.tls_key)
    tls = certificate.context if certificate is not None else None
    declared = None if options.seed is None else await _read_seed(options.seed, options.max_keys)
    async with AsyncExitStack() as stack:
        # Before the store: a process that cannot listen changes nothing.
        api_listeners = await enter_listeners(stack, api_addresses, tls)
        rpc_listeners = await enter_listeners(stack, rpc_addresses, tls)
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
        try:
            find = partial(
                find_encryption_keys, options.store, key_file=options.encryption_key_file
            )
            try:
                keys = await trio.to_thread.run_sync(find)
            except EncryptionError as error:  # it says which option, variable or file is wrong
                raise StartError(str(error)) from None
            store = await stack.enter_async_context(
                open_store(options.store, keys, max_keys=options.max_keys)
            )
            await store.check_readable()
            drift = await _prepare(store, declared, options)
            hub = await stack.enter_async_context(open_hub(store))
        except BridgePoolError as error:
            raise StartError(f"--store: {error}") from None

        def observe(record: ApiRecord) -> None:
            if access_log is not None:
                access_log(record)
            metrics.observe_api(record)

        api = make_api(
            store,
            hub,
            access_log=observe,
            log_lines_dropped=lambda: logs.dropped,
            find_peer=find_peer_behind(options.trusted_proxy),
        )
        # One for each port: clients of the API and gateways cannot lock one another out.
        limiter = make_limiter(
            logger, options.max_connections, options.max_connections_per_peer, options.trusted_proxy
        )
        limiters = {"api": limiter, "gateways": attrs.evolve(limiter)}
        program = ProgramMetrics(
            program="control plane",
            limiters=limiters,
            log_lines_dropped=lambda: logs.dropped,
            certificate=certificate,
        )
        metrics = ControlPlaneMetrics(hub, program, api.refused_keys, drift)

        read: list[FileInUse[Any]] = [encryption_key_file(store, keys, find)]
        if certificate is not None:
            read.append(certificate.file)
        if admin.token is not None:
            read.append(admin.token)
        files = await stack.enter_async_context(open_files_in_use(read))
        delay = shutdown_delay(options.shutdown_delay, api_addresses + rpc_addresses)
        shutdown = Shutdown(delay, options.drain_timeout)
        pages = _admin_pages(api, hub, files, metrics)
        await stack.enter_async_context(serve_admin(admin, pages, metrics.watch_rollouts))
        stack.enter_context(exempt_startup_objects())
        return await _serve(
            api,
            hub,
            store,
            api_listeners,
            rpc_listeners,
            limiters,
            shutdown,
            options,
            logs,
            files.read_again,
        )


def _admin_pages(
    api: Guard, hub: Hub, files: FilesInUse, metrics: ControlPlaneMetrics
) -> Mapping[str, Page]:
    async def status() -> tuple[int, Headers, bytes]:
        document: dict[str, object] = {
            "program": "control plane",
            "version": __version__,
            **attrs.asdict(hub.status(), recurse=False),
            "files": files.report(),
        }
        try:
            document["gateways"] = await hub.gateways()
        except StoreError:  # the hub logs it
            document["gateways"] = None
        return 200, JSON_HEADERS, msgspec.json.encode(document) + b"\n"

    return {
        "/healthz": partial(api.health_page, "healthz"),
        "/readyz": partial(api.health_page, "readyz"),
        "/status": status,
        "/metrics": metrics.page,
    }


def _addresses(option: str, texts: Sequence[str], options: ControlPlaneOptions) -> list[Address]:
    """Parse addresses, and refuse those where keys would cross a network unencrypted."""
    addresses = [Address.parse(text, option) for text in texts]
    if options.tls_cert is None and not options.insecure:
        for text, address in zip(texts, addresses, strict=True):
            if not address.is_loopback:
                raise StartError(
                    f"{option} {text}: keys would cross the network unencrypted; "
                    "specify --tls-cert and --tls-key, or --insecure if something else encrypts"
                )
    return addresses


async def _prepare(
    store: Store, declared: ProviderFile | None, options: ControlPlaneOptions
) -> int | None:
    """Apply the seed, and create the first keys; return the drift, if there is a seed."""
    drift = None
    if declared is not None and options.seed is not None:
        drift = await _apply_seed(store, declared, options.seed.name)
    if options.admin_key_file is not None:
        await ensure_key(store, "admin", options.admin_key_file)
    elif not await store.list_keys("admin"):
        logger.warning(
            "no admin key, so the API refuses every request; start with --admin-key-file, or "
            "make one with `bridgepool keys`"
        )
    if options.gateway_key_file is not None:
        await ensure_key(store, "gateway", options.gateway_key_file)
    if options.client_key_file is not None:
        await ensure_key(store, "client", options.client_key_file)
    return drift


async def _read_seed(path: Path, max_keys: int) -> ProviderFile:
    try:
        text = await trio.Path(path).read_text("utf-8")
        return parse_provider_file(text, str(path), max_keys=max_keys)
    except ProviderFileError as error:
        raise StartError(f"--seed: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        problem = getattr(error, "strerror", None) or "is not UTF-8"
        raise StartError(f"--seed {path}: cannot be read: {problem}") from None


async def _apply_seed(store: Store, declared: ProviderFile, source: str) -> int:
    """Apply the seed, and return the number of differences that stay."""
    report = await store.seed(declared, source=source)
    facts = {"applied": len(report.applied), "revision": report.revision}
    logger.info("seed applied", extra=facts)
    for drift in report.drift:
        logger.warning(
            "drift from the seed; keeping the store",
            extra={"kind": drift.kind, "row": drift.name, "reason": drift.reason},
        )
    return len(report.drift)


async def _serve(
    api: Guard,
    hub: Hub,
    store: Store,
    api_listeners: Sequence[Listener],
    rpc_listeners: Sequence[Listener],
    limiters: Mapping[str, ConnectionLimiter],
    shutdown: Shutdown,
    options: ControlPlaneOptions,
    logs: ProgramLogs,
    read_files_again: Callable[[], None],
) -> int:
    """Serve until signalled, then drain; return the exit status."""
    limits = HttpLimits(unauthenticated_timeout=UNAUTHENTICATED_TIMEOUT)
    forced = False
    # Sessions outlive the service, so that they can close in order.
    async with trio.open_nursery() as nursery:

        def begin_shutdown() -> None:
            hub.end_waits()
            shutdown.begin()
            nursery.start_soon(shutdown.run, logger, gateways_left)

        def gateways_left() -> Mapping[str, object]:
            return {"gateways": hub.status().connected}

        def end_at_once() -> None:
            nonlocal forced
            forced = True
            nursery.cancel_scope.cancel()

        actions = SignalActions(
            begin_shutdown=begin_shutdown,
            end_at_once=end_at_once,
            fields=shutdown.fields,
            reopen_logs=logs.reopen,
            read_files_again=read_files_again,
        )
        await nursery.start(follow_signals, logger, actions)
        nursery.start_soon(forget_usage, store.usage, options.usage_days)
        async with open_gateway_service(
            hub,
            keep_usage=store.usage.add,
            observer=hub,
            on_key_report=hub.note_keys,
            limits=hub.limits,
        ) as service:

            async def admit(handshake: Handshake) -> Admitted | Refused:
                return _SHUTTING_DOWN if shutdown.graceful.begun else await service.admit(handshake)

            await nursery.start(
                partial(
                    serve_websockets,
                    service.serve,  # noqa: ASYNC111 -- sessions outlive it, see above
                    rpc_listeners,
                    admit=admit,
                    limiter=limiters["gateways"],
                )
            )
            _announce(api_listeners, rpc_listeners, hub)
            await serve_http(
                api.handle,
                api_listeners,
                limits=limits,
                graceful=shutdown.graceful,
                limiter=limiters["api"],
                over_limit=api.handle_over_limit,
                answer_invalid=api.answer_invalid,
            )
        with trio.move_on_after(_CLOSE_TIMEOUT):  # the sessions were asked to end
            while service.sessions:  # noqa: ASYNC110 -- they end within milliseconds
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    logger.info("stopped", extra={"forced": forced})
    return 1 if forced else 0


def _announce(api: Sequence[Listener], rpc: Sequence[Listener], hub: Hub) -> None:
    for listener in api:
        print(f"listening on {listener_url(listener)}", flush=True)
    for listener in rpc:
        print(f"serving gateways on ws{listener_url(listener).removeprefix('http')}", flush=True)
    logger.info("serving", extra={"revision": hub.revisions.revision})
