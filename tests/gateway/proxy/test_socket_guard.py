"""A websocket ends with the key of its client."""

from __future__ import annotations

import pytest
import trio

from bridgepool.gateway import Outcome
from bridgepool.gateway.providers import (
    Client,
    hash_key,
    new_client_key,
)
from bridgepool.http.asgi import asgi_app
from tests.gateway.proxy.socket_rig import (
    SERVED,
    connected,
    create,
    events,
    opened,
)
from tests.http.test_asgi import hypercorn_serving


async def test_a_key_that_is_revoked_or_expires_ends_its_websocket(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins no new response, and is closed between two messages."""
    monkeypatch.setattr("bridgepool.gateway.proxy._websocket_relay.CHECK_INTERVAL", 0.02)
    async with opened(nursery) as both:
        for rules, reason in (
            (None, "invalid_api_key"),
            ({"expires": "2020-01-01T00:00:00Z"}, "key_expired"),
            ({"providers": ("other",)}, "provider_not_allowed"),
            ({"routes": ("/chat/*",)}, "route_not_allowed"),
        ):
            both.rules()
            async with connected(both) as socket:
                await socket.send_text(create())
                assert await events(socket, 2) == SERVED
                if rules is None:
                    both.rig.set_clients(Client(id="eve", key_hashes=(hash_key(new_client_key()),)))
                else:
                    both.rules(**rules)
                assert await socket.receive_close() == (1008, reason)
        records = await both.rig.wait_records(4)
        assert {record.outcome for record in records} == {Outcome.REFUSED}
        # Rules that come while it is open hold from then on.
        both.rules()
        async with connected(both) as socket:
            both.rules(models=("o3",))
            with trio.fail_after(5):
                while not both.rig.gateway._sockets.total:  # noqa: ASYNC110
                    await trio.sleep(0.001)
                await trio.sleep(0.1)
            await socket.send_text(create("gpt-5"))
            assert await events(socket, 1) == ["model_not_allowed"]


async def test_rules_and_revocations_hold_under_an_asgi_server_as_well(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridgepool.gateway.proxy._websocket_relay.CHECK_INTERVAL", 0.02)
    async with (
        opened(nursery) as both,
        hypercorn_serving(asgi_app(both.rig.gateway.handle)) as port,
    ):
        both.rig.address = f"127.0.0.1:{port}"
        both.rules(providers=("other",))
        assert await both.refusal() == (403, "provider_not_allowed")
        both.rules(models=("gpt-*",), requests_per_minute=1)
        async with connected(both) as socket:
            await socket.send_text(create("o3"))
            assert await events(socket, 1) == ["model_not_allowed"]
            await socket.send_text(create())
            assert await events(socket, 2) == SERVED
            await socket.send_text(create())
            assert await events(socket, 1) == ["rate_limited"]
            assert await both.refusal() == (429, "rate_limited")
            both.rules(expires="2020-01-01T00:00:00Z")
            assert await socket.receive_close() == (1008, "key_expired")
