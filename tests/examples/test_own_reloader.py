from __future__ import annotations

import json
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import trio

from bridgepool.http import Exchange, serve_http
from tests.examples.support import EXAMPLES, Example, ask, running


class Endpoint:
    """Where the list of upstreams comes from."""

    def __init__(self) -> None:
        self.status, self.body = 200, b""
        self.asked = 0

    def give(self, revision: int, *upstreams: object) -> None:
        self.status, self.body = (
            200,
            json.dumps({"revision": revision, "upstreams": upstreams}).encode(),
        )

    async def handle(self, exchange: Exchange) -> None:
        self.asked += 1
        await exchange.answer(self.status, body=self.body)

    async def start(self, nursery: trio.Nursery) -> str:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(partial(serve_http, self.handle, listeners))
        return f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/upstreams.json"


async def wait_shown(example: Example, url: str, *wanted: bytes) -> bytes:
    """Give notice, and ask until the program shows all that is wanted."""
    with trio.fail_after(60):
        while True:
            example.process.send_signal(signal.SIGHUP)
            shown = await ask(url, "/")
            if all(part in shown for part in wanted):
                return shown


async def test_upstreams_follow_the_endpoint_and_stay_when_its_answer_is_invalid(
    nursery: trio.Nursery,
) -> None:
    endpoint = Endpoint()
    endpoint.give(1, "10.0.0.1:80")
    source = await endpoint.start(nursery)
    async with running("own_reloader.py", source, "0") as program:
        url = "http://127.0.0.1:" + await program.said("listening on port ")
        assert await ask(url, "/") == b"200\nrevision 1: 10.0.0.1:80\nlast error: None\n"

        endpoint.give(2, "10.0.0.1:80", "10.0.0.2:80")
        await wait_shown(program, url, b"revision 2: 10.0.0.1:80, 10.0.0.2:80\n")

        bad: list[tuple[int, bytes, bytes]] = [
            (503, b"", b"status 503"),
            (200, b'{"revision": 3', b"malformed"),
            (200, b"[]", b"malformed"),
            (200, b'{"revision": "3", "upstreams": []}', b"wrong type"),
            (200, b'{"revision": 3, "upstreams": ["host"]}', b"not HOST:PORT"),
            (200, b'{"revision": 1, "upstreams": []}', b"behind ours"),
            (200, b"x" * (1 << 20) + b"x", b"larger than"),
        ]
        for endpoint.status, endpoint.body, error in bad:
            shown = await wait_shown(program, url, error)
            assert b"revision 2: 10.0.0.1:80, 10.0.0.2:80\n" in shown

        endpoint.give(3, "10.0.0.3:80")
        await wait_shown(program, url, b"revision 3: 10.0.0.3:80\n")


async def test_it_waits_for_the_first_good_answer(nursery: trio.Nursery) -> None:
    endpoint = Endpoint()
    endpoint.status = 500
    source = await endpoint.start(nursery)
    async with running("own_reloader.py", source, "0") as program:
        with trio.fail_after(60):
            while endpoint.asked < 2:  # noqa: ASYNC110 -- no event in another process
                await trio.sleep(0.01)
        endpoint.give(1, "10.0.0.1:80")
        await program.said("listening on port ")


def test_it_keeps_the_contract_of_reloaders(tmp_path: Path) -> None:
    for name in ("own_reloader.py", "check_your_reloader.py"):
        (tmp_path / name).write_text((EXAMPLES / name).read_text())
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    result = subprocess.run(
        [*command, "check_your_reloader.py"],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stdout
    assert "1 passed" in result.stdout
