"""No answer of an upstream makes a client call another address with its gateway key."""

from __future__ import annotations

import gzip
import json
import time
from contextlib import suppress

import pytest
import trio

from bridgepool.gateway.providers import Client, hash_key, new_client_key
from bridgepool.gateway.providers._anthropic import ANTHROPIC
from bridgepool.gateway.proxy._answer_urls import rewrite
from bridgepool.http import Headers
from tests.gateway.proxy.raw import connect, post, raw_upstream, read_head, says
from tests.gateway.proxy.rig import anthropic, open_rig, openai

BATCHES = "/claude/v1/messages/batches"
UPSTREAMS = "https://api.anthropic.com/v1/messages/batches/msgbatch_1/results"


def batch(url: object = UPSTREAMS) -> dict[str, object]:
    return {"id": "msgbatch_1", "type": "message_batch", "results_url": url, "n": 12345678901234567}


def answer(body: bytes, *fields: bytes, status: bytes = b"200 OK") -> bytes:
    lines = b"".join(field + b"\r\n" for field in fields)
    head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n"
    return head % (status, lines, len(body)) + body


@pytest.mark.parametrize(
    ("method", "path", "document"),
    [
        ("GET", "/msgbatch_1", batch()),
        ("POST", "/msgbatch_1/cancel", batch()),
        ("POST", "", batch()),
        ("GET", "", {"data": [batch(), {"nested": [batch()]}, batch(None)], "has_more": False}),
        ("GET", "?limit=20", {"data": [batch()]}),
    ],
)
async def test_the_results_url_of_a_batch_is_an_address_of_the_gateway(
    nursery: trio.Nursery, method: str, path: str, document: dict[str, object]
) -> None:
    asked = b""

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal asked
        asked = await read_head(stream)
        await stream.send_all(answer(json.dumps(document).encode(), b"etag: x"))

    url = await raw_upstream(nursery, serve)
    async with open_rig(anthropic(url.removesuffix("/v1")), nursery=nursery) as rig:
        gzipped = ((b"accept-encoding", b"gzip, br"), (b"range", b"bytes=0-5"))
        body: object = None if method == "GET" else {}
        found = await rig.ask(BATCHES + path, body, gzipped, method)
        assert found.status == 200
        own = f"http://{rig.address}{BATCHES}/msgbatch_1/results"
    expected = json.loads(json.dumps(document).replace(UPSTREAMS, own))
    assert found.json == expected
    assert b"api.anthropic.com" not in found.body
    assert b"etag" not in found.headers
    assert b"accept-encoding: identity\r\n" in asked
    assert b"gzip" not in asked
    assert b"range" not in asked


@pytest.mark.parametrize(
    ("headers", "address"),
    [
        ((), "http://{}"),
        (((b"host", b"gw.example"),), "http://gw.example"),
        (((b"host", b"[::1]:80"),), "http://[::1]:80"),
        (((b"x-forwarded-proto", b"https"),), "https://{}"),
        (((b"x-forwarded-proto", b"https, http"),), "https://{}"),
        (((b"x-forwarded-proto", b"ftp"),), "http://{}"),
        (
            ((b"x-forwarded-proto", b"https"), (b"x-forwarded-host", b"gw.example, inner")),
            "https://gw.example",
        ),
        (((b"x-forwarded-host", b'gw"/x'),), "http://{}"),
        (((b"x-forwarded-prefix", b"/llm/"),), "http://{}/llm"),
        (((b"x-forwarded-prefix", b"//evil"),), "http://{}"),
    ],
)
async def test_the_address_is_the_one_by_which_the_client_reached_the_gateway(
    nursery: trio.Nursery, headers: Headers, address: str
) -> None:
    url = await raw_upstream(nursery, says(answer(json.dumps(batch()).encode())))
    key = new_client_key()
    ada = Client(id="ada", key_hashes=(hash_key(key),))
    async with open_rig(anthropic(url), nursery=nursery, clients=(ada,)) as rig:
        sent = (*headers, (b"x-api-key", key.reveal().encode()))
        found = await rig.ask(BATCHES + "/b", headers=sent)
        own = address.format(rig.address) + BATCHES + "/msgbatch_1/results"
    assert found.json["results_url"] == own


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/v1/messages/batches/b/other",
        "https://bucket.example/signed?x=/v1/messages/batches/b/results",
        "https://evil.example/v1/messages/batches/../files/results",
        "https://evil.example/v1/messages/batches/b/results/more",
        "//evil.example/x",
        "javascript:alert(1)",
        "https://[evil/v1/messages/batches/b/results",
        "https://evil.example/v1/messages/batches/é/results",
        "",
        7,
        ["https://evil.example/v1/messages/batches/b/results"],
        {"href": "https://evil.example/"},
    ],
)
async def test_an_address_that_leads_to_no_such_route_becomes_null(
    nursery: trio.Nursery, url: object
) -> None:
    raw = await raw_upstream(nursery, says(answer(json.dumps(batch(url)).encode())))
    async with open_rig(anthropic(raw), nursery=nursery) as rig:
        found = await rig.ask(BATCHES + "/b")
    assert found.json == batch(None)


