"""A control plane in this process, its API on a real server, for the tests of both."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import httpx2
import trio

from bridgepool.gateway.control._hub import Hub, open_hub
from bridgepool.gateway.control._records import Role
from bridgepool.gateway.control.api import Guard, make_api
from bridgepool.gateway.control.api._access_log import ApiRecord
from bridgepool.gateway.control.store import Store
from bridgepool.gateway.serving._listening import Address, listener_url, open_listeners
from bridgepool.http import GracefulClose, serve_http
from bridgepool.remote import Acknowledge, Identity, RejectedRow, SessionInfo
from tests.gateway.control.stores import ADA, opened
from tests.plain_http import plain_client

SECRET = "sk-the-secret-of-a-provider-0123456789"
DRAFT = {
    "name": "openai",
    "type": "openai",
    "base_url": "https://api.openai.example/v1",
    "keys": [{"value": SECRET}],
    "headers": {"x-team": "header-value-that-is-secret"},
}


@attrs.define(eq=False)
class Plane:
    """A store, a hub on it, and the API's address."""

    store: Store
    hub: Hub
    url: str
    graceful: GracefulClose
    api: Guard
    records: list[ApiRecord]
    """The access log of the API."""
    keys: dict[str, str] = attrs.field(factory=dict)

    async def key(self, role: Role = "write") -> str:
        """Return an admin key."""
        if role not in self.keys:
            change = await self.store.create_admin_key(ADA, f"admin-{role}", role)
            self.keys[role] = change.key.reveal()
        return self.keys[role]

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        key: str | None = None,
        role: Role = "write",
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx2.Response:
        """Make one request of the API."""
        token = await self.key(role) if key is None else key
        fields = {"Authorization": f"Bearer {token}"} | (headers or {})
        extra: dict[str, Any] = {"json": body} if body is not None else {"content": content}
        async with plain_client(self.url, headers=fields) as client:
            return await client.request(method, path, **extra)

    async def good(self, method: str, path: str, body: object = None, **more: Any) -> Any:
        """Make one request that has to succeed, and return what it answers."""
        response = await self.ask(method, path, body, **more)
        assert response.is_success, response.text
        return response.json()

    async def refused(self, method: str, path: str, body: object = None, **more: Any) -> Any:
        """Make one request that has to fail, and return its status and code."""
        response = await self.ask(method, path, body, **more)
        error = response.json()["error"]
        assert set(error) <= {"code", "message", "problems"}
        assert error["message"]
        return response.status_code, error["code"]


@asynccontextmanager
async def open_plane(
    url: str,
    *,
    burst: float = math.inf,
    write_interval: float = 10.0,
    clock: Callable[[], float] | None = None,
) -> AsyncIterator[Plane]:
    """Open a control plane on an empty store.

    Args:
        url: Of the store.
        burst: How many keys are refused at once; by default no test waits for a refusal.
        write_interval: Of `open_hub`.
        clock: Of the store; by default the time stands still.
    """
    async with (
        opened(url, clock=clock) as store,
        open_hub(store, gather=0.01, write_interval=write_interval) as hub,
    ):
        records: list[ApiRecord] = []
        api = make_api(store, hub, access_log=records.append)
        api.refused_keys.burst = burst
        listeners = await open_listeners([Address("127.0.0.1", 0)], None)
        graceful = GracefulClose()
        async with trio.open_nursery() as nursery:
            await nursery.start(
                partial(
                    serve_http,
                    api.handle,
                    listeners,
                    graceful=graceful,
                    answer_invalid=api.answer_invalid,
                )
            )
            yield Plane(store, hub, listener_url(listeners[0]), graceful, api, records)
            hub.end_waits()
            graceful.begin(1)


def session(name: str, number: int = 1, *, instance: str | None = None) -> SessionInfo:
    """Make a session as the service of gateways does."""
    return SessionInfo(
        id=f"session-{name}-{number}",
        identity=Identity(name, "key000000001"),
        name=name,
        instance=instance or f"instance-{name}",
        software="bridgepool/test",
        protocol="1.0",
    )


def receipt(revision: int, **rejected: str) -> Acknowledge:
    """Make a receipt."""
    return Acknowledge(revision, tuple(RejectedRow(*row) for row in rejected.items()))


async def wait_epoch(hub: Hub, before: str) -> None:
    """Wait until it serves another epoch."""

    async def is_other() -> bool:
        await trio.lowlevel.checkpoint()
        return hub.revisions.epoch != before

    await wait_for(is_other)


async def wait_revision(hub: Hub, revision: int) -> None:
    """Wait until the hub serves by a revision."""
    with trio.fail_after(60), hub.subscribe() as changes:
        while hub.revisions.revision < revision:
            await changes.receive()


async def wait_for(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something is so that nobody tells of."""
    with trio.fail_after(60):
        while not await condition():  # noqa: ASYNC110
            await trio.sleep(0.01)
