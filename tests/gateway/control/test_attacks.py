"""One client's bytes against a real control plane: everybody else goes on as if it were not there.

Each attack needs no key, and once ended the API, or the connections of all others, in one packet.
"""

from __future__ import annotations

import random
import signal
import struct
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx2
import pytest
import trio

from tests.e2e.process import as_json
from tests.gateway.control.planes import DRAFT
from tests.gateway.control.test_process import Control, follow, run_control

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
TO_HTTP2 = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n"
    b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
)
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
CONNECT = b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """Make one frame of HTTP/2."""
    return (
        struct.pack(">I", len(payload))[1:]
        + bytes([kind, flags])
        + struct.pack(">I", stream)
        + payload
    )


SETTINGS = frame(4)
# GET / of HPACK's static table, with an authority that is one byte long
HEADERS = bytes([0x82, 0x84, 0x86, 0x41, 1]) + b"a"

ATTACKS: dict[str, list[bytes]] = {
    "a websocket upgrade and one byte": [UPGRADE + b"\x00"],
    "a websocket upgrade, then one byte": [UPGRADE, b"\x88"],
    "a websocket upgrade and frames": [UPGRADE + b"\x81\x01a" * 1000],
    "CONNECT": [CONNECT, b"\x16\x03\x01"],
    "CONNECT by HTTP/2": [
        HTTP2 + SETTINGS + frame(1, 4, 1, b"\x02\x07CONNECT\x41\x01a"), frame(0, 0, 1, b"x")
    ],
    "an upgrade to HTTP/2": [TO_HTTP2 + HTTP2 + SETTINGS, frame(0, 0, 1) * 1000],
    "HTTP/2 with empty data": [HTTP2 + SETTINGS + frame(1, 4, 1, HEADERS), frame(0, 0, 1) * 20_000],
    "HTTP/2 with pings": [HTTP2 + SETTINGS + frame(6, 0, 0, bytes(8)) * 20_000],
    "HTTP/2 with settings": [HTTP2 + SETTINGS * 20_000],
    "HTTP/2 with empty continuations": [
        HTTP2 + SETTINGS + frame(1, 0, 1, HEADERS), frame(9, 0, 1) * 20_000
    ],
    "HTTP/2 with resets": [
        HTTP2 + SETTINGS
        + b"".join(
            frame(1, 5, number, HEADERS) + frame(3, 0, number, bytes(4))
            for number in range(1, 4001, 2)
        )
    ],
    "HTTP/2 with nothing it knows": [HTTP2 + b"\xff" * 65536],
}  # fmt: skip


def malformed(number: int) -> Iterator[bytes]:
    """Make requests that are wrong in some place, the same ones in each run."""
    chance = random.Random(1)
    good = (
        b"POST /api/v1/providers?a=1 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer bpa_a\r\n"
        b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'5\r\n{"a":\r\n0\r\n\r\n'
    )
    pieces = [
        b"\x00", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" ", b"\t", b":", b"\xff", b"HTTP/1.1", b"%",
        b"Content-Length: -1\r\n", b"Transfer-Encoding: x\r\n", b"Connection: upgrade\r\n",
        b"Expect: 100-continue\r\n", b"\x80", b"a" * 70_000, b"ffffffffffffffff",
    ]  # fmt: skip
    for _ in range(number):
        request = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            begin = chance.randrange(len(request))
            end = min(begin + chance.choice((0, 0, 1, 2, 20)), len(request))
            request[begin:end] = chance.choice(pieces)
        yield bytes(request[: chance.choice((None, None, chance.randrange(1, len(request))))])


async def attack(control: Control, pieces: Iterable[bytes]) -> None:
    """Send from one connection, and leave in a different way each time."""
    host, _, port = control.api.removeprefix("http://").rpartition(":")
    stream = await trio.open_tcp_stream(host, int(port))
    async with stream:
        with suppress(trio.BrokenResourceError), trio.move_on_after(0.2):
            for piece in pieces:
                await stream.send_all(piece)
            await stream.receive_some()


@asynccontextmanager
async def others(folder: Path) -> AsyncIterator[Control]:
    """Run a control plane with an idle connection and a running request; both must live on."""
    async with (
        run_control(folder, str(folder / "store.db")) as control,
        control.gateway() as remote,
    ):
        host, _, port = control.api.removeprefix("http://").rpartition(":")
        waited: list[bool] = []

        async def wait_applied(revision: int) -> None:
            path = f"/api/v1/revisions/{revision}/applied?wait=60"
            headers = {"Authorization": f"Bearer {control.admin_key}"}
            async with httpx2.AsyncClient(base_url=control.api, timeout=60) as client:
                waited.append((await client.get(path, headers=headers)).json()["applied"])

        async def ask(stream: trio.SocketStream) -> None:
            await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            with trio.fail_after(10):
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")

        async with (
            await trio.open_tcp_stream(host, int(port)) as idle,
            trio.open_nursery() as nursery,
        ):
            await ask(idle)
            revision = (await control.ask("POST", "/api/v1/providers", DRAFT))["revision"]
            nursery.start_soon(wait_applied, revision)
            await control.ask("GET", "/api/v1/revision")
            yield control
            await ask(idle)
            assert not waited
            await follow(remote, revision)
        assert waited == [True]
        control.run.signal(signal.SIGTERM)
        assert await control.run.wait() == 0
        await control.run.stderr.wait_end()
        levels = [(as_json(line)["level"], line) for line in control.run.stderr.lines]
        assert [line for level, line in levels if level == "error"] == []


@pytest.mark.parametrize("name", ATTACKS)
async def test_one_packet_does_not_end_the_api_for_everybody(name: str, tmp_path: Path) -> None:
    async with others(tmp_path) as control:
        await attack(control, ATTACKS[name])
        assert await control.ask("GET", "/healthz") == {"status": "ok"}


async def test_two_thousand_malformed_requests_do_not_end_the_api(tmp_path: Path) -> None:
    async with others(tmp_path) as control:
        requests = list(malformed(2000))
        while requests:
            async with trio.open_nursery() as nursery:
                for _ in range(250):
                    nursery.start_soon(attack, control, [requests.pop()])
        assert await control.ask("GET", "/healthz") == {"status": "ok"}