async def test_the_host_of_the_upstreams_address_does_not_matter(nursery: trio.Nursery) -> None:
    """A relay may pass on the address of the API behind it."""
    relayed = "http://relay.internal:8080/anthropic/v1/messages/batches/b/results?sig=1#f"
    raw = await raw_upstream(nursery, says(answer(json.dumps(batch(relayed)).encode())))
    async with open_rig(anthropic(raw), nursery=nursery) as rig:
        found = await rig.ask(BATCHES + "/b")
        assert found.json["results_url"] == f"http://{rig.address}{BATCHES}/b/results"


HIDDEN = b'{"results_url": "https://evil.example/", "results_url": null}'
ESCAPED = b'{"results\\u005furl": "https://evil.example/"}'


@pytest.mark.parametrize("body", [HIDDEN, ESCAPED])
async def test_no_spelling_hides_an_address(nursery: trio.Nursery, body: bytes) -> None:
    raw = await raw_upstream(nursery, says(answer(body)))
    async with open_rig(anthropic(raw), nursery=nursery) as rig:
        assert (await rig.ask(BATCHES + "/b")).body == b'{"results_url":null}'


@pytest.mark.parametrize(
    "unreadable",
    [
        answer(gzip.compress(json.dumps(batch()).encode()), b"content-encoding: gzip"),
        answer(b"\xef\xbb\xbf" + json.dumps(batch()).encode()),
        answer(b'{"results_url": "https://evil.example/",}'),
        answer(b"[" * 100_000 + b"]" * 100_000),
        answer(b'{"a": "' + b"x" * (2 << 20) + b'"}'),
        answer(b'{"data": [' + b",".join([b"{}"] * 100_000) + b"]}"),
        answer(b"\xff\xfe{\x00}\x00"),
        answer(json.dumps(batch()).encode()[5:], status=b"206 Partial Content"),
    ],
    ids=[
        "compressed",
        "byte order mark",
        "lenient",
        "deep",
        "too long",
        "many values",
        "utf-16",
        "a part",
    ],
)
async def test_an_answer_that_cannot_be_read_is_refused(
    nursery: trio.Nursery, unreadable: bytes
) -> None:
    raw = await raw_upstream(nursery, says(unreadable))
    async with open_rig(anthropic(raw), nursery=nursery) as rig:
        found = await rig.ask(BATCHES + "/b")
        assert (found.status, found.code) == (502, "upstream_bad_answer")


@pytest.mark.parametrize(
    "document",
    [
        json.dumps({"data": [batch("/" * 1000)] * 1900}),
        json.dumps({"results_url": "/v1/messages/batches" * 100_000}),
        json.dumps({"data": [1] * 99_000}),
        "[[],[[" * 340_000,
    ],
)
def test_no_answer_that_is_read_whole_holds_the_program_for_long(document: str) -> None:
    """One of 2 MB held it for a second, and all that it served."""
    begun = time.thread_time()
    with suppress(ValueError):
        rewrite(document.encode(), ANTHROPIC.url_fields, "http://gateway/claude")
    assert time.thread_time() - begun < 0.5


