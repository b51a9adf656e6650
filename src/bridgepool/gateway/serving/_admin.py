"""The admin port: health, readiness, status and metrics of a program, on listeners of their own.

They are served until the program exits: also during the shutdown delay and the drain, when the
other listeners are closed. So a scrape or a probe never mistakes a drain for a dead program.

What protects it: on loopback addresses it serves programs of this machine without a key, and no web
page in a browser. On any other address `/status` and `/metrics` require the token of
`--admin-token-file`. `/healthz` and `/readyz` are open, as on the main port. Connections are few,
and without the token short; beyond their limits each may carry one request.
"""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from ssl import SSLContext
from typing import Final, TypeAlias

import attrs
import msgspec
import trio

from bridgepool._connection_limiter import ConnectionLimiter
from bridgepool._secret import Secret
from bridgepool._services import open_service_nursery
from bridgepool.gateway.serving._connections import UNAUTHENTICATED_TIMEOUT
from bridgepool.gateway.serving._files_in_use import FileInUse
from bridgepool.gateway.serving._listening import (
    Address,
    Listener,
    StartError,
    enter_listeners,
    listener_url,
)
from bridgepool.gateway.serving._local_programs import is_local_program
from bridgepool.http import Exchange, GracefulClose, Headers, HttpLimits, get_header, serve_http

Page: TypeAlias = Callable[[], Awaitable[tuple[int, Headers, bytes]]]
"""Makes status, headers and body of one page."""

_OPEN: Final = frozenset({"/healthz", "/readyz"})
_MIN_TOKEN: Final = 16  # characters; random, since nothing slows down who guesses
_MAX_TOKEN: Final = 1024
_MAX_CONNECTIONS: Final = 100
_MAX_PER_PEER: Final = 25
_LIMITS: Final = HttpLimits(max_body_bytes=0, unauthenticated_timeout=UNAUTHENTICATED_TIMEOUT)
_LAST_RESPONSES_TIMEOUT: Final = 0.2  # seconds, at the exit of the program
JSON_HEADERS: Final = ((b"content-type", b"application/json"),)
_CHALLENGE: Final = (b"www-authenticate", b'Bearer realm="bridgepool admin"')


def json_page(document: Callable[[], tuple[int, object]]) -> Page:
    """Return a page of a status and a document, which is written as JSON."""

    async def page() -> tuple[int, Headers, bytes]:  # noqa: ASYNC124 -- pages are async
        status, content = document()
        return status, JSON_HEADERS, msgspec.json.encode(content) + b"\n"

    return page


@attrs.frozen
class AdminListeners:
    """Open listeners of an admin port. Made by `enter_admin_listeners`."""

    listeners: Sequence[Listener]
    token: FileInUse[Secret] | None
    """What `/status` and `/metrics` require; None on loopback addresses."""


async def enter_admin_listeners(
    stack: AsyncExitStack, texts: Sequence[str], token_file: Path | None, tls: SSLContext | None
) -> AdminListeners:
    """Open the listeners of `--admin-listen`; the stack closes them.

    Args:
        stack: Of the program.
        texts: The option.
        token_file: `--admin-token-file`.
        tls: The certificate of the program, for addresses that other machines reach.

    Raises:
        StartError: An address or the file cannot be used, or a token is required.
    """
    addresses = [Address.parse(text, "--admin-listen") for text in texts]
    token = None
    if token_file is not None:
        read = partial(_read_token, token_file)
        secret = await trio.to_thread.run_sync(read)
        token = FileInUse("admin token", token_file, read, secret)
    for text, address in zip(texts, addresses, strict=True):
        if token is None and not address.is_loopback:
            raise StartError(
                f"--admin-listen {text}: other machines could read /status and /metrics; "
                "specify --admin-token-file, or a loopback address"
            )
    listeners: list[Listener] = []
    for address in addresses:
        context = None if address.is_loopback else tls
        listeners += await enter_listeners(stack, [address], context)
    return AdminListeners(listeners, token)


