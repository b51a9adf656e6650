"""Load for the HTTP benchmarks: `wrk` where it is installed, otherwise a raw-socket loop."""

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs
import trio

_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@attrs.frozen
class Target:
    """Where a contender listens, and which process does the work."""

    name: str
    port: int
    pid: int
    prefix: str = ""
    """Goes before the path that is asked for."""


@attrs.frozen
class Ask:
    """What is asked, the same of every contender."""

    path: str
    headers: Mapping[str, str]
    body: str = ""

    @property
    def method(self) -> str:
        """POST where there is a body."""
        return "POST" if self.body else "GET"


def chat(key: str, query: str = "", fields: str = "") -> Ask:
    """Return what asks for a chat completion, with a body of some 270 bytes.

    Args:
        key: The client's key.
        query: The query, with its question mark; the upstream answers by it.
        fields: Further fields of the body, each with a comma after it.
    """
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    messages = '[{"role": "user", "content": "%s"}]' % ("why? " * 40)
    body = f'{{{fields}"messages": {messages}, "model": "m"}}'
    return Ask(f"/v1/chat/completions{query}", headers, body)


@attrs.frozen
class Load:
    """What one round of load gave."""

    rate: float
    """Answers a second."""
    cpu: float
    """Microseconds of the contender's CPU for one answer; counts its main process only."""


def pin(core: int) -> list[str]:
    """Return a command prefix that keeps a program on one core, where that can be had."""
    if shutil.which("taskset") and len(os.sched_getaffinity(0)) > 1:
        return ["taskset", "-c", str(sorted(os.sched_getaffinity(0))[core])]
    return []


def load(target: Target, *, connections: int, seconds: float, ask: Ask) -> Load:
    """Put load on a contender and count.

    Raises:
        RuntimeError: An answer was not 2xx, or a connection broke: no figure would be true.
    """
    before, began = cpu_seconds(target.pid), time.monotonic()
    if shutil.which("wrk"):
        answers = _wrk(target, connections, seconds, ask)
    else:
        answers = trio.run(_raw_load, target, connections, seconds, ask)
    took = time.monotonic() - began
    if not answers:
        raise RuntimeError(f"{target.name} answered nothing")
    return Load(answers / took, (cpu_seconds(target.pid) - before) / answers * 1e6)


def cpu_in_turn(
    asked: Iterable[tuple[Target, Ask]],
    *,
    connections: int = 32,
    rounds: int = 12,
    seconds: float = 1.0,
) -> list[list[float]]:
    """Ask contenders in turn, with one more round to warm up.

    Returns:
        For each of `asked` the microseconds of CPU for one answer, one figure per round.
    """
    turns = [(target, ask, list[float]()) for target, ask in asked]
    for number in range(-1, rounds):
        for target, ask, figures in turns:
            measured = load(target, connections=connections, seconds=seconds, ask=ask)
            if number >= 0:
                figures.append(measured.cpu)
    return [figures for _target, _ask, figures in turns]


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():  # not Linux
        return float("nan")
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS


def _wrk(target: Target, connections: int, seconds: float, ask: Ask) -> int:
    command = [*pin(0), "wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s"]
    for name, value in ask.headers.items():
        command += ["-H", f"{name}: {value}"]
    with tempfile.TemporaryDirectory() as folder:
        if ask.body:
            script = Path(folder, "body.lua")
            script.write_text(f"wrk.method = 'POST'\nwrk.body = [[{ask.body}]]\n")
            command += ["-s", str(script)]
        command.append(f"http://127.0.0.1:{target.port}{target.prefix}{ask.path}")
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    bad = re.search(r"Non-2xx or 3xx responses: \d+|Socket errors: .*", out)
    if bad:
        raise RuntimeError(f"{target.name}: {bad.group()}")
    counted = re.search(r"(\d+) requests in", out)
    assert counted is not None, out
    return int(counted.group(1))


def request_bytes(target: Target, ask: Ask) -> bytes:
    """Return a request in its bytes."""
    lines = [f"{ask.method} {target.prefix}{ask.path} HTTP/1.1", f"Host: 127.0.0.1:{target.port}"]
    lines += [f"{name}: {value}" for name, value in ask.headers.items()]
    if ask.body:
        lines.append(f"Content-Length: {len(ask.body)}")
    return "\r\n".join((*lines, "", ask.body)).encode("ascii")


async def _raw_load(target: Target, connections: int, seconds: float, ask: Ask) -> int:
    """Ask on all connections at once, one request after the other, until the time is up."""
    request = request_bytes(target, ask)
    answers = 0

    async def ask_on() -> None:
        nonlocal answers
        stream = await trio.open_tcp_stream("127.0.0.1", target.port)
        async with stream:
            while True:
                await stream.send_all(request)
                await _read_answer(target, stream)
                answers += 1

    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.deadline = trio.current_time() + seconds
        for _ in range(connections):
            nursery.start_soon(ask_on)
    return answers


async def _read_answer(target: Target, stream: trio.SocketStream) -> None:
    got = b""
    while b"\r\n\r\n" not in got:
        data = await stream.receive_some()
        if not data:
            raise RuntimeError(f"{target.name}: connection closed")
        got += data
    head, _, body = got.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    if length is None or not head.startswith(b"HTTP/1.1 2"):
        raise RuntimeError(f"{target.name}: answered {head!r}")
    missing = int(length.group(1)) - len(body)
    while missing > 0:
        data = await stream.receive_some()
        if not data:
            raise RuntimeError(f"{target.name}: connection closed in an answer")
        missing -= len(data)


def first_bytes(
    target: Target, *, marker: bytes, end: bytes, samples: int, ask: Ask
) -> list[float]:
    """Return milliseconds from sending a request to the first streamed bytes, many times.

    One kept connection and a blocking socket, so that nothing but the contender varies. The
    stream is read to its end before the next sample.
    """
    request = request_bytes(target, ask)
    times: list[float] = []
    with socket.create_connection(("127.0.0.1", target.port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(samples):
            got = b""
            began = time.perf_counter()
            sock.sendall(request)
            while marker not in got:
                got += _some(target, sock)
            times.append((time.perf_counter() - began) * 1e3)
            while not got.endswith(end):
                got += _some(target, sock)
    return times


def _some(target: Target, sock: socket.socket) -> bytes:
    data = sock.recv(65536)
    if not data:
        raise RuntimeError(f"{target.name}: connection closed in a stream")
    return data
