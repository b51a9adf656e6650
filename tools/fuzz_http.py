"""Send malformed requests to every port of both programs: part of `make fuzz`.

Starts a control plane and a gateway on it, in front of an upstream that accepts everything, and
sends what `tools.hostile_bytes` makes, with valid keys and without. These are failures: an answer
that is no complete HTTP/1.1 response, a 5xx other than 501 and 505, a connection that does not end
after its client has, a health check that takes more than a second beside what either side waits for
a processor, a program that ends, an error in its log. `--seconds` is the length of the run for each
port; `--seed` is its seed, 0 for a new one.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import h11
import httpx2
import trio

from bridgepool.http import Exchange, serve_http
from tools.hostile_bytes import PACKETS, malformed

_ANY: Final = "127.0.0.1:0"
_BATCH: Final = 64  # connections at a time
_MAX_SILENCE: Final = 0.5  # seconds after which a client leaves that has not ended its request
_MAX_ANSWER_TIME: Final = 20.0  # seconds for others; well above what a server waits
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"  # all that a body gets that does not come
_EXPECTED: Final = {501, 505}  # what is not implemented
_FORMAT: Final = ("--log-format", "json", "--access-log", "none")


@attrs.frozen
class Program:
    """A program that runs."""

    process: subprocess.Popen[str]
    log: Path
    urls: tuple[str, ...]


@contextmanager
def _program(folder: Path, name: str, urls: int, *options: str | Path) -> Iterator[Program]:
    """Run a program until the block is left."""
    log = folder / f"{name}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "bridgepool", name, *_FORMAT, *options],
            stdout=subprocess.PIPE, stderr=file, text=True, env=os.environ,
        )  # fmt: skip
    assert process.stdout is not None
    found: list[str] = []
    while len(found) < urls:
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"{name} did not start:\n{log.read_text()}")
        found += re.findall(r"\w+://\S+", line)
    try:
        yield Program(process, log, tuple(found))
    finally:
        process.kill()
        process.wait()


async def _accept_everything(exchange: Exchange) -> None:
    async for _ in exchange.body:
        pass
    await exchange.answer(200, body=b"{}")


def _wait_for_processor(pid: int) -> float:
    """Return the seconds that the first thread of a process could run, and had no processor."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


