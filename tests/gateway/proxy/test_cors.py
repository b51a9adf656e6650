"""Web pages of other origins: preflights, what they may read, and who is refused."""

from __future__ import annotations

import attrs
import pytest
import trio

from bridgepool.gateway import GatewaySettings, Outcome
from bridgepool.gateway.providers import Client, hash_key, new_client_key
from bridgepool.http import Headers
from tests.gateway.proxy.raw import connect, post, raw_upstream, says
from tests.gateway.proxy.rig import open_rig, openai, start_upstream

ORIGINS = ("https://Chat.example", "app://obsidian.md", "null", "http://10.0.0.7:3000")
CHAT = "/ai/v1/chat/completions"
OPEN = GatewaySettings(allow_anonymous=True, cors_origins=ORIGINS)


def page(origin: str, *more: tuple[bytes, bytes]) -> Headers:
    """The headers of a page's request, as a browser on this machine sends it."""
    fields = ((b"host", b"127.0.0.1"), (b"origin", origin.encode()))
    return (*fields, (b"sec-fetch-site", b"cross-site"), *more)


PREFLIGHT = (
    (b"access-control-request-method", b"POST"),
    (b"access-control-request-headers", b"authorization,content-type"),
    (b"access-control-request-private-network", b"true"),
)


@pytest.mark.parametrize(
    "origin", ["https://chat.example", "app://obsidian.md", "null", "http://10.0.0.7:3000"]
)
async def test_a_page_of_an_allowed_origin_may_call_and_read_everything(
    nursery: trio.Nursery, origin: str
) -> None:
    key = new_client_key()
    clients = (Client(id="ada", key_hashes=(hash_key(key),)),)
    north = await start_upstream(nursery)
    settings = attrs.evolve(OPEN, allow_anonymous=False)
    providers = (openai(north), openai(north, "off", enabled=False))
    async with open_rig(*providers, nursery=nursery, clients=clients, settings=settings) as rig:
        asked = await rig.ask(CHAT, headers=page(origin, *PREFLIGHT), method="OPTIONS")
        assert asked.status == 204, "before authentication"
        assert asked.headers[b"access-control-allow-origin"] == origin.encode()
        assert asked.headers[b"access-control-allow-headers"] == b"authorization,content-type"
        assert b"POST" in asked.headers[b"access-control-allow-methods"]
        assert asked.headers[b"access-control-allow-private-network"] == b"true"
        good = (b"authorization", b"Bearer " + key.reveal().encode())
        for target, fields, status in (
            (CHAT, (good,), 200),
            ("/off/v1/chat/completions", (good,), 503),
            ("/none/v1/chat/completions", (good,), 404),
            (CHAT, (), 401),
        ):
            answer = await rig.ask(target, {}, page(origin, *fields))
            assert answer.status == status
            assert answer.headers[b"access-control-allow-origin"] == origin.encode()
            assert answer.headers[b"access-control-expose-headers"] == b"*"
            assert answer.headers[b"vary"] == b"origin"
        stream = await rig.ask(CHAT, {"stream": True}, page(origin, good))
        assert stream.headers[b"access-control-allow-origin"] == origin.encode()
    assert rig.records[0].outcome is Outcome.COMPLETE


async def test_other_origins_are_told_nothing_and_an_open_gateway_says_why(
    nursery: trio.Nursery,
) -> None:
    north = await start_upstream(nursery)
    foreign = page("https://evil.example")
    async with open_rig(openai(north), nursery=nursery, settings=OPEN) as rig:
        assert (await rig.ask(CHAT, {}, page("https://chat.example"))).status == 200
        for headers, method, code in (
            (foreign, "POST", "not_from_here"),
            ((*foreign, *PREFLIGHT), "OPTIONS", "origin_not_allowed"),
        ):
            answer = await rig.ask(CHAT, {}, headers, method=method)
            assert (answer.status, answer.code) == (403, code)
            assert "--cors-origin" in answer.json["error"]["message"]
            assert not any(name.startswith(b"access-control-") for name in answer.headers)
        rebound = ((b"host", b"rebound.example"), (b"origin", b"https://chat.example"))
        assert (await rig.ask(CHAT, {}, rebound)).status == 403, "a name of somebody else"
    assert len(north.received) == 1


@pytest.mark.parametrize("origin", ["https://evil.example", "http://localhost:3000"])
async def test_a_preflight_is_refused_for_its_origin_and_not_for_want_of_a_key(
    nursery: trio.Nursery, origin: str
) -> None:
    """It got 401 `no_api_key`, though browsers never send a key with one."""
    north = await start_upstream(nursery)
    clients = (Client(id="ada", key_hashes=(hash_key(new_client_key()),)),)
    async with open_rig(openai(north), nursery=nursery, clients=clients) as rig:
        answer = await rig.ask(CHAT, headers=page(origin, *PREFLIGHT), method="OPTIONS")
        assert (answer.status, answer.code) == (403, "origin_not_allowed")
        assert "--cors-origin" in answer.json["error"]["message"]
        assert not any(name.startswith(b"access-control-") for name in answer.headers)
        assert (await rig.ask(CHAT, headers=page(origin), method="OPTIONS")).code == "no_api_key"


async def test_a_page_may_read_why_its_request_cannot_be_read(nursery: trio.Nursery) -> None:
    north = await start_upstream(nursery)
    async with open_rig(openai(north), nursery=nursery, settings=OPEN) as rig:
        for origin, fault, status in (
            (b"https://chat.example", b"x-long: " + b"x" * 70_000 + b"\r\n", b"431"),
            (b"https://chat.example", b"content-length: 1\r\n", b"400"),
            (b"https://evil.example", b"content-length: 1\r\n", b"400"),
        ):
            async with connect(rig.address) as client:
                await client.send(post(CHAT, extra=b"origin: " + origin + b"\r\n" + fault))
                head = (await client.read_to_end()).partition(b"\r\n\r\n")[0]
            assert head.startswith(b"HTTP/1.1 " + status)
            allowed = b"access-control-allow-origin: " + origin in head
            assert allowed == (origin != b"https://evil.example")


async def test_an_upstream_does_not_decide_which_pages_may_read(nursery: trio.Nursery) -> None:
    answer = b"HTTP/1.1 200 OK\r\naccess-control-allow-origin: *\r\ncontent-length: 0\r\n\r\n"
    url = await raw_upstream(nursery, says(answer))
    async with open_rig(openai(url), nursery=nursery, settings=OPEN) as rig:
        assert b"access-control-allow-origin" not in (await rig.ask(CHAT, {})).headers
        headers = (await rig.ask(CHAT, {}, page("null"))).headers
        assert headers[b"access-control-allow-origin"] == b"null"


@pytest.mark.parametrize(
    "text", ["*", "https://*", "https://a.example/", "chat.example", "", "a b://c"]
)
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not an origin"):
        GatewaySettings(cors_origins=(text,))
