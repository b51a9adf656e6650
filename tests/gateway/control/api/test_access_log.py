"""The access log of the API, and what becomes of those who try keys."""

from __future__ import annotations

import json
import logging
from itertools import product
from pathlib import Path

import pytest
import trio

from bridgepool.gateway.control._applied import AppliedReport, Expected
from bridgepool.gateway.control._hub import Hub
from bridgepool.gateway.control.api import console_line, json_line
from bridgepool.gateway.control.api._access_log import ApiRecord, redact_path
from tests.e2e.process import as_json
from tests.gateway.control.planes import DRAFT, SECRET, Plane, open_plane, session, wait_for
from tests.gateway.control.test_process import run_control
from tests.plain_http import plain_client

UNKNOWN = "bpa_aaaaaaaaaaaa_" + "a" * 43


def lines_of(plane: Plane) -> list[tuple[object, ...]]:
    fields = ("actor", "method", "route", "status", "revision", "code")
    lines = [json.loads(json_line(record)) for record in plane.records]
    return [tuple(line[field] for field in fields) for line in lines]


async def test_each_request_has_one_line_with_who_what_and_how_it_ended(tmp_path: Path) -> None:
    async with open_plane(str(tmp_path / "store.db")) as plane:
        await plane.good("POST", "/api/v1/providers", DRAFT)
        await plane.good("GET", "/api/v1/providers", role="read")
        await plane.ask("DELETE", "/api/v1/providers/openai?if_revision=9")
        await plane.ask("POST", "/api/v1/providers/openai/disable", role="read")
        await plane.ask("GET", f"/api/v1/{SECRET}")
        await plane.ask("GET", "/api/v1/providers", key=UNKNOWN)
        await plane.ask(SECRET, f"/{SECRET}/" + "x/" * 50)
        assert lines_of(plane) == [
            ("admin-write", "POST", "/api/v1/providers", 201, 1, ""),
            ("admin-read", "GET", "/api/v1/providers", 200, 1, ""),
            ("admin-write", "DELETE", "/api/v1/providers/*", 409, None, "conflict"),
            ("admin-read", "POST", "/api/v1/providers/*/disable", 403, None, "forbidden"),
            ("admin-write", "GET", "/api/v1/*", 404, None, "not_found"),
            ("-", "GET", "/api/v1/providers", 401, None, "unauthorized"),
            ("-", "*", "/*" + "/*" * 7, 404, None, "not_found"),
        ]
        assert SECRET not in "".join(map(repr, plane.records))


async def test_a_response_has_the_request_id_of_its_line(tmp_path: Path) -> None:
    async with open_plane(str(tmp_path / "store.db")) as plane:
        answers = [await plane.ask("GET", path) for path in ("/api/v1/revision", "/none")]
        ids = [answer.headers["x-request-id"] for answer in answers]
        assert ids == [record.request_id for record in plane.records]
        assert len(set(ids)) == 2
        assert all(record.peer.startswith("127.0.0.1:") for record in plane.records)


async def test_health_checks_have_no_line(tmp_path: Path) -> None:
    async with open_plane(str(tmp_path / "store.db")) as plane:
        for path in ("/healthz", "/readyz", "/openapi.json"):
            await plane.good("GET", path)
        assert [record.route for record in plane.records] == ["/openapi.json"]


async def test_a_client_that_leaves_before_the_response_has_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = trio.Event()
    wait_applied = Hub.wait_applied

    async def note_wait(hub: Hub, revision: int, wait: float, expected: Expected) -> AppliedReport:
        waits.set()
        return await wait_applied(hub, revision, wait, expected)

    monkeypatch.setattr(Hub, "wait_applied", note_wait)
    async with open_plane(str(tmp_path / "store.db")) as plane:
        plane.hub.session_opened(session("front"))
        await plane.key()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(plane.ask, "GET", "/api/v1/revisions/0/applied?wait=60")
            with trio.fail_after(60):
                await waits.wait()
            nursery.cancel_scope.cancel()

        async def is_logged() -> bool:
            await trio.lowlevel.checkpoint()
            return bool(plane.records)

        await wait_for(is_logged)
        [record] = plane.records
        assert (record.status, record.code, record.actor) == (0, "client_gone", "admin-write")
        assert b"client_gone" in json_line(record)


async def test_a_body_that_is_not_http_has_a_line(tmp_path: Path) -> None:
    async with open_plane(str(tmp_path / "store.db")) as plane:
        key = (await plane.key()).encode()
        host, _, port = plane.url.removeprefix("http://").partition(":")
        head = b"POST /api/v1/clients HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + key
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(head + b"\r\nTransfer-Encoding: chunked\r\n\r\nno\r\n")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 400 ")
        assert lines_of(plane)[0][3:] == (400, None, "bad_request")


