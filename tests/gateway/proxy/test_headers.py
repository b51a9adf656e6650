"""What a real upstream sees of a client, and a client of an upstream."""

from __future__ import annotations

import pytest
import trio

from bridgepool.gateway import GatewaySettings
from bridgepool.gateway.providers import Client, hash_key, new_client_key
from tests.gateway.proxy.raw import connect, raw_upstream, read_head, says
from tests.gateway.proxy.rig import anthropic, open_rig, openai, start_upstream

CHAT = "/ai/v1/chat/completions"


async def test_the_providers_key_goes_in_and_the_clients_credentials_come_out(
    nursery: trio.Nursery,
) -> None:
    north = await start_upstream(nursery)
    mine = (
        (b"authorization", b"Bearer sk-client-secret"),
        (b"x-api-key", b"sk-client-secret"),
        (b"api-key", b"sk-client-secret"),
        (b"cookie", b"session=sk-client-secret"),
        (b"x-bridgepool-key", b"sk-client-secret"),
        (b"x-bridgepool-generation", b"7"),
        (b"openai-organization", b"org-of-the-client"),
        (b"proxy-authorization", b"Basic sk-client-secret"),
    )
    async with open_rig(openai(north), anthropic(north), nursery=nursery) as rig:
        assert (await rig.ask(CHAT, {}, mine)).status == 200
        assert (await rig.ask("/claude/v1/messages", {}, mine)).status == 200
    first, second = north.received
    assert first.header(b"authorization") == b"Bearer sk-central"
    assert second.header(b"x-api-key") == b"sk-ant-central"
    assert second.header(b"authorization") is None
    for seen in north.received:
        for name, value in seen.headers:
            assert b"sk-client-secret" not in value, name
            assert not name.startswith(b"x-bridgepool-")
        assert seen.header(b"openai-organization") is None


