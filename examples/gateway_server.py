"""A gateway in one file, made from the public parts of the library.

    python gateway_server.py north=http://127.0.0.1:9001 south=http://127.0.0.1:9002

`/north/...` goes to the provider called north. A second port, for the operator, changes the
providers while requests run:

    curl -X PUT    http://127.0.0.1:8081/providers/north -d http://127.0.0.1:9003
    curl -X DELETE http://127.0.0.1:8081/providers/south
    curl           http://127.0.0.1:8081/statistics

On SIGTERM or SIGINT it stops accepting and lets running requests finish; a second signal ends it.
The real gateway, `bridgepool gateway`, adds clients and keys, route rules and the SDKs' error form.
"""

import argparse
import json
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import attrs
import trio

from bridgepool import (
    CachedBridgePool,
    MemoryReloader,
    ProviderSnapshot,
    open_bridge_pool,
    watch_providers,
)
from bridgepool.http import (
    Exchange,
    GracefulClose,
    Request,
    UpstreamClient,
    forward_request_headers,
    forward_response_headers,
    forward_trailers,
    open_upstream_client,
    serve_http,
)

DRAIN_TIMEOUT = 600.0  # seconds


@attrs.frozen
class Provider:
    """One upstream, as the operator configures it."""

    name: str
    base_url: str


Bridge = Mapping[str, UpstreamClient]
Pool = CachedBridgePool[str, Provider, Bridge]


@asynccontextmanager
async def open_bridge(_: str, snapshot: ProviderSnapshot[Provider]) -> AsyncGenerator[Bridge]:
    """Open a client's own connections to every provider."""
    async with AsyncExitStack() as stack:
        yield {
            provider.name: await stack.enter_async_context(open_upstream_client(provider.base_url))
            for provider in snapshot.providers
        }


async def handle(pool: Pool, exchange: Exchange) -> None:
    """Serve one request of a client; its lease lasts as long as its answer."""
    name, _, rest = exchange.request.target[1:].partition(b"/")
    client_host = exchange.client.rpartition(":")[0]
    async with pool.acquire(client_host) as bridge:
        upstream = bridge.get(name.decode("latin-1"))
        if upstream is None:
            await exchange.answer(404, body=b"no such provider\n")
        else:
            await forward(exchange, upstream, b"/" + rest)


async def forward(exchange: Exchange, upstream: UpstreamClient, target: bytes) -> None:
    """Forward a request, and stream its answer back; a failure is answered with 502 or 504."""
    request = exchange.request
    headers = forward_request_headers(
        request, host=upstream.authority, client=exchange.client, scheme=exchange.scheme
    )
    body = exchange.body if has_body(request) else None
    async with upstream.request(request.method, target, headers, body) as response:
        headers = forward_response_headers(response.headers)
        async with exchange.respond(response.status, headers, reason=response.reason) as stream:
            while piece := await response.receive_some():
                await stream.send_all(piece)
            stream.trailers = forward_trailers(response.trailers)


def has_body(request: Request) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in request.headers)


async def administer(source: MemoryReloader[Provider], pool: Pool, exchange: Exchange) -> None:
    """Serve one request of the operator."""
    method, target = exchange.request.method, exchange.request.target.decode("latin-1")
    name = target.removeprefix("/providers/")
    providers = {provider.name: provider for provider in source.snapshot.providers}
    if method == b"GET" and target == "/statistics":
        await exchange.answer(200, body=json.dumps(counts(pool)).encode() + b"\n")
    elif method == b"PUT" and name != target:
        url = b"".join([piece async for piece in exchange.body]).decode("latin-1").strip()
        try:
            async with open_upstream_client(url):  # checks the URL; does not connect yet
                providers[name] = Provider(name, url)
        except ValueError as error:
            await exchange.answer(400, body=f"{error}\n".encode())
            return
        source.replace(ProviderSnapshot(providers.values()))
        await exchange.answer(202, body=b"accepted\n")
    elif method == b"DELETE" and name in providers:
        del providers[name]
        source.replace(ProviderSnapshot(providers.values()))
        await exchange.answer(202, body=b"accepted\n")
    else:
        await exchange.answer(404, body=b"PUT or DELETE /providers/NAME, GET /statistics\n")


def counts(pool: Pool) -> dict[str, int]:
    now = pool.statistics()
    return {
        "generation": now.generation,
        "bridges listed": now.listed,
        "bridges draining": now.draining,
        "requests running": now.leased,
        "closed under a request": now.forced_closes,
    }


async def main(port: int, admin_port: int, providers: list[Provider]) -> None:
    source = MemoryReloader(ProviderSnapshot(providers))
    changes = source.subscribe()  # before the first reload, so that no change is missed
    graceful = GracefulClose()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with (
            open_bridge_pool(open_bridge, source.snapshot, drain_timeout=DRAIN_TIMEOUT) as pool,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(drain, signals, graceful)
            await nursery.start(watch_providers, pool, source, changes)
            operators = await listen("operator", admin_port)
            nursery.start_soon(serve_http, partial(administer, source, pool), operators)
            clients = await listen("clients", port)
            await serve_http(partial(handle, pool), clients, graceful=graceful)
            nursery.cancel_scope.cancel()


async def drain(signals: AsyncIterator[int], graceful: GracefulClose) -> None:
    await anext(signals)
    graceful.begin(within=DRAIN_TIMEOUT)
    await anext(signals)
    graceful.begin(within=0)


async def listen(who: str, port: int) -> list[trio.SocketListener]:
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    print(f"{who}: http://127.0.0.1:{listeners[0].socket.getsockname()[1]}", flush=True)
    return listeners


def provider(text: str) -> Provider:
    name, _, base_url = text.partition("=")
    return Provider(name, base_url)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A small gateway.")
    parser.add_argument("--port", type=int, default=8080, help="for clients; 0 for a free one")
    parser.add_argument("--admin-port", type=int, default=8081, help="for the operator")
    parser.add_argument("providers", type=provider, nargs="+", metavar="NAME=URL")
    options = parser.parse_args()
    trio.run(main, options.port, options.admin_port, options.providers)
