"""The soak: many clients stream while the providers are replaced again and again.

Each generation's provider has a base path of its own, which the upstream stamps into every
event. So a client can tell which generation served each piece of its stream, and one lower
than that in force when its request began would be a stale bridge.

Upstream, gateway and clients share one process and one Trio run, so that at the end every task
and every socket can be counted.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import attrs
import pytest
import trio

from bridgepool import MemoryReloader, PoolStatistics, ProviderSnapshot
from bridgepool.gateway import Bridge, BridgeKey, Gateway, GatewaySettings
from bridgepool.gateway import _opening as opening
from bridgepool.gateway.providers import Client, Clients, Provider, hash_key, new_client_key
from bridgepool.gateway.proxy._bridge import open_bridge
from bridgepool.gateway.proxy._runtimes import Runtimes, Snapshot
from bridgepool.http import (
    Exchange,
    GracefulClose,
    HttpError,
    UpstreamClient,
    get_header,
    open_upstream_client,
    serve_http,
)

EVENTS = 10
PACE = 0.2  # seconds between two events of a stream


@attrs.define(eq=False)
class Tally:
    """What happened, and what was left of it."""

    streams: int = 0
    events: int = 0
    replacements: int = 0
    runtimes: int = 0
    keys_used: int = 0
    """Keys of the provider that a request has used, good or not."""
    keys_left: int = 0
    """Keys whose state is kept after the end."""
    failed: int = 0
    truncated: int = 0
    mixed: int = 0
    stale: int = 0
    problems: list[str] = attrs.field(factory=list)
    opened: Counter[int] = attrs.field(factory=Counter)
    """How often each bridge was opened, by a number of its own."""
    closed: Counter[int] = attrs.field(factory=Counter)
    tasks_left: int = 0
    sockets_left: int = 0
    pool: PoolStatistics | None = None

    def fault(self, kind: str, text: str) -> None:
        """Count one thing that must not happen."""
        setattr(self, kind, getattr(self, kind) + 1)
        if len(self.problems) < 10:
            self.problems.append(f"{kind}: {text}")

    def check(self) -> None:
        """Hold it to what the gateway promises."""
        assert not self.problems, self.problems
        assert (self.failed, self.truncated, self.mixed, self.stale) == (0, 0, 0, 0)
        assert self.opened == self.closed, "a bridge was not closed exactly once"
        assert set(self.closed.values()) == {1}
        assert self.pool is not None
        assert (self.pool.leased, self.pool.forced_closes, self.pool.close_overruns) == (0, 0, 0)
        assert self.pool.close_failures == 0
        assert (self.tasks_left, self.sockets_left) == (0, 0)

    def __str__(self) -> str:
        return (
            f"{self.streams} streams of {self.events} events, {self.replacements} replacements, "
            f"{len(self.opened)} bridges: {self.failed} failed, {self.truncated} truncated, "
            f"{self.stale} stale, {self.mixed} mixed; {self.tasks_left} tasks and "
            f"{self.sockets_left} sockets left"
        )


_BAD_KEYS = {b"Bearer sk-limited": 429, b"Bearer sk-refused": 401}
_KEYS = ((), ("sk-limited",), ("sk-refused", "sk-limited"), ("sk-limited", "sk-refused"))


async def upstream(exchange: Exchange) -> None:
    """Stream events that say which base path they were asked for by."""
    async for _ in exchange.body:
        pass
    status = _BAD_KEYS.get(get_header(exchange.request.headers, b"authorization") or b"")
    if status is not None:  # the gateway has another key, and its client is not to notice
        await exchange.answer(status, ((b"retry-after", b"1"),))
        return
    stamp = exchange.request.target.split(b"/")[1]
    headers = ((b"content-type", b"text/event-stream"),)
    async with exchange.respond(200, headers) as stream:
        for number in range(EVENTS):
            await stream.send_all(b"data: %b %d\n\n" % (stamp, number))
            await trio.sleep(PACE)  # the load is paced; nothing is decided by it


def snapshot(address: str, revision: int) -> Snapshot:
    provider = Provider(
        name="ai",
        type="openai",
        base_url=f"http://{address}/{revision}/v1",
        keys=[*_KEYS[revision % len(_KEYS)], "sk-soak"],
        allow_private=True,
    )
    return ProviderSnapshot((provider,), revision)


@attrs.define(eq=False)
class Load:
    """The clients' side."""

    gateway: Gateway
    client: UpstreamClient
    tally: Tally
    stopping: bool = False

    async def stream_on(self, key: bytes) -> None:
        """Stream one answer after another until told to stop."""
        while not self.stopping:
            floor = self.gateway.pool.snapshot.revision or 0
            try:
                await self.stream_once(key, floor)
            except HttpError as error:
                self.tally.fault("truncated", repr(error))

    async def stream_once(self, key: bytes, floor: int) -> None:
        headers = ((b"authorization", b"Bearer " + key),)
        body = b'{"model": "m", "stream": true}'
        data = b""
        async with self.client.request(
            b"POST", b"/ai/v1/chat/completions", headers, body
        ) as response:
            while piece := await response.receive_some():
                data += piece
        tally = self.tally
        if response.status != 200:
            tally.fault("failed", f"{response.status} {data!r}")
            return
        events = [event.removeprefix(b"data: ").split() for event in data.split(b"\n\n")[:-1]]
        stamps = {int(event[0]) for event in events}
        if [int(event[1]) for event in events] != list(range(EVENTS)):
            tally.fault("truncated", repr(data))
        if len(stamps) != 1:
            tally.fault("mixed", repr(data))
        if min(stamps, default=0) < floor:
            tally.fault("stale", f"began at {floor}, was served by {stamps}")
        tally.streams += 1
        tally.events += len(events)