async def test_a_key_from_the_environment_is_put_in(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    north = await start_upstream(nursery)
    monkeypatch.setenv("BRIDGEPOOL_TEST_KEY", "sk-from-the-environment")
    async with open_rig(openai(north, key_env="BRIDGEPOOL_TEST_KEY"), nursery=nursery) as rig:
        assert (await rig.ask(CHAT, {})).status == 200
    assert north.received[0].header(b"authorization") == b"Bearer sk-from-the-environment"


async def test_a_client_brings_its_own_key_where_the_provider_says_so(
    nursery: trio.Nursery,
) -> None:
    north = await start_upstream(nursery)
    key = new_client_key()
    token = key.reveal().encode()
    clients = (Client(id="ada", key_hashes=(hash_key(key),)),)
    providers = (openai(north, "own", client_keys=True), openai(north, "ai"))
    settings = GatewaySettings(min_reload_interval=0.001)
    async with open_rig(*providers, nursery=nursery, clients=clients, settings=settings) as rig:
        both = ((b"x-bridgepool-key", token), (b"authorization", b"Bearer sk-own"))
        own = "/own/v1/chat/completions"
        assert (await rig.ask(own, {}, both)).status == 200
        assert north.received[-1].header(b"authorization") == b"Bearer sk-own"
        assert north.received[-1].header(b"x-bridgepool-key") is None
        # Elsewhere the provider has a key, and the client's is not for it.
        assert (await rig.ask(CHAT, {}, both)).status == 200
        assert north.received[-1].header(b"authorization") == b"Bearer sk-central"
        # The gateway's own key is never passed on in the place of an upstream's.
        answer = await rig.ask(own, {}, ((b"authorization", b"Bearer " + token),))
        assert (answer.status, answer.code) == (401, "own_key_missing")
    assert len(north.received) == 2
    assert all(token not in value for seen in north.received for _, value in seen.headers)


async def test_the_upstream_is_told_its_own_host_and_nothing_about_the_client(
    nursery: trio.Nursery,
) -> None:
    north = await start_upstream(nursery)
    sent = (
        (b"x-forwarded-for", b"127.0.0.1"),
        (b"forwarded", b"for=127.0.0.1"),
        (b"connection", b"x-hop"),
        (b"x-hop", b"1"),
        (b"keep-alive", b"timeout=5"),
        (b"accept-encoding", b"gzip"),
        (b"x-stainless-lang", b"python"),
    )
    raw = b"".join(b"%b: %b\r\n" % header for header in sent)
    async with open_rig(openai(north), nursery=nursery) as rig, connect(rig.address) as client:
        await client.send(
            b"POST /ai/v1/chat/completions?a=%2F&b HTTP/1.1\r\nhost: localhost\r\n"
            + raw
            + b"content-length: 2\r\n\r\n{}"
        )
        await client.read_until(b"\r\n\r\n")
        await rig.wait_records(1)
    [seen] = north.received
    assert seen.target == b"/v1/chat/completions?a=%2F&b"
    assert seen.header(b"host") == north.address.encode()
    assert seen.header(b"accept-encoding") == b"gzip"
    assert seen.header(b"x-stainless-lang") == b"python"
    for gone in (b"x-forwarded-for", b"forwarded", b"x-hop", b"keep-alive"):
        assert seen.header(gone) is None, gone


async def test_the_answers_headers_come_through_but_for_those_of_the_connection(
    nursery: trio.Nursery,
) -> None:
    answer = (
        b"HTTP/1.1 200 Fine\r\nx-request-id: abc\r\nset-cookie: a=b\r\nx-hop: 1\r\n"
        b"connection: x-hop\r\nkeep-alive: timeout=5\r\nx-bridgepool-generation: 99\r\n"
        b"content-length: 2\r\n\r\n{}"
    )
    url = await raw_upstream(nursery, says(answer))
    async with open_rig(openai(url), nursery=nursery) as rig:
        found = await rig.ask(CHAT, {})
    assert found.headers[b"x-upstream-request-id"] == b"abc"
    for gone in (b"set-cookie", b"x-hop", b"keep-alive", b"x-bridgepool-generation"):
        assert gone not in found.headers, gone


async def test_who_served_is_told_in_headers_when_that_is_switched_on(
    nursery: trio.Nursery,
) -> None:
    north = await start_upstream(nursery)
    settings = GatewaySettings(
        allow_anonymous=True, expose_route_headers=True, min_reload_interval=0.001
    )
    async with open_rig(openai(north), nursery=nursery, settings=settings) as rig:
        await rig.replace(openai(north), openai(north, "other"))
        for target, name in ((CHAT, b"ai"), ("/other/v1/models", b"other")):
            answer = await rig.ask(target, {} if target == CHAT else None)
            assert answer.headers[b"x-bridgepool-provider"] == name
            assert answer.headers[b"x-bridgepool-generation"] == b"2"


async def test_head_requests_and_empty_answers_pass(nursery: trio.Nursery) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        head = await read_head(stream)
        if head.startswith(b"HEAD"):
            answer = b"HTTP/1.1 200 OK\r\ncontent-length: 1234\r\nconnection: close\r\n\r\n"
        else:
            answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"
        await stream.send_all(answer)

    url = await raw_upstream(nursery, serve)
    async with open_rig(openai(url), nursery=nursery) as rig:
        head = await rig.ask("/ai/v1/models", method="HEAD")
        assert (head.status, head.body) == (200, b"")
        assert head.headers[b"content-length"] == b"1234"
        empty = await rig.ask(CHAT, {})
        assert (empty.status, empty.body) == (204, b"")


async def test_trailers_pass_both_ways(nursery: trio.Nursery) -> None:
    asked = b""

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal asked
        asked = await read_head(stream)
        while b"x-sum: up" not in asked:
            asked += await stream.receive_some()
        await stream.send_all(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n"
            b"2\r\nhi\r\n0\r\nx-sum: down\r\n\r\n"
        )
        await stream.receive_some()

    url = await raw_upstream(nursery, serve)
    async with open_rig(openai(url), nursery=nursery) as rig, connect(rig.address) as client:
        await client.send(
            b"POST /ai/v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nte: trailers\r\n"
            b"transfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n"
            b"2\r\nhi\r\n0\r\nx-sum: up\r\n\r\n"
        )
        await client.read_until(b"0\r\nx-sum: down\r\n\r\n")
    assert b"x-sum: up" in asked


async def test_expect_100_continue_is_answered_when_the_upstream_wants_the_body(
    nursery: trio.Nursery,
) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        head = await read_head(stream)
        assert b"100-continue" in head
        assert head.endswith(b"\r\n\r\n"), "the body came unasked"
        await stream.send_all(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await stream.receive_some() == b"hi"
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await stream.receive_some()

    url = await raw_upstream(nursery, serve)
    async with open_rig(openai(url), nursery=nursery) as rig, connect(rig.address) as client:
        await client.send(
            b"POST /ai/v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
            b"expect: 100-continue\r\ncontent-length: 2\r\n\r\n"
        )
        await client.read_until(b"HTTP/1.1 100 Continue\r\n\r\n")
        await client.send(b"hi")
        await client.read_until(b"ok")
