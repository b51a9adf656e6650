"""Which fields, trailers and parameters pass, in both directions, over real sockets."""

from __future__ import annotations

import base64

import pytest
import trio

from bridgepool.gateway import GatewaySettings
from bridgepool.gateway.demo._upstream import SimulatedUpstream
from bridgepool.gateway.providers import Client, ClientRules, hash_key, new_client_key
from bridgepool.gateway.providers._access_keys import (
    ADMIN_KEYS,
    CLIENT_KEYS,
    GATEWAY_KEYS,
    KeyFormat,
)
from tests.gateway.proxy.raw import connect, raw_upstream, read_head, says
from tests.gateway.proxy.rig import Rig, open_rig, openai, start_upstream

CHAT = "/ai/v1/chat/completions"
OWN = "/own/v1/chat/completions"
ADA_KEY = new_client_key()
ADA = Client(id="ada", key_hashes=(hash_key(ADA_KEY),))
OPEN = GatewaySettings(allow_anonymous=True, min_reload_interval=0.001)


def names(text: str) -> list[str]:
    return text.split()


OVERRIDES = names(
    "X-HTTP-Method-Override X-HTTP-Method X-Method-Override X-Original-URL X-Rewrite-URL "
    "X-Original-URI X-Original-Method X-Original-Host X-Host X-Script-Name X-Envoy-Original-Path "
    "X-Accel-Redirect X-Accel-Mapping X-Sendfile-Type X-Middleware-Subrequest"
)
ACCOUNTS = names(
    "X-Goog-User-Project Ocp-Apim-Subscription-Key OpenAI-Organization OpenAI-Project "
    "X-Goog-Api-Key Api-Key"
)
CLAIMS = names(
    "Forwarded X-Forwarded-For X-Forwarded-Host X-Forwarded-Proto X-Forwarded-Port X-Forwarded-Uri "
    "X-Forwarded-Prefix X-Forwarded-Client-Cert X-Real-IP X-Client-IP True-Client-IP "
    "CF-Connecting-IP Fastly-Client-IP X-Cluster-Client-IP X-Originating-IP X-Remote-Addr "
    "X-Envoy-External-Address Client-IP X-Azure-ClientIP"
)
UNDERSCORES = ["Content_Length", "X_Forwarded_For", "Transfer_Encoding", "x_api_key", "_"]


