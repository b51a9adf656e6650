"""What one client takes must not be missing for the others."""

from __future__ import annotations

import trio

from bridgepool.gateway.providers import Client, hash_key, new_client_key
from bridgepool.http import HttpLimits
from tests.gateway.proxy.rig import open_rig, openai, start_upstream


def client_with_key(name: str) -> tuple[Client, str]:
    key = new_client_key()
    return Client(id=name, key_hashes=(hash_key(key),)), key.reveal()


def request_with(key: str) -> bytes:
    head = f"GET /ai/v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n\r\n"
    return head.encode()


async def test_a_connection_without_a_key_lives_shortly_and_one_with_a_key_stays(
    nursery: trio.Nursery,
) -> None:
    """A program without a key could hold its connections for as long as it liked."""
    north = await start_upstream(nursery)
    limits = HttpLimits(unauthenticated_timeout=0.05)
    ada, key = client_with_key("ada")
    async with open_rig(openai(north), nursery=nursery, clients=[ada], limits=limits) as rig:
        host, _, port = rig.address.partition(":")
        async with (
            await trio.open_tcp_stream(host, int(port)) as known,
            await trio.open_tcp_stream(host, int(port)) as stranger,
        ):
            await known.send_all(request_with(key))
            assert b"200 OK" in await known.receive_some()
            await stranger.send_all(request_with("wrong"))
            assert b"401 Unauthorized" in await stranger.receive_some()
            with trio.fail_after(10):
                assert await stranger.receive_some() == b""
            await known.send_all(request_with(key))
            assert b"200 OK" in await known.receive_some()
