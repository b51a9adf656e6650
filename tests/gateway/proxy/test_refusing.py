"""What the gateway answers itself, on the wire."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import attrs
import pytest
import trio

from bridgepool.gateway import GatewaySettings, Outcome
from bridgepool.gateway.providers import Client, hash_key, new_client_key
from bridgepool.http import HttpLimits, UpstreamLimits
from tests.gateway.proxy.raw import connect, post, raw_upstream, read_head, says, silence
from tests.gateway.proxy.rig import anthropic, open_rig, openai, start_upstream

CHAT = "/ai/v1/chat/completions"
OPEN = GatewaySettings(allow_anonymous=True, min_reload_interval=0.001)


async def test_a_reloader_that_never_answers_leaves_the_gateway_not_ready(
    nursery: trio.Nursery,
) -> None:
    north = await start_upstream(nursery)
    async with open_rig(
        openai(north), nursery=nursery, loaded=False, reload=trio.sleep_forever
    ) as rig:
        answer = await rig.ask(CHAT, {})
        assert (answer.status, answer.code) == (503, "not_ready")
        assert answer.headers[b"retry-after"] == b"1"
        ready = await rig.ask("/readyz")
        assert (ready.status, ready.json["ready"]) == (503, False)
        assert (await rig.ask("/healthz")).status == 200
    assert not north.received


async def test_readiness_follows_the_age_of_the_snapshot(nursery: trio.Nursery) -> None:
    settings = attrs.evolve(OPEN, max_stale=1e-9)
    async with open_rig(nursery=nursery, settings=settings) as rig:
        ready = await rig.ask("/readyz")
        assert ready.status == 503
        assert "too old" in ready.json["reason"]


async def test_readiness_tells_the_generation_and_ends_with_the_drain(
    nursery: trio.Nursery,
) -> None:
    async with open_rig(nursery=nursery) as rig:
        ready = await rig.ask("/readyz")
        assert ready.status == 200
        assert ready.json["ready"] is True
        assert ready.json["generation"] == 1
        assert 0 <= ready.json["age"] < 60
        rig.gateway.start_draining()
        assert (await rig.ask("/readyz")).status == 503
        assert (await rig.ask("/healthz")).status == 200


async def test_disabled_misconfigured_and_unknown_providers_are_told_apart(
    nursery: trio.Nursery,
) -> None:
    north = await start_upstream(nursery)
    providers = (
        openai(north, "off", enabled=False),
        openai(north, "broken", key_env="BRIDGEPOOL_TEST_NOT_SET"),
        openai(north, "ai"),
    )
    async with open_rig(*providers, nursery=nursery) as rig:
        expected = {
            "/off/v1/chat/completions": (503, "provider_disabled"),
            "/broken/v1/chat/completions": (503, "provider_misconfigured"),
            "/none/v1/chat/completions": (404, "unknown_provider"),
            "/ai/v1/files": (404, "unknown_route"),
            "/ai/v1/chat/../files": (404, "unknown_route"),
            "/ai/chat/completions": (404, "unknown_route"),
            "/": (404, "unknown_provider"),
        }
        for target, outcome in expected.items():
            answer = await rig.ask(target, {})
            assert (answer.status, answer.code) == outcome, target
            assert answer.headers[b"x-should-retry"] == b"false"
            assert "BRIDGEPOOL_TEST_NOT_SET" not in answer.body.decode()
        answer = await rig.ask(CHAT, {})
        assert answer.status == 200, "one provider's trouble is not another's"
    assert [record.code for record in rig.records[:7]] == [code for _, code in expected.values()]
    assert {record.outcome for record in rig.records[:7]} == {Outcome.REFUSED}


PATHS = (
    "/v1",
    "/v1/chat/completions",
    "/v1/chat/completions/chatcmpl-1",
    "/v1/responses/resp_1/cancel",
    "/v1/messages",
    "/v1/messages/batches/msgbatch_1/results",
    "/v1/models/m%2Fn",
    "/v1/files",
    "/v1/organization/admin_api_keys",
    "/v2/anything/at/all?key=x",
    "/v1/chat/../files",
    "/v1//chat/completions",
    "/%2e%2e/",
)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")


@pytest.mark.parametrize("make", [openai, anthropic])
@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"enabled": False}, "provider_disabled"),
        ({"key_env": "BRIDGEPOOL_TEST_NOT_SET"}, "provider_misconfigured"),
    ],
)
async def test_a_provider_that_cannot_be_used_says_so_on_every_path(
    nursery: trio.Nursery, make: Any, fields: dict[str, Any], code: str
) -> None:
    """Not only on the paths that would be open."""
    off = make("http://127.0.0.1:9/v1", "off", **fields)
    async with open_rig(off, nursery=nursery) as rig:
        asked = 0
        for method in METHODS:
            for path in PATHS:
                async with rig.client.request(method.encode(), b"/off" + path.encode()) as response:
                    assert response.status == 503, (method, path)
                asked += 1
        records = await rig.wait_records(asked)
        assert {record.code for record in records} == {code}


@pytest.mark.parametrize(
    "body",
    [
        b"content-length: 1000000\r\n\r\n",
        b"content-length: 1000000\r\nexpect: 100-continue\r\n\r\n",
        b"content-length: 2000\r\n\r\n" + b"x" * 2000,
        b"transfer-encoding: chunked\r\n\r\n7d0\r\n" + b"x" * 2000 + b"\r\n0\r\n\r\n",
    ],
    ids=["not sent", "asked for", "sent", "chunked"],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses/r/cancel", "/v1/files"])
async def test_a_body_above_the_limit_does_not_hide_why_a_request_is_refused(
    nursery: trio.Nursery, body: bytes, path: str
) -> None:
    north = await start_upstream(nursery)
    providers = (openai(north, "off", enabled=False), openai(north))
    limits = HttpLimits(max_body_bytes=1000)
    expected = {"off": b"provider_disabled", "none": b"unknown_provider"}
    expected["ai"] = b"unknown_route" if path == "/v1/files" else b"body_too_large"
    async with open_rig(*providers, nursery=nursery, limits=limits) as rig:
        for name, code in expected.items():
            async with connect(rig.address) as client:
                head = b"POST /%b%b HTTP/1.1\r\nhost: 127.0.0.1\r\n"
                await client.send(head % (name.encode(), path.encode()) + body)
                answer = await client.read_to_end()
            assert answer.count(b"HTTP/1.1") == 1
            assert b'"code":"%b"' % code in answer, name
    assert not north.received


async def test_the_first_of_several_keys_is_used(nursery: trio.Nursery) -> None:
    north = await start_upstream(nursery)
    several = ["sk-first", "sk-second", "sk-last"]
    async with open_rig(openai(north, keys=several), nursery=nursery) as rig:
        assert (await rig.ask(CHAT, {})).status == 200
        await rig.replace(openai(north, keys=several[::-1]))
        assert (await rig.ask(CHAT, {})).status == 200
    keys = [seen.header(b"authorization") for seen in north.received]
    assert keys == [b"Bearer sk-first", b"Bearer sk-last"]


async def test_errors_have_the_shape_of_the_providers_sdk(nursery: trio.Nursery) -> None:
    north = await start_upstream(nursery)
    off = (openai(north, "a", enabled=False), anthropic(north, "b", enabled=False))
    async with open_rig(*off, nursery=nursery) as rig:
        of_openai = (await rig.ask("/a/v1/chat/completions", {})).json
        assert set(of_openai["error"]) == {"message", "type", "param", "code"}
        of_anthropic = (await rig.ask("/b/v1/messages", {})).json
        assert of_anthropic["type"] == "error"
        assert of_anthropic["error"]["type"] == "api_error"
        guessed = (await rig.ask("/none/v1/messages", {})).json
        assert guessed["error"]["type"] == "not_found_error"


async def test_a_wrong_client_key_learns_nothing(nursery: trio.Nursery) -> None:
    north = await start_upstream(nursery)
    key = new_client_key()
    clients = (Client(id="ada", key_hashes=(hash_key(key),)),)
    async with open_rig(openai(north), nursery=nursery, clients=clients) as rig:
        for target in (CHAT, "/none/v1/chat/completions", "/ai/v1/files"):
            wrong = ((b"authorization", b"Bearer wrong"),)
            for headers, code in (((), "no_api_key"), (wrong, "invalid_api_key")):
                answer = await rig.ask(target, {}, headers)
                assert (answer.status, answer.code) == (401, code)
        assert (await rig.ask("/healthz")).status == 200
        good = ((b"authorization", b"Bearer " + key.reveal().encode()),)
        assert (await rig.ask(CHAT, {}, good)).status == 200
    assert rig.records[-1].client == "ada"
    assert rig.records[0].client == "-"
    assert len(north.received) == 1


async def test_the_set_of_clients_changes_while_it_runs(nursery: trio.Nursery) -> None:
    north = await start_upstream(nursery)
    old, new = new_client_key(), new_client_key()

    def bearer(key: object) -> tuple[tuple[bytes, bytes], ...]:
        assert key in (old, new)
        secret = old if key is old else new
        return ((b"authorization", b"Bearer " + secret.reveal().encode()),)

    ada = Client(id="ada", key_hashes=(hash_key(old),))
    async with open_rig(openai(north), nursery=nursery, clients=(ada,)) as rig:
        assert (await rig.ask(CHAT, {}, bearer(old))).status == 200
        assert (await rig.ask(CHAT, {}, bearer(new))).status == 401
        rig.set_clients(Client(id="ada", key_hashes=(hash_key(new),)))
        assert (await rig.ask(CHAT, {}, bearer(old))).status == 401
        assert (await rig.ask(CHAT, {}, bearer(new))).status == 200


async def test_an_upstream_that_refuses_the_connection_is_a_502(nursery: trio.Nursery) -> None:
    async with open_rig(openai("http://127.0.0.1:9/v1"), nursery=nursery) as rig:
        answer = await rig.ask(CHAT, {})
        assert (answer.status, answer.code) == (502, "upstream_unreachable")
        assert b"127.0.0.1" not in answer.body
        assert b"x-should-retry" not in answer.headers


@pytest.mark.parametrize(
    "garbage",
    [
        b"hello\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 100_000,
    ],
)
async def test_garbage_from_an_upstream_is_a_502(nursery: trio.Nursery, garbage: bytes) -> None:
    url = await raw_upstream(nursery, says(garbage))
    async with open_rig(openai(url), nursery=nursery) as rig:
        answer = await rig.ask(CHAT, {})
        assert answer.status == 502
        assert answer.code in ("upstream_bad_answer", "upstream_cut")


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\ncontent-le"])
async def test_an_upstream_that_closes_before_its_answer_is_a_502(
    nursery: trio.Nursery, start: bytes
) -> None:
    url = await raw_upstream(nursery, says(start))
    async with open_rig(openai(url), nursery=nursery) as rig:
        answer = await rig.ask(CHAT, {})
        assert (answer.status, answer.code) == (502, "upstream_cut")


async def test_an_upstream_that_speaks_before_it_is_asked_is_not_believed(
    nursery: trio.Nursery,
) -> None:
    async def eager(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
        with contextlib.suppress(trio.BrokenResourceError):  # the gateway has hung up on it
            await read_head(stream)
            await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood")
            await stream.receive_some()

    url = await raw_upstream(nursery, eager)
    async with open_rig(openai(url), nursery=nursery) as rig:
        first, second = await rig.ask(CHAT, {}), await rig.ask(CHAT, {})
        assert first.body == second.body, "an answer was given to the wrong request"


async def test_an_upstream_that_never_answers_is_a_504(nursery: trio.Nursery) -> None:
    url = await raw_upstream(nursery, says(b"", then=silence))
    settings = attrs.evolve(OPEN, upstream_limits=UpstreamLimits(head_timeout=0.05))
    async with open_rig(openai(url), nursery=nursery, settings=settings) as rig:
        answer = await rig.ask(CHAT, {})
        assert (answer.status, answer.code) == (504, "upstream_timeout")


async def test_when_all_connections_are_in_use_the_next_request_is_told_to_come_back(
    nursery: trio.Nursery,
) -> None:
    url = await raw_upstream(nursery, says(b"", then=silence))
    limits = UpstreamLimits(max_connections=1, max_waiting=0)
    settings = attrs.evolve(OPEN, upstream_limits=limits)
    async with open_rig(openai(url), nursery=nursery, settings=settings) as rig:
        async with connect(rig.address) as first:
            await first.send(post(CHAT))
            await rig.wait_requests(1)
            answer = await rig.ask(CHAT, {})
        assert (answer.status, answer.code) == (503, "upstream_busy")
        assert answer.headers[b"retry-after"] == b"1"


async def test_a_body_beyond_the_limit_is_a_413_of_the_right_shape(nursery: trio.Nursery) -> None:
    north = await start_upstream(nursery)
    async with open_rig(
        anthropic(north), nursery=nursery, limits=HttpLimits(max_body_bytes=1000)
    ) as rig:
        small = await rig.ask("/claude/v1/messages", {"model": "m"})
        assert small.status == 200
        async with connect(rig.address) as client:
            await client.send(
                b"POST /claude/v1/messages HTTP/1.1\r\nhost: 127.0.0.1\r\n"
                b"transfer-encoding: chunked\r\n\r\n" + b"400\r\n" + b"x" * 1024 + b"\r\n"
            )
            answer = await client.read_to_end()
        assert answer.startswith(b"HTTP/1.1 413 ")
        document = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert document["error"]["type"] == "request_too_large"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_redirects_are_not_passed_on_since_sdks_would_take_their_key_along(
    nursery: trio.Nursery, status: int
) -> None:
    head = b"HTTP/1.1 %d Moved\r\nlocation: http://elsewhere/\r\ncontent-length: 0\r\n\r\n"
    url = await raw_upstream(nursery, says(head % status))
    async with open_rig(openai(url), nursery=nursery) as rig:
        answer = await rig.ask(CHAT, {})
        assert (answer.status, answer.code) == (502, "upstream_redirects")
        assert b"location" not in answer.headers


async def test_an_upstream_that_refuses_the_central_key_is_the_operators_trouble(
    nursery: trio.Nursery,
) -> None:
    body = b'{"error": {"message": "Incorrect API key provided: sk-cent...ral"}}'
    head = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: %d\r\n\r\n" % len(body)
    url = await raw_upstream(nursery, says(head + body))
    async with open_rig(openai(url), nursery=nursery) as rig:
        answer = await rig.ask(CHAT, {})
        assert (answer.status, answer.code) == (502, "provider_key_refused")
        assert b"sk-cent" not in answer.body


async def test_a_name_that_leads_inside_the_operators_network_is_refused_when_connecting(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    north = await start_upstream(nursery)
    port = int(north.address.partition(":")[2])

    class Rebinding(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *_: Any, **__: Any) -> Any:
            await trio.lowlevel.checkpoint()
            return [(2, 1, 6, "", ("127.0.0.1", port))]

        async def getnameinfo(self, *_: Any, **__: Any) -> Any:
            raise NotImplementedError

    trio.socket.set_custom_hostname_resolver(Rebinding())
    public = attrs.evolve(
        openai("http://192.0.2.1/v1"), base_url=f"http://api.example:{port}/v1", allow_private=False
    )
    async with open_rig(public, nursery=nursery) as rig:
        answer = await rig.ask(CHAT, {})
        assert (answer.status, answer.code) == (502, "upstream_unreachable")
        await rig.replace(attrs.evolve(public, allow_private=True))
        assert (await rig.ask(CHAT, {})).status == 200
    assert len(north.received) == 1
