"""What the API refuses, and that nothing of what was sent comes back, nor into the log."""

from __future__ import annotations

import json
import logging
from contextlib import suppress

import pytest
import trio

from bridgepool.gateway.control._errors import CommitUnknownError, StoreUnavailableError
from bridgepool.gateway.control.api._openapi import describe
from bridgepool.gateway.control.store import Store
from tests.gateway.control.planes import DRAFT, Plane
from tests.plain_http import plain_client

HIDDEN = "sk-must-not-come-back-0123456789"
JSON = {"Content-Type": "application/json"}


async def _routes(plane: Plane) -> list[tuple[str, str]]:
    async with plain_client(plane.url) as client:
        described = (await client.get("/openapi.json")).json()
    return [
        (method.upper(), path.replace("{", "").replace("}", ""))
        for path, methods in described["paths"].items()
        for method in methods
        if path.startswith("/api/")
    ]


async def test_every_route_wants_a_key_and_every_write_the_role(plane: Plane) -> None:
    routes = await _routes(plane)
    assert len(routes) > 20
    for method, path in [*routes, ("GET", "/api/v1/nothing"), ("POST", "/api/x")]:
        for headers in (
            {},
            {"Authorization": f"Basic {HIDDEN}"},
            {"Authorization": "Bearer"},
            {"Authorization": f"Bearer {HIDDEN}"},
            {"Authorization": "Bearer bpa_aaaaaaaaaaaa_" + "a" * 43},
        ):
            async with plain_client(plane.url, headers=headers) as client:
                answer = await client.request(method, path, content=b"{no json")
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
            assert answer.headers["www-authenticate"].startswith("Bearer")
        if method != "GET":
            refused = await plane.refused(method, path, role="read", content=b"{no json")
            assert refused == (403, "forbidden")


def _logged(caplog: pytest.LogCaptureFixture) -> str:
    """All that the server logged, with every field; the client of the tests logs, too."""
    client = ("httpx2", "httpcore2")
    return "\n".join(
        f"{record.getMessage()} {vars(record)}"
        for record in caplog.records
        if not record.name.startswith(client)
    )


BAD_BODIES: list[tuple[bytes, int, str]] = [
    (b"", 422, "invalid"),
    (b"{", 400, "bad_request"),
    (b"\xff\xfe", 400, "bad_request"),
    (b"[" * 200_000, 400, "bad_request"),
    (b'{"name": ' + b"1" * 5000 + b"}", 400, "bad_request"),
    (b"[]", 422, "invalid"),
    (b"null", 422, "invalid"),
    (b'{"name": NaN}', 422, "invalid"),
    (b'{"name": "\\ud800", "type": "openai", "base_url": "https://a"}', 422, "invalid"),
    (b'{"name": "a\\u0000", "type": "openai", "base_url": "https://a"}', 422, "invalid"),
    (b"{" + b" " * (1 << 20) + b"}", 413, "too_large"),
]


async def test_what_the_server_refuses_itself_is_an_error_of_the_description(plane: Plane) -> None:
    long = await plane.ask("GET", "/api/v1/providers?after=" + "a" * 9000)
    responses = json.loads(describe())["paths"]["/api/v1/providers"]["get"]["responses"]
    assert (long.status_code, long.json()["error"]["code"]) == (414, "bad_request")
    assert long.headers["content-type"] in responses["414"]["content"]


@pytest.mark.parametrize(("body", "status", "code"), BAD_BODIES)
async def test_a_body_that_cannot_be_used(
    plane: Plane, body: bytes, status: int, code: str
) -> None:
    refused = await plane.refused("POST", "/api/v1/providers", content=body, headers=JSON)
    assert refused == (status, code)
    assert plane.api.failures == 0


async def test_a_body_is_said_to_be_json(plane: Plane) -> None:
    for headers in ({}, {"Content-Type": "text/plain"}):
        body = json.dumps(DRAFT).encode()
        refused = await plane.refused("POST", "/api/v1/providers", content=body, headers=headers)
        assert refused == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/providers/%00",
        "/api/v1/providers/%F0%9F%92%A9%00",
        "/api/v1/audit?limit=0",
        "/api/v1/audit?limit=99999999999999999999999999",
        "/api/v1/audit?name=%00",
        "/api/v1/audit?before=-1",
        "/api/v1/audit?unknown=1",
        "/api/v1/providers?x=1",
        f"/api/v1/providers/openai?{HIDDEN}=1",
        "/api/v1/revisions/x/applied",
        "/api/v1/revisions/0/applied?wait=nan",
        "/api/v1/revisions/0/applied?wait=inf",
        "/api/v1/revisions/0/applied?wait=61",
    ],
)
async def test_a_query_that_cannot_be_used(plane: Plane, path: str) -> None:
    assert await plane.refused("GET", path) == (422, "invalid")


async def test_what_is_not_there(plane: Plane) -> None:
    for path in ("/", "/api/v1/nothing", "/api/v1/providers/a%2Fb", "/api/v1/providers/%FF"):
        assert await plane.refused("GET", path) == (404, "not_found")
    answer = await plane.ask("PUT", "/api/v1/revision")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")