def _read_token(path: Path) -> Secret:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_TOKEN + 1).strip()
    except OSError as error:
        raise StartError(f"--admin-token-file {path}: {error.strerror}") from None
    if not _MIN_TOKEN <= len(data) <= _MAX_TOKEN or not all(0x21 <= byte <= 0x7E for byte in data):
        raise StartError(
            f"--admin-token-file {path}: must hold one token of {_MIN_TOKEN} or more characters "
            "on one line; make one with `openssl rand -hex 32`"
        )
    return Secret(data.decode("ascii"))


@attrs.frozen
class AdminPages:
    """The pages of an admin port; `handle` serves exchanges."""

    _pages: Mapping[str, Page]
    _token: FileInUse[Secret] | None = None

    async def handle(self, exchange: Exchange) -> None:
        """Serve one request; a handler for `serve_http`."""
        request = exchange.request
        path = request.target.partition(b"?")[0].decode("ascii")
        page = self._pages.get(path)
        if page is None:
            problem = f"the pages are {' '.join(self._pages)}"
            await _answer_error(exchange, 404, "not_found", problem)
        elif request.method not in (b"GET", b"HEAD"):
            problem = "the admin port supports GET and HEAD"
            await _answer_error(exchange, 405, "method_not_allowed", problem, (b"allow", b"GET"))
        elif path not in _OPEN and not await self._admit(exchange):
            return
        else:
            if path not in _OPEN:
                exchange.authenticated()
            status, headers, body = await page()
            await exchange.answer(status, headers, body)

    async def _admit(self, exchange: Exchange) -> bool:
        """Return whether a request may see a page; answer it if it may not."""
        headers = exchange.request.headers
        if self._token is None:
            if is_local_program(headers):
                return True
            problem = "this page is for programs on this machine, under a loopback name"
            await _answer_error(exchange, 403, "not_from_here", problem)
            return False
        scheme, _, token = (get_header(headers, b"authorization") or b"").partition(b" ")
        given = token.strip() if scheme.lower() == b"bearer" else b""
        if hmac.compare_digest(given, self._token.value.reveal().encode("ascii")):
            return True
        problem = "the token of --admin-token-file is required: Authorization: Bearer TOKEN"
        await _answer_error(exchange, 401, "unauthorized", problem, _CHALLENGE)
        return False


async def _answer_error(
    exchange: Exchange, status: int, code: str, message: str, *headers: tuple[bytes, bytes]
) -> None:
    body = msgspec.json.encode({"error": {"code": code, "message": message}})
    await exchange.answer(status, (*JSON_HEADERS, *headers), body + b"\n")


@asynccontextmanager
async def serve_admin(
    admin: AdminListeners,
    pages: Mapping[str, Page],
    watch: Callable[[], Awaitable[None]] | None = None,
) -> AsyncIterator[None]:
    """Serve the admin port while the block runs, and print its URLs.

    Leaving it lets responses that were begun end, for a moment.

    Args:
        admin: Its listeners; without any, nothing is served.
        pages: By path.
        watch: What runs beside it, for the metrics.
    """
    graceful = GracefulClose()
    async with open_service_nursery() as nursery:
        watching = trio.CancelScope()
        if admin.listeners:
            handle = AdminPages(pages, admin.token).handle
            serving = partial(
                serve_http,
                handle,
                admin.listeners,
                limits=_LIMITS,
                graceful=graceful,
                limiter=ConnectionLimiter(_MAX_CONNECTIONS, _MAX_PER_PEER),
                over_limit=handle,  # health and metrics matter most when something is wrong
            )
            await nursery.start(serving)
            if watch is not None:
                nursery.start_soon(_run_in, watching, watch)
            for listener in admin.listeners:
                print(f"admin port on {listener_url(listener)}", flush=True)
        try:
            yield
        finally:
            watching.cancel()
            graceful.begin(_LAST_RESPONSES_TIMEOUT)


async def _run_in(scope: trio.CancelScope, run: Callable[[], Awaitable[None]]) -> None:
    with scope:
        await run()
