"""A reloader of your own: the list of upstreams comes from an HTTP endpoint.

    python own_reloader.py http://127.0.0.1:9000/upstreams.json 8080

The endpoint answers `{"revision": 7, "upstreams": ["10.0.0.1:80", ...]}`. The program polls it
every 15 s, and immediately on SIGHUP.
"""

import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import cast
from urllib.parse import urlsplit

import attrs
import trio

from bridgepool import (
    CachedBridgePool,
    ChangeBus,
    ProviderSnapshot,
    ReloadError,
    ReloadStatus,
    open_bridge_pool,
    watch_providers,
)
from bridgepool.http import (
    Exchange,
    Handler,
    HttpError,
    UpstreamClient,
    open_upstream_client,
    serve_http,
)

POLL_INTERVAL = 15.0  # seconds
MAX_BYTES = 1 << 20  # bytes


@attrs.frozen
class HttpReloader:
    """A `ProviderReloader[str]`."""

    _client: UpstreamClient
    _target: bytes

    async def reload(self) -> ProviderSnapshot[str]:
        """Request the list once. If that fails, the upstreams in force stay."""
        try:
            async with self._client.request(b"GET", self._target) as response:
                body = b""
                while piece := await response.receive_some():
                    body += piece
                    if len(body) > MAX_BYTES:
                        raise ReloadError(f"the list of upstreams is larger than {MAX_BYTES} bytes")
        except HttpError as error:
            raise ReloadError(f"the list of upstreams cannot be fetched: {error}") from error
        if response.status != 200:
            raise ReloadError(f"the list of upstreams: status {response.status}")
        return parse(body)


def parse(body: bytes) -> ProviderSnapshot[str]:
    """Read the list, or raise if any part of it is wrong."""
    try:
        document: dict[str, object] = json.loads(body)
        revision, upstreams = document["revision"], document["upstreams"]
    except (ValueError, KeyError, TypeError) as error:
        raise ReloadError(f"the list of upstreams is malformed: {error!r}") from None
    if not isinstance(revision, int) or not isinstance(upstreams, list):
        raise ReloadError("the list of upstreams has fields of the wrong type")
    good: list[str] = []
    for row in cast("list[object]", upstreams):
        if not (isinstance(row, str) and ":" in row):
            raise ReloadError(f"the list of upstreams has {row!r}, which is not HOST:PORT")
        good.append(row)
    return ProviderSnapshot(good, revision)


@asynccontextmanager
async def open_bridge(_: str, snapshot: ProviderSnapshot[str]) -> AsyncIterator[str]:
    yield ", ".join(snapshot.providers)  # your program opens its connections here


async def main(url: str, port: int) -> None:
    parts = urlsplit(url)
    async with open_upstream_client(f"{parts.scheme}://{parts.netloc}") as client:
        reloader = HttpReloader(client, (parts.path or "/").encode())
        nothing: ProviderSnapshot[str] = ProviderSnapshot([])
        with ChangeBus() as bus, bus.subscribe() as changes:
            async with (
                open_bridge_pool(open_bridge, nothing) as pool,
                trio.open_nursery() as nursery,
            ):
                # `start` returns when the endpoint has given its first valid answer.
                watch = partial(
                    watch_providers, pool, reloader, changes, poll_interval=POLL_INTERVAL
                )
                status: ReloadStatus = await nursery.start(watch)
                with trio.open_signal_receiver(signal.SIGHUP) as signals:
                    await nursery.start(serve, partial(show, pool, status), port)
                    async for _ in signals:
                        bus.publish()  # do not wait for the poll


async def show(pool: CachedBridgePool[str, str, str], status: ReloadStatus, ex: Exchange) -> None:
    async with pool.acquire(ex.client) as bridge:
        text = f"revision {status.revision}: {bridge}\nlast error: {status.last_error}\n"
        await ex.answer(200, body=text.encode())


async def serve(
    handler: Handler, port: int, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    print(f"listening on port {listeners[0].socket.getsockname()[1]}", flush=True)
    task_status.started()
    await serve_http(handler, listeners)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]))