async def test_no_error_repeats_what_was_sent(
    plane: Plane, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    texts = []
    for body in (
        {**DRAFT, HIDDEN: 1},
        {**DRAFT, "name": HIDDEN + "/"},
        {**DRAFT, "type": HIDDEN},
        {**DRAFT, "base_url": HIDDEN},
        {**DRAFT, "base_url": f"https://a:{HIDDEN}@x.example/"},
        {**DRAFT, "enabled": HIDDEN},
        {**DRAFT, "keys": HIDDEN},
        {**DRAFT, "keys": [HIDDEN]},
        {**DRAFT, "keys": [{"id": HIDDEN}]},
        {**DRAFT, "keys": [{"value": HIDDEN + "\n"}]},
        {**DRAFT, "keys": [{"value": HIDDEN, "id": HIDDEN}]},
        {**DRAFT, "keys": [{HIDDEN: HIDDEN}]},
        {**DRAFT, "key_env": HIDDEN},
        {**DRAFT, "headers": {HIDDEN + ":": "x"}},
        {**DRAFT, "headers": {"x": {HIDDEN: 1}}},
        {**DRAFT, "headers": {HIDDEN: None}},
    ):
        answer = await plane.ask("POST", "/api/v1/providers", body)
        assert answer.status_code == 422, body
        texts.append(answer.text)
        applied = await plane.ask("POST", "/api/v1/apply", {"providers": [body]})
        assert applied.status_code == 422, body
        if body["name"] == "openai":  # drafts are told apart by their names
            texts.append(applied.text)
    for method, path in (
        ("GET", f"/api/v1/providers/{HIDDEN}"),
        ("GET", f"/api/v1/clients/{HIDDEN}"),
        ("GET", f"/{HIDDEN}"),
        ("DELETE", f"/api/v1/admin-keys/{HIDDEN}"),
    ):
        texts.append((await plane.ask(method, path)).text)
    bad_role = {"name": HIDDEN, "role": HIDDEN}
    texts.append((await plane.ask("POST", "/api/v1/admin-keys", bad_role)).text)
    hashes = {"id": "a", "key_hashes": [HIDDEN]}
    texts.append((await plane.ask("POST", "/api/v1/clients", hashes)).text)
    assert plane.api.failures == 0
    for text in texts:
        assert HIDDEN not in text
    assert HIDDEN not in _logged(caplog)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (StoreUnavailableError(f"no database at {HIDDEN}"), 503, "store_unavailable"),
        (CommitUnknownError(), 503, "commit_unknown"),
        (RuntimeError(HIDDEN), 500, "internal"),
    ],
)
async def test_a_fault_of_the_store_is_told(
    plane: Plane,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    status: int,
    code: str,
) -> None:
    async def fail(*args: object) -> None:
        await trio.lowlevel.checkpoint()
        raise error

    await plane.key()
    for method in ("add_provider", "authenticate"):
        monkeypatch.setattr(Store, method, fail)
        answer = await plane.ask("POST", "/api/v1/providers", DRAFT)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert ("retry-after" in answer.headers) == (status == 503)
        assert HIDDEN not in answer.text
    assert HIDDEN not in _logged(caplog)
    assert plane.api.failures == (2 if status == 500 else 0)


async def test_bytes_that_are_no_request_do_not_stop_the_server(plane: Plane) -> None:
    host, port = plane.url.removeprefix("http://").split(":")
    for junk in (
        b"\x00\xff" * 500,
        b"GET /\xff\xfe HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100,
        b"GET /api/v1/providers HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n"
        b"Connection: upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        b"Sec-WebSocket-Version: 13\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
    ):
        stream = await trio.open_tcp_stream(host, int(port))
        async with stream:
            await stream.send_all(junk)
            await stream.send_eof()
            with trio.move_on_after(1), suppress(trio.BrokenResourceError):
                while await stream.receive_some():
                    pass
    async with plain_client(plane.url) as client:
        assert (await client.get("/healthz")).status_code == 200
    assert plane.api.failures == 0


async def test_a_body_that_does_not_come_is_not_waited_for(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridgepool.gateway.control.api._guard._BODY_TIMEOUT", 0.05)
    host, _, port = plane.url.removeprefix("http://").partition(":")
    key = (await plane.key()).encode()
    head = b"POST /api/v1/providers HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + key
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(head + b"\r\nContent-Length: 10\r\n\r\n{")
        answer = b""
        with trio.fail_after(60):
            while part := await stream.receive_some():
                answer += part
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answer
    assert b'"code":"timeout"' in answer


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", b"400"),
        (b"Content-Length: 4\r\nContent-Length: 5\r\n", b"400"),
        (b"X-Folded: 1\r\n 2\r\n", b"400"),
        (b"".join(b"X-%d: 1\r\n" % number for number in range(129)), b"431"),
    ],
)
async def test_a_head_that_others_may_read_otherwise_ends_the_connection(
    plane: Plane, headers: bytes, status: bytes
) -> None:
    host, _, port = plane.url.removeprefix("http://").partition(":")
    key = (await plane.key()).encode()
    # The second request must not be served: it may be what another parser took for a body.
    head = b"GET /api/v1/providers HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + key + b"\r\n"
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(head + headers + b"\r\n0\r\n\r\n" + head + b"\r\n")
        answer = b""
        with trio.fail_after(60):
            while part := await stream.receive_some():
                answer += part
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert answer.count(b"HTTP/1.1") == 1
    assert answer.count(b"connection: close") == 1
    assert b'{"error":{"code":"bad_request"' in answer
    [record] = plane.records
    assert b"x-request-id: " + record.request_id.encode() in answer
    assert (record.method, record.route, record.code) == ("GET", "/api/v1/providers", "bad_request")
    assert str(record.status).encode() == status