async def seen_by(
    upstream: SimulatedUpstream, rig: Rig, fields: list[str], target: str = CHAT, *, chunked: bool
) -> set[str]:
    """Send these fields in Ada's head, or as trailers; return the names that the upstream saw."""
    lines = "".join(f"{name}: marked\r\n" for name in fields).encode()
    head = b"POST %b HTTP/1.1\r\nhost: 127.0.0.1\r\n" % target.encode()
    head += b"x-bridgepool-key: %b\r\n" % ADA_KEY.reveal().encode()
    head += b"authorization: Bearer sk-of-ada\r\n"
    async with connect(rig.address) as client:
        if chunked:
            chunks = b"2\r\n{}\r\n0\r\n" + lines + b"\r\n"
            await client.send(head + b"transfer-encoding: chunked\r\n\r\n" + chunks)
        else:
            await client.send(head + lines + b"content-length: 2\r\n\r\n{}")
        answer = await client.read_until(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 "), answer
    return {name.decode() for name, value in upstream.received[-1].headers if value == b"marked"}


@pytest.mark.parametrize("name", [*OVERRIDES, *ACCOUNTS, *CLAIMS, *UNDERSCORES])
async def test_what_overrides_a_method_path_account_or_address_does_not_reach_a_central_key(
    nursery: trio.Nursery, name: str
) -> None:
    north = await start_upstream(nursery)
    async with open_rig(openai(north), clients=(ADA,), nursery=nursery) as rig:
        fields = [name, name.upper(), "X-Kept"]
        assert await seen_by(north, rig, fields, chunked=False) == {"x-kept"}


async def test_trailers_obey_the_rules_of_heads(nursery: trio.Nursery) -> None:
    """Those about the operator's limits passed to a client with limits of its own."""
    seen = b""

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal seen
        seen = await read_head(stream)
        while not seen.endswith(b"\r\n\r\n") or b"\r\n0\r\n" not in seen:
            seen += await stream.receive_some()
        await stream.send_all(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-sum: down\r\n"
            b"x-accel-redirect: /marked\r\nset-cookie: marked\r\nopenai-organization: marked\r\n"
            b"x_sum: marked\r\nrefresh: marked\r\nx-ratelimit-remaining-tokens: marked\r\n\r\n"
        )

    url = await raw_upstream(nursery, serve)
    key, own = CLIENT_KEYS.new().reveal(), CLIENT_KEYS.new()
    limited = Client(
        id="ada", key_hashes=(hash_key(own),), rules=ClientRules(requests_per_minute=5)
    )
    lines = "".join(f"{name}: marked\r\n" for name in [*OVERRIDES, *ACCOUNTS, *CLAIMS, "a_b"])
    fixed = openai(url, headers={"X-Fixed": "ours"})
    async with (
        open_rig(fixed, clients=(limited,), nursery=nursery) as rig,
        connect(rig.address) as client,
    ):
        await client.send(
            b"POST /ai/v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nte: trailers\r\n"
            b"x-bridgepool-key: "
            + own.reveal().encode()
            + b"\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nx-sum: up\r\n"
            + lines.encode()
            + b"x-fixed: marked\r\nx-api-key: marked\r\nx-other: a "
            + key.encode()
            + b"\r\n\r\n"
        )
        answer = await client.read_until(b"0\r\nx-sum: down\r\n\r\n")
    assert b"x-sum: up\r\n" in seen
    assert b"marked" not in seen
    assert key.encode() not in seen
    assert b"marked" not in answer


async def test_with_the_clients_own_key_the_account_is_the_clients_choice(
    nursery: trio.Nursery,
) -> None:
    north = await start_upstream(nursery)
    own = openai(north, "own", client_keys=True)
    async with open_rig(own, clients=(ADA,), nursery=nursery) as rig:
        fields = [*ACCOUNTS, *CLAIMS, *UNDERSCORES]
        expected = {name.lower() for name in ACCOUNTS}
        assert await seen_by(north, rig, fields, OWN, chunked=False) == expected


@pytest.mark.parametrize("kind", [CLIENT_KEYS, GATEWAY_KEYS, ADMIN_KEYS], ids=lambda k: k.prefix)
@pytest.mark.parametrize("provider", ["ai", "own"])
async def test_nothing_of_the_form_of_a_key_of_ours_is_passed_on(
    nursery: trio.Nursery, kind: KeyFormat, provider: str
) -> None:
    north = await start_upstream(nursery)
    mine, stray = new_client_key(), kind.new()
    token = stray.reveal().encode()
    client = Client(id="ada", key_hashes=(hash_key(mine),))
    providers = (openai(north), openai(north, "own", client_keys=True))
    settings = GatewaySettings(min_reload_interval=0.001)
    basic = base64.b64encode(b"user:" + token)
    headers = (
        (b"x-bridgepool-key", mine.reveal().encode()),
        (b"authorization", b"Basic " + basic),
        (b"x-litellm-key", token),
        (b"x-basic", b"basic  " + basic),
        (b"x-api-key", b"Bearer " + token),
        (b"user-agent", b"tool/" + token + b" (x)"),
        (b"referer", b"https://gateway/?key=" + token),
        (b"x-kept", b"bp_is_no_key"),
    )
    async with open_rig(*providers, nursery=nursery, clients=(client,), settings=settings) as rig:
        query = "?a=1&token=" + token.decode() + "&token=%62p" + token.decode()[2:] + "&b"
        target = f"/{provider}/v1/chat/completions{query}"
        assert (await rig.ask(target, {}, headers)).status == 200
        encoded = "".join(f"%{byte:02x}" for byte in token)
        for tail in (token.decode(), "x" + token.decode() + "/cancel", encoded):
            answer = await rig.ask(f"/{provider}/v1/responses/{tail}", None, headers)
            assert (answer.status, answer.code) == (404, "unknown_route")
    [seen] = north.received
    raw = repr(seen)
    assert token.decode() not in raw
    assert basic.decode() not in raw
    assert seen.header(b"x-kept") == b"bp_is_no_key"
    assert token.decode()[2:] not in raw


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("?a=%2F&b", "?a=%2F&b"),
        ("?_method=DELETE", ""),
        ("?_METHOD=DELETE&a", "?a"),
        ("?a;_method=DELETE;b&c", "?a;b&c"),
        ("?%5fmethod=DELETE", ""),
        ("?%255fmethod=DELETE", ""),
        ("?.method=DELETE", ""),
        ("?+_method=DELETE", ""),
        ("?_method[]=DELETE", ""),
        ("?key=AIza", ""),
        ("?a=key&KEY=AIza&key", "?a=key"),
        ("?access_token=ya29", ""),
        ("?access-token=x&api-version=1", "?api-version=1"),
        ("?subscription-key=1&api_key=2&api-key=3&apikey=4", ""),
        ("?monkey=1&keys=2&after=key", "?monkey=1&keys=2&after=key"),
        ("?", ""),
    ],
)
async def test_parameters_that_override_a_method_or_a_key_do_not_reach_a_central_key(
    nursery: trio.Nursery, sent: str, kept: str
) -> None:
    north = await start_upstream(nursery)
    own = openai(north, "own", client_keys=True)
    async with open_rig(openai(north), own, nursery=nursery) as rig:
        await rig.ask(CHAT + sent, {})
        await rig.ask(OWN + sent, {})
    central, clients = north.received
    assert central.target == b"/v1/chat/completions" + kept.encode()
    assert clients.target == b"/v1/chat/completions" + sent.rstrip("?").encode()