async def soak(
    *, clients: int, seconds: float, replacements_per_second: float, patch: pytest.MonkeyPatch
) -> Tally:
    """Run the soak and count what is left of it."""
    tally = Tally()
    _count_bridges(tally, patch)
    await trio.testing.wait_all_tasks_blocked()
    tasks, sockets = _tasks(), _sockets()
    await _run(tally, clients, seconds, 1 / replacements_per_second)
    await trio.testing.wait_all_tasks_blocked()
    tally.tasks_left, tally.sockets_left = _tasks() - tasks, _sockets() - sockets
    return tally


async def _run(tally: Tally, clients: int, seconds: float, interval: float) -> None:
    keys = [new_client_key() for _ in range(clients)]
    rows = [Client(id=f"c{number}", key_hashes=(hash_key(k),)) for number, k in enumerate(keys)]
    known = Clients(rows)
    settings = GatewaySettings(min_reload_interval=interval / 20)
    async with _serving_upstream() as address:
        source = MemoryReloader(snapshot(address, 1))
        async with opening.open_gateway(
            source,
            source.subscribe(),
            clients=lambda: known,
            first=source.snapshot,
            settings=settings,
        ) as gateway:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=1024)
            port = listeners[0].socket.getsockname()[1]
            graceful = GracefulClose()
            async with (
                open_upstream_client(f"http://127.0.0.1:{port}") as client,
                trio.open_nursery() as server,
            ):
                await server.start(
                    partial(serve_http, gateway.handle, listeners, graceful=graceful)
                )
                load = Load(gateway, client, tally)
                async with trio.open_nursery() as nursery:
                    for key in keys:
                        nursery.start_soon(load.stream_on, key.reveal().encode())
                    await _keep_replacing(source, gateway, address, seconds, interval)
                    # Requests on their way, and streams that have just begun, are served.
                    load.stopping = True
                    graceful.begin(within=60)
                reported = gateway.key_report().keys
                tally.keys_used = sum(key.unused_for is not None for key in reported)
        tally.replacements = gateway.pool.generation - 1
        tally.runtimes = gateway.statistics().runtimes
        tally.keys_left = len(gateway.key_report().keys)
        tally.pool = gateway.pool.statistics()


async def _keep_replacing(
    source: MemoryReloader[Provider],
    gateway: Gateway,
    address: str,
    seconds: float,
    interval: float,
) -> None:
    """Replace on schedule, and only when the one before is in force: none is skipped."""
    start = trio.current_time()
    for number in range(int(seconds / interval)):
        await trio.sleep_until(start + number * interval)  # the load is paced
        source.replace(snapshot(address, number + 2))
        while gateway.pool.snapshot.revision != number + 2:  # noqa: ASYNC110 -- no event tells
            await trio.sleep(0.001)


@asynccontextmanager
async def _serving_upstream() -> AsyncIterator[str]:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=1024)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_http, upstream, listeners)
        yield f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


def _count_bridges(tally: Tally, patch: pytest.MonkeyPatch) -> None:
    """Count how often every single bridge is opened and closed."""
    numbers = itertools.count()

    @asynccontextmanager
    async def open_counted(
        key: BridgeKey, snapshot: Snapshot, runtimes: Runtimes
    ) -> AsyncIterator[Bridge]:
        number = next(numbers)
        async with open_bridge(key, snapshot, runtimes) as bridge:
            tally.opened[number] += 1
            try:
                yield bridge
            finally:
                tally.closed[number] += 1

    patch.setattr(opening, "open_bridge", open_counted)


def _tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


def _sockets() -> int:
    links = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
    found = 0
    for link in links:
        try:
            found += os.readlink(link).startswith("socket:")
        except FileNotFoundError:
            continue  # that of the listing itself
    return found
