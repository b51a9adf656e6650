"""A gateway on a real socket, with in-memory providers; and a client that speaks plain HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import pytest
import trio

from bridgepool import MemoryReloader, ProviderSnapshot
from bridgepool.gateway import (
    AccessRecord,
    Gateway,
    GatewaySettings,
    OnUsage,
    RequestObserver,
    Tracing,
    open_gateway,
)
from bridgepool.gateway.demo._upstream import SimulatedUpstream, serve_simulated_upstream
from bridgepool.gateway.limits._prices import PriceTable
from bridgepool.gateway.providers import PROVIDER_TYPES, Client, Clients, Provider, ProviderType
from bridgepool.gateway.usage._bodies import BodyRecorder
from bridgepool.http import Headers, HttpLimits, UpstreamClient, open_upstream_client, serve_http
from tests.waiting import wait_until

CHAT = "/chat/completions"


@attrs.frozen
class Answer:
    """A whole answer."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code in an error body of either shape."""
        return str(self.json["error"]["code"])


@attrs.define(eq=False)
class Rig:
    """A served gateway and the means to change everything around it."""

    gateway: Gateway
    address: str
    source: MemoryReloader[Provider]
    clients: Clients
    client: UpstreamClient
    records: list[AccessRecord] = attrs.field(factory=list)
    _record: trio.Event = attrs.field(factory=trio.Event)

    def log(self, record: AccessRecord) -> None:
        self.records.append(record)
        self._record.set()
        self._record = trio.Event()

    async def wait_records(self, count: int) -> list[AccessRecord]:
        """Wait until so many requests have ended."""
        with trio.fail_after(60):
            while len(self.records) < count:
                await self._record.wait()
        return self.records

    async def wait_requests(self, count: int) -> None:
        """Wait until so many requests are being served, and wait for something."""
        await wait_until(lambda: self.gateway.statistics().requests >= count)
        await trio.testing.wait_all_tasks_blocked()

    def set_clients(self, *clients: Client) -> None:
        """Change who may come."""
        self.clients = Clients(clients)

    async def replace(self, *providers: Provider) -> None:
        """Change the providers, and wait until that is in force."""
        snapshot = ProviderSnapshot(providers, allow_empty=True)
        self.source.replace(snapshot)
        await wait_until(lambda: self.gateway.pool.snapshot is snapshot)

    async def ask(
        self, target: str, body: object = None, headers: Headers = (), method: str = ""
    ) -> Answer:
        """Send one request and read the whole answer."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sends = body is not None
        method = method or ("POST" if sends else "GET")
        async with self.client.request(
            method.encode(), target.encode(), headers, data if sends else None
        ) as response:
            pieces = []
            while piece := await response.receive_some():
                pieces.append(piece)
            return Answer(response.status, dict(response.headers), b"".join(pieces))


class SlowReloader(MemoryReloader[Provider]):
    """Waits before it answers."""

    wait: Callable[[], Awaitable[None]]

    async def reload(self) -> ProviderSnapshot[Provider]:
        await self.wait()
        return await super().reload()


@asynccontextmanager
async def open_rig(
    *providers: Provider,
    nursery: trio.Nursery,
    clients: Iterable[Any] = (),
    settings: GatewaySettings | None = None,
    limits: HttpLimits | None = None,
    loaded: bool = True,
    reload: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
    types: Iterable[ProviderType] = PROVIDER_TYPES,
    observers: Iterable[RequestObserver] = (),
    tracing: Tracing | None = None,
    on_usage: OnUsage | None = None,
    prices: PriceTable | None = None,
    bodies: BodyRecorder | None = None,
    usage_full: Callable[[], bool] | None = None,
    usage_report: Callable[[], Mapping[str, object]] | None = None,
) -> AsyncIterator[Rig]:
    """Open a gateway on a free port; it stops with the block.

    `loaded` gives it the providers at its start; else they come by the first reload, which
    waits for `reload`.
    """
    source = SlowReloader(ProviderSnapshot(providers, allow_empty=True))
    source.wait = reload
    settings = settings or GatewaySettings(allow_anonymous=True, min_reload_interval=0.001)
    rig: Rig | None = None

    def log(record: AccessRecord) -> None:
        assert rig is not None
        rig.log(record)

    def clients_now() -> Clients:
        assert rig is not None
        return rig.clients

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    async with (
        open_upstream_client(f"http://{address}") as client,
        open_gateway(
            source,
            source.subscribe(),
            clients=clients_now,
            first=source.snapshot if loaded else None,
            settings=settings,
            types=types,
            observers=[*observers, log],
            tracing=tracing,
            on_usage=on_usage,
            prices=prices,
            bodies=bodies,
            usage_full=usage_full,
            usage_report=usage_report,
        ) as gateway,
    ):
        rig = Rig(gateway, address, source, Clients(clients), client)
        serving = trio.CancelScope()

        async def serve(task_status: trio.TaskStatus[object]) -> None:
            with serving:
                await serve_http(
                    gateway.handle,
                    listeners,
                    limits=limits or HttpLimits(),
                    over_limit=gateway.handle_over_limit,
                    answer_invalid=gateway.answer_invalid,
                    task_status=task_status,
                )

        await nursery.start(serve)
        try:
            yield rig
        finally:
            serving.cancel()


async def start_upstream(nursery: trio.Nursery, identity: str = "north") -> SimulatedUpstream:
    """Start a simulated upstream."""
    upstream: SimulatedUpstream = await nursery.start(partial(serve_simulated_upstream, identity))
    return upstream


def openai(upstream: SimulatedUpstream | str, name: str = "ai", **fields: Any) -> Provider:
    """A provider of type openai that is this upstream."""
    url = upstream if isinstance(upstream, str) else upstream.openai_url
    if "key_env" not in fields and "client_keys" not in fields:
        fields.setdefault("keys", ["sk-central"])
    return Provider(name=name, type="openai", base_url=url, allow_private=True, **fields)


def anthropic(upstream: SimulatedUpstream | str, name: str = "claude", **fields: Any) -> Provider:
    """A provider of type anthropic that is this upstream."""
    url = upstream if isinstance(upstream, str) else upstream.anthropic_url
    if "key_env" not in fields and "client_keys" not in fields:
        fields.setdefault("keys", ["sk-ant-central"])
    return Provider(name=name, type="anthropic", base_url=url, allow_private=True, **fields)


def own_refusals(caplog: pytest.LogCaptureFixture) -> list[tuple[str, object]]:
    """Return the level and the code of each request that the log says the gateway refused.

    None of them is logged as an upstream's failure, too.
    """
    refused = [line for line in caplog.records if line.message == "request to a provider refused"]
    failed = [line for line in caplog.records if line.message == "upstream request failed"]
    ids = {vars(line)["request_id"] for line in refused}
    assert ids.isdisjoint(vars(line)["request_id"] for line in failed)
    return [(line.levelname, vars(line)["code"]) for line in refused]