ANSWERS_LOSE = names(
    "X-Accel-Redirect X-Accel-Buffering X-Accel-Anything X-Sendfile X-Reproxy-URL "
    "X-Lighttpd-Send-File Alt-Svc Strict-Transport-Security Clear-Site-Data Service-Worker-Allowed "
    "Set-Cookie Set-Cookie2 Refresh OpenAI-Organization OpenAI-Project Anthropic-Organization-Id "
    "NEL Report-To Reporting-Endpoints Public-Key-Pins Expect-CT Speculation-Rules a_b "
    "WWW-Authenticate"
)


@pytest.mark.parametrize("body", [b"content-length: 2\r\n\r\n{}", b"content-length: 9\r\n\r\n{}"])
async def test_answers_lose_what_speaks_to_a_proxy_a_browser_or_of_the_operators_account(
    nursery: trio.Nursery, body: bytes
) -> None:
    """In answers that are complete with their head, and in those that are not."""
    lines = "".join(f"{name}: marked\r\n" for name in ANSWERS_LOSE).encode()
    answer = b"HTTP/1.1 200 OK\r\nx-kept: marked\r\n" + lines + body
    url = await raw_upstream(nursery, says(answer))
    providers = (openai(url), openai(url, "own", client_keys=True))
    async with open_rig(*providers, nursery=nursery) as rig:
        found = {}
        for target in (CHAT, OWN):
            async with rig.client.request(b"POST", target.encode(), (), b"{}") as response:
                found[target] = {name for name, value in response.headers if value == b"marked"}
    assert found[CHAT] == {b"x-kept"}
    accounts = {b"openai-organization", b"openai-project", b"anthropic-organization-id"}
    assert found[OWN] == {b"x-kept", b"www-authenticate"} | accounts


async def test_content_length_is_written_anew_in_both_directions(nursery: trio.Nursery) -> None:
    asked = b""

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal asked
        asked = await read_head(stream)
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 00012\r\n\r\n{}")

    url = await raw_upstream(nursery, serve)
    async with open_rig(openai(url), nursery=nursery) as rig:
        for method, body in ((b"POST", b"content-length: 0002\r\n\r\n{}"), (b"HEAD", b"\r\n")):
            target = CHAT if method == b"POST" else "/ai/v1/models"
            async with connect(rig.address) as client:
                line = b"%b %b HTTP/1.1\r\nhost: 127.0.0.1\r\n" % (method, target.encode())
                await client.send(line + body)
                answer = await client.read_until(b"\r\n\r\n")
            assert b"content-length: 12\r\n" in answer
            assert b"content-length: 2\r\n" in asked or method == b"HEAD"
            assert b": 000" not in answer + asked  # which an id or a port may have
