"""What one client takes must not be missing for the others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest
import trio

from bridgepool.gateway import GatewaySettings
from bridgepool.gateway.providers import Client, Provider, hash_key, new_client_key
from bridgepool.http import Headers, HttpLimits, UpstreamLimits
from tests.garbage import cycles_left_by
from tests.gateway.proxy.raw import connect, raw_upstream, read_head
from tests.gateway.proxy.rig import Rig, anthropic, open_rig, openai, own_refusals, start_upstream


def client_with_key(name: str) -> tuple[Client, str]:
    key = new_client_key()
    return Client(id=name, key_hashes=(hash_key(key),)), key.reveal()


def get(path: str, key: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n\r\n".encode()


def bearer(key: str) -> Headers:
    return ((b"authorization", b"Bearer " + key.encode()),)


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
            await known.send_all(get("/ai/v1/models", key))
            assert b"200 OK" in await known.receive_some()
            await stranger.send_all(get("/ai/v1/models", "wrong"))
            assert b"401 Unauthorized" in await stranger.receive_some()
            with trio.fail_after(60):
                assert await stranger.receive_some() == b""
            await known.send_all(get("/ai/v1/models", key))
            assert b"200 OK" in await known.receive_some()


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def hold_or_answer(stream: trio.SocketStream) -> None:
    """Answer every request, but those that ask to be held."""
    with suppress(trio.BrokenResourceError, AssertionError):
        while True:
            if b"?hold" in await read_head(stream):
                await trio.sleep_forever()
            await stream.send_all(OK)


def sharing(*, connections: int, wait_timeout: float = 30.0) -> GatewaySettings:
    limits = UpstreamLimits(
        max_connections=connections,
        max_waiting=connections,
        tenant_share=0.5,
        wait_timeout=wait_timeout,
    )
    return GatewaySettings(upstream_limits=limits, min_reload_interval=0.001)


@pytest.mark.parametrize("kind", [openai, anthropic])
async def test_one_client_that_takes_all_it_can_get_leaves_a_provider_to_the_others(
    nursery: trio.Nursery, kind: Callable[[str, str], Provider]
) -> None:
    """A thousand slow streams of one client: everybody else got 503 after 30 seconds."""
    url = await raw_upstream(nursery, hold_or_answer)
    (ada, greedy_key), (bob, other_key) = client_with_key("ada"), client_with_key("bob")
    async with (
        AsyncExitStack() as stack,
        open_rig(
            kind(url, "ai"), nursery=nursery, clients=[ada, bob], settings=sharing(connections=4)
        ) as rig,
    ):
        for _ in range(4):  # two get a connection, two wait
            greedy = await stack.enter_async_context(connect(rig.address))
            await greedy.send(get("/ai/v1/models?hold", greedy_key))
        await rig.wait_requests(4)
        refused = await rig.ask("/ai/v1/models", headers=bearer(greedy_key))
        assert (refused.status, refused.headers[b"retry-after"]) == (429, b"1")
        assert refused.json["error"]["type"] == "rate_limit_error"
        for _ in range(3):
            served = await rig.ask("/ai/v1/models", headers=bearer(other_key))
            assert (served.status, served.body) == (200, b"ok")
        [record, *_] = [record for record in rig.records if record.client == "ada"]
        assert record.code == "client_share_exceeded"


@asynccontextmanager
async def used_up_share(nursery: trio.Nursery) -> AsyncIterator[tuple[Rig, Headers]]:
    """Open a gateway, one client of which has its share of the upstream's connections."""
    url = await raw_upstream(nursery, hold_or_answer)
    ada, key = client_with_key("ada")
    settings = sharing(connections=2, wait_timeout=0.01)
    async with (
        open_rig(openai(url), nursery=nursery, clients=[ada], settings=settings) as rig,
        connect(rig.address) as greedy,
    ):
        await greedy.send(get("/ai/v1/models?hold", key))
        await rig.wait_requests(1)
        yield rig, bearer(key)


async def test_a_client_that_waits_for_its_own_share_in_vain_gets_429(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "bridgepool.gateway")
    async with used_up_share(nursery) as (rig, key):
        refused = await rig.ask("/ai/v1/models", headers=key)
        assert (refused.status, refused.code) == (429, "client_share_exceeded")
    assert own_refusals(caplog) == [("INFO", "client_share_exceeded")]


async def test_a_share_that_is_used_up_leaves_nothing_to_the_garbage_collector(
    nursery: trio.Nursery,
) -> None:
    async with used_up_share(nursery) as (rig, key):

        async def exceed() -> None:
            assert (await rig.ask("/ai/v1/models", headers=key)).status == 429
            rig.records.clear()

        assert await cycles_left_by(exceed) == []


@pytest.mark.parametrize("framing", ["Content-Length: 100000", "Transfer-Encoding: chunked"])
async def test_a_body_above_the_read_ahead_holds_no_upstream_connection_before_it_flows(
    nursery: trio.Nursery, framing: str
) -> None:
    opened = 0

    async def script(stream: trio.SocketStream) -> None:
        nonlocal opened
        opened += 1
        await hold_or_answer(stream)

    url = await raw_upstream(nursery, script)
    ada, key = client_with_key("ada")
    async with (
        open_rig(
            openai(url), nursery=nursery, clients=[ada], settings=sharing(connections=4)
        ) as rig,
        connect(rig.address) as slow,
    ):
        head = f"POST /ai/v1/chat/completions HTTP/1.1\r\nHost: a\r\n{framing}\r\n"
        await slow.send((head + f"Authorization: Bearer {key}\r\n\r\n").encode())
        await rig.wait_requests(1)
        assert opened == 0
        piece = b"x" * 70_000
        await slow.send(b"%x\r\n%b\r\n" % (len(piece), piece) if "chunked" in framing else piece)
        await slow.read_until(b"HTTP/1.1 200 OK")
        assert opened == 1


async def test_a_body_that_comes_too_slowly_gets_408_and_its_connection_is_free_again(
    nursery: trio.Nursery,
) -> None:
    url = await raw_upstream(nursery, hold_or_answer)
    ada, key = client_with_key("ada")
    limits = HttpLimits(max_body_time=0.05)
    async with (
        open_rig(openai(url), nursery=nursery, clients=[ada], limits=limits) as rig,
        connect(rig.address) as slow,
    ):
        head = "POST /ai/v1/chat/completions?hold HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n"
        await slow.send((head + f"Authorization: Bearer {key}\r\n\r\n").encode() + b"x" * 70_000)
        await slow.read_until(b"HTTP/1.1 408 ")
        [record] = await rig.wait_records(1)
        assert (record.status, record.code) == (408, "bad_request_body")