async def test_results_and_other_routes_are_streamed_untouched(nursery: trio.Nursery) -> None:
    """Each piece comes before the next is sent, whatever its text looks like."""
    text = b'{"results_url":  "https://elsewhere.example/v1/messages/batches/b/results"}\n'

    async def serve(stream: trio.SocketStream) -> None:
        await read_head(stream)
        await stream.send_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
            b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(text), text)
        )
        await seen.wait()
        await stream.send_all(b"0\r\n\r\n")

    raw = await raw_upstream(nursery, serve)
    paths = (BATCHES + "/b/results", "/claude/v1/messages", "/ai/v1/chat/completions")
    async with open_rig(anthropic(raw), openai(raw), nursery=nursery) as rig:
        for path in paths:
            seen = trio.Event()
            async with connect(rig.address) as client:
                head = b"GET %b HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n" % path.encode()
                await client.send(head if path.endswith("results") else post(path))
                await client.read_until(text)
                seen.set()
                await client.read_until(b"0\r\n\r\n")


async def test_errors_and_heads_of_a_batch_pass(nursery: trio.Nursery) -> None:
    body = b'{"type":"error",  "error":{"type":"not_found_error"}}'
    raw = await raw_upstream(nursery, says(answer(body, status=b"404 Not Found")))
    async with open_rig(anthropic(raw), nursery=nursery) as rig:
        found = await rig.ask(BATCHES + "/b")
        assert (found.status, found.body) == (404, body)
        assert (await rig.ask(BATCHES + "/b", method="HEAD")).status == 404


@pytest.mark.parametrize("status", ["201 Created", "202 Accepted", "404 Not Found"])
async def test_headers_with_an_address_are_dropped(nursery: trio.Nursery, status: str) -> None:
    names = [
        "Location",
        "Content-Location",
        "Link",
        "Refresh",
        "Operation-Location",
        "Azure-AsyncOperation",
        "SourceMap",
    ]
    fields = [f"{name}: https://evil.example/".encode() for name in names]
    raw = await raw_upstream(nursery, says(answer(b"{}", *fields, status=status.encode())))
    async with open_rig(openai(raw), nursery=nursery) as rig:
        found = await rig.ask("/ai/v1/chat/completions", {})
    assert found.status == int(status[:3])
    assert not [name for name, value in found.headers.items() if b"evil" in value]


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 306, 307, 308, 399])
async def test_no_redirect_is_passed_on(nursery: trio.Nursery, status: int) -> None:
    head = b"HTTP/1.1 %d x\r\nlocation: https://evil.example/\r\ncontent-length: 0\r\n\r\n"
    raw = await raw_upstream(nursery, says(head % status))
    async with open_rig(openai(raw), nursery=nursery) as rig:
        found = await rig.ask("/ai/v1/models")
        assert (found.status, found.code) == (502, "upstream_redirects")
        assert b"location" not in found.headers


async def test_early_hints_are_not_passed_on(nursery: trio.Nursery) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: <https://evil.example/>; rel=preload\r\n\r\n"
    raw = await raw_upstream(nursery, says(hints + answer(b"{}")))
    async with open_rig(openai(raw), nursery=nursery) as rig, connect(rig.address) as client:
        await client.send(post("/ai/v1/chat/completions"))
        assert b"evil" not in await client.read_until(b"{}")


async def test_signed_addresses_of_images_pass_as_they_are(nursery: trio.Nursery) -> None:
    """They carry their own credential, and no SDK sends a key with them."""
    body = b'{"data":  [{"url": "https://blob.example/x?sig=1"}]}'
    raw = await raw_upstream(nursery, says(answer(body)))
    async with open_rig(openai(raw), nursery=nursery) as rig:
        assert (await rig.ask("/ai/v1/images/generations", {})).body == body