def _problem_of(raw: bytes) -> tuple[str | None, list[int]]:
    """Return what is wrong with the answers that one connection got, and their statuses."""
    statuses: list[int] = []
    rest = raw.removeprefix(_CONTINUE)
    while rest:
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method="POST", target="/", headers=[("Host", "a")]))
        connection.send(h11.EndOfMessage())
        connection.receive_data(rest)
        try:
            while not isinstance(event := connection.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    return f"an answer that is not complete: {rest[:200]!r}", statuses
                if isinstance(event, h11.Response):
                    statuses.append(event.status_code)
        except h11.RemoteProtocolError as error:
            return f"an answer that is not HTTP ({error}): {rest[:200]!r}", statuses
        rest = connection.trailing_data[0]
    return None, statuses


async def _ask(port: int, pieces: tuple[bytes, ...], *, end: bool) -> bytes:
    """Send on one connection, and return all that comes.

    With `end`, the sending direction is closed: the server must then end the connection. Without
    it, a complete request gets its answer, and the client leaves when nothing more comes.
    """
    received = b""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        try:
            with trio.fail_after(_MAX_ANSWER_TIME):
                for piece in pieces:
                    await stream.send_all(piece)
                if end:
                    await stream.send_eof()
                with trio.move_on_after(math.inf if end else _MAX_SILENCE) as silence:
                    while data := await stream.receive_some():
                        received += data
                        silence.deadline = max(silence.deadline, trio.current_time() + _MAX_SILENCE)
        except trio.BrokenResourceError:
            pass
    return received


@attrs.define(eq=False)
class _Run:
    """What one port got, and what was wrong."""

    name: str
    port: int
    health: str
    pid: int
    """Of the program that is asked for its health."""
    statuses: Counter[int] = attrs.field(factory=Counter)
    problems: list[str] = attrs.field(factory=list)
    slowest: float = 0.0

    async def ask(self, pieces: tuple[bytes, ...], *, end: bool) -> None:
        try:
            problem, statuses = _problem_of(await _ask(self.port, pieces, end=end))
        except trio.TooSlowError:
            problem, statuses = "the connection does not end", []
        self.statuses.update(statuses)
        bad = [code for code in statuses if code >= 500 and code not in _EXPECTED]
        if problem is None and bad:
            problem = f"status {bad}"
        if problem is not None:
            self.problems.append(f"{problem} to {b''.join(pieces)[:400]!r}")

    def now(self) -> float:
        """Return the time, without what both sides have waited for a processor so far."""
        waited = (_wait_for_processor(pid) for pid in (self.pid, os.getpid()))
        return trio.current_time() - sum(waited)

    async def check_health(self) -> None:
        began = self.now()
        async with httpx2.AsyncClient(timeout=30) as client:
            response = await client.get(self.health)
        took = self.now() - began
        self.slowest = max(self.slowest, took)
        if response.status_code != 200 or took > 1.0:
            self.problems.append(f"health check: {response.status_code} after {took:.1f} s")


async def _fuzz_port(run: _Run, seconds: float, seed: int, target: str, keys: list[str]) -> None:
    for pieces in PACKETS.values():
        await run.ask(pieces, end=True)
        await run.ask(pieces, end=False)
    until, number = time.monotonic() + seconds, 0
    while time.monotonic() < until and len(run.problems) < 20:
        number += 1
        key = keys[number % len(keys)]
        async with trio.open_nursery() as nursery:
            for request in malformed(_BATCH, seed * 1_000_003 + number, target, key):
                nursery.start_soon(partial(run.ask, (request,), end=number % 4 < 2))
            nursery.start_soon(run.check_health)


async def _fuzz(folder: Path, seconds: float, seed: int) -> bool:
    admin, gateway, client = (folder / f"{name}.key" for name in ("admin", "gateway", "client"))
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            partial(serve_http, _accept_everything, await trio.open_tcp_listeners(0))
        )
        upstream = listeners[0].socket.getsockname()[1]
        with _program(
            folder, "control-plane", 2, "--listen", _ANY, "--rpc-listen", _ANY,
            "--store", folder / "store.db", "--admin-key-file", admin,
            "--gateway-key-file", gateway, "--client-key-file", client,
        ) as plane:  # fmt: skip
            api, rpc = plane.urls
            draft = {
                "name": "ai", "type": "openai", "base_url": f"http://127.0.0.1:{upstream}/v1",
                "keys": [{"value": "sk-central"}], "allow_private": True,
            }  # fmt: skip
            headers = {"Authorization": f"Bearer {admin.read_text().strip()}"}
            async with httpx2.AsyncClient(base_url=api, headers=headers) as asking:
                (await asking.post("/api/v1/providers", json=draft)).raise_for_status()
            with _program(
                folder, "gateway", 1, "--listen", _ANY, "--control", rpc, "--key-file", gateway
            ) as front:
                good = await _fuzz_ports(plane, front, admin, client, seconds, seed)
        nursery.cancel_scope.cancel()
    return good


async def _fuzz_ports(
    plane: Program, front: Program, admin: Path, client: Path, seconds: float, seed: int
) -> bool:
    good = True
    for name, program, url, target, key in (
        ("api", plane, plane.urls[0], "/api/v1/providers", admin),
        ("rpc", plane, plane.urls[1], "/", admin),
        ("gateway", front, front.urls[0], "/ai/v1/chat/completions", client),
    ):
        health = f"{program.urls[0]}/healthz"
        run = _Run(name, int(url.rpartition(":")[2]), health, program.process.pid)
        keys = [key.read_text().strip(), "none"]
        await _fuzz_port(run, seconds, seed, target, keys)
        print(
            f"{name}: {sum(run.statuses.values())} answers {dict(sorted(run.statuses.items()))}, "
            f"slowest health check {run.slowest * 1000:.0f} ms",
            flush=True,
        )
        for problem in run.problems[:5]:
            print(f"  {problem}")
        good &= not run.problems
    for program in (front, plane):
        program.process.send_signal(signal.SIGTERM)
        status = await trio.to_thread.run_sync(program.process.wait)
        lines = program.log.read_text().splitlines()
        errors = [line[:2000] for line in lines if json.loads(line).get("level") == "error"]
        for line in errors[:5]:
            print(line)
        if status != 0:
            print(f"{program.log.stem} ended with {status}")
        good &= status == 0 and not errors
    return good


def main() -> int:
    """Fuzz every port; return the exit status."""
    parser = argparse.ArgumentParser(description="Fuzz the ports of both programs.")
    parser.add_argument("--seconds", type=float, default=10, help="for each port")
    parser.add_argument("--seed", type=int, default=1, help="of the requests; 0: new")
    options = parser.parse_args()
    seed = options.seed or int.from_bytes(os.urandom(4), "big")
    print(f"== every port: {options.seconds:.0f} s, seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        good = trio.run(_fuzz, Path(folder), options.seconds, seed)
    print("passed" if good else "FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