def test_the_line_for_people() -> None:
    record = ApiRecord("POST", "/api/v1/clients", "192.0.2.1:5", actor="ada", started=1.0)
    record.ended, record.status, record.revision, record.code = 1.25, 201, 7, ""
    line = console_line(record).decode()
    assert line[12:] == " ada          POST /api/v1/clients 201 250.0 ms revision 7\n"
    record.status, record.revision, record.code = 0, None, "client_gone"
    assert console_line(record).decode().endswith("clients --- 250.0 ms (client_gone)\n")


async def test_refused_keys_are_answered_ever_later_and_a_good_one_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A good key is served while the refusals of the same address wait for their turn."""
    async with open_plane(str(tmp_path / "store.db"), burst=0) as plane:
        await plane.good("GET", "/api/v1/providers")
        answered = 0

        async def guess() -> None:
            nonlocal answered
            assert await plane.refused("GET", "/api/v1/providers", key=UNKNOWN) == (
                401,
                "unauthorized",
            )
            answered += 1

        async def all_are_refused() -> bool:
            await trio.lowlevel.checkpoint()
            return plane.api.refused_keys.count == 30

        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(guess)
            await wait_for(all_are_refused)
            await plane.good("GET", "/api/v1/providers")
            assert answered < 30
            nursery.cancel_scope.cancel()
    lines = [record for record in caplog.records if record.message == "admin keys refused"]
    assert len(lines) == 1


async def test_requests_without_a_key_are_refused_at_once(tmp_path: Path) -> None:
    async with open_plane(str(tmp_path / "store.db"), burst=0) as plane:
        async with plain_client(plane.url) as client:
            for _ in range(30):
                assert (await client.get("/api/v1/providers")).status_code == 401
        assert plane.api.refused_keys.count == 0


@pytest.mark.parametrize("target", ["-", "none", "file"])
async def test_the_control_plane_writes_the_access_log(tmp_path: Path, target: str) -> None:
    log = tmp_path / "access.log"
    options = ("--access-log", str(log) if target == "file" else target)
    async with run_control(tmp_path, str(tmp_path / "store.db"), *options) as control:
        await control.ask("POST", "/api/v1/providers", DRAFT)
        await control.run.stop()
        lines = [document for line in control.run.stdout.lines if (document := as_json(line))]
        if target == "file":
            assert lines == []
            lines = [json.loads(line) for line in log.read_text().splitlines()]
        assert [(line["actor"], line["route"], line["status"]) for line in lines] == (
            [] if target == "none" else [("first", "/api/v1/providers", 201)]
        )
        assert SECRET not in control.run.everything


async def test_a_gateway_key_that_is_refused_often_is_refused_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The sibling at the port for gateways."""
    caplog.set_level(logging.WARNING)
    async with run_control(tmp_path, str(tmp_path / "store.db")) as control:
        host, _, port = control.rpc.removeprefix("ws://").rpartition(":")
        handshake = (
            f"GET /?version=1.0 HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            f"Sec-WebSocket-Protocol: bridgepool.v1\r\n"
            f"Authorization: Bearer bpg_aaaaaaaaaaaa_{'a' * 43}\r\n\r\n"
        ).encode()

        async def guess() -> None:
            async with await trio.open_tcp_stream(host, int(port)) as stream:
                await stream.send_all(handshake)
                with trio.fail_after(60):
                    assert (await stream.receive_some()).startswith(b"HTTP/1.1 401 ")

        # Ten are answered at once and one each 0.2 s after that, counted from the first. The last
        # is looked up after its wait for those before it: so the whole takes at least this long,
        # however long the look-ups take, which are part of the waits.
        began = trio.current_time()
        for _ in range(14):
            await guess()
        assert trio.current_time() - began >= (13 - 10) * 0.2
        await control.run.wait_event("gateway keys refused", refused=1)


def test_strangers_cannot_make_up_routes_of_the_metrics() -> None:
    """Each is a time series for good; the words of the API's paths have endless combinations."""
    words = ("api", "v1", "providers", "keys", "clients", "x", "")
    asked = [path for length in range(5) for path in product(words, repeat=length)]
    patterns = {ApiRecord("GET", redact_path(path), "").pattern for path in asked}
    known = "/api/v1/providers", "/api/v1/providers/*", "/api/v1/clients", "/api/v1/clients/*"
    assert patterns == {"*", *known}
    named_like_a_word = redact_path(("api", "v1", "clients", "clients", "keys", "providers"))
    assert ApiRecord("GET", named_like_a_word, "").pattern == "/api/v1/clients/*/keys/*"
