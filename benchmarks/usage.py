"""What reading usage costs: a stream of twenty chunks, and a JSON answer, with and without.

Two gateways on the same core get the same load in turn; one of them writes a usage log. Its CPU
includes the record and its line.

Run it with `python -m benchmarks usage`.
"""

import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import trio

from benchmarks.contenders import PROVIDERS, Starter
from benchmarks.load import Ask, Target, chat, cpu_in_turn, cpu_seconds, request_bytes
from benchmarks.table import Row, row
from benchmarks.upstream import END
from bridgepool.gateway.commands._programs import client_row

CONNECTIONS = 8
ROUNDS = 12
SECONDS = 1.0


def run() -> list[Row]:
    """Measure, and return the rows."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        starter = Starter(folder, stack)
        _, upstream = starter.start_module("upstream", core=0)
        client, key = client_row("bench")
        providers = folder / "providers.toml"
        providers.write_text(PROVIDERS.format(upstream=upstream, client=client))
        command = [sys.executable, "-m", "bridgepool", "gateway", "--providers", str(providers)]
        command += ["--listen", "127.0.0.1:0", "--access-log", str(folder / "access.log")]
        pid, port = starter.start(*command)
        off = Target("usage off", port, pid, "/bench")
        pid, port = starter.start(*command, "--usage-log", str(folder / "usage.log"))
        on = Target("usage on", port, pid, "/bench")
        stream = chat(key.reveal(), "?chunks", '"stream": true, ')
        whole = chat(key.reveal(), "?chat")
        streamed: dict[Target, list[float]] = {off: [], on: []}
        for round_number in range(-1, ROUNDS):
            for target, figures in streamed.items():
                figure = trio.run(_stream_load, target, stream)
                if round_number >= 0:
                    figures.append(figure)
        unread, read = cpu_in_turn([(off, whole), (on, whole)])
        return [
            row("CPU of a stream of 20 chunks", streamed[off], "us"),
            row(
                "CPU of a stream of 20 chunks, usage read", streamed[on], "us",
                base=streamed[off], to="not read", target="<= 1.2 x", in_turn=True,
            ),
            row("CPU of a JSON answer of 1 kB", unread, "us"),
            row(
                "CPU of a JSON answer of 1 kB, usage read", read, "us",
                base=unread, to="not read", target="<= 1.3 x", in_turn=True,
            ),
        ]  # fmt: skip


async def _stream_load(target: Target, ask: Ask) -> float:
    """Read streams on some connections at once; return microseconds of CPU for each."""
    request = request_bytes(target, ask)
    streams = 0
    before, until = cpu_seconds(target.pid), time.monotonic() + SECONDS

    async def read_streams() -> None:
        nonlocal streams
        async with await trio.open_tcp_stream("127.0.0.1", target.port) as stream:
            while time.monotonic() < until:
                await stream.send_all(request)
                got = b""
                while not got.endswith(END):
                    data = await stream.receive_some()
                    if not data:
                        raise RuntimeError(f"{target.name}: connection closed in a stream")
                    got = got[-8:] + data
                streams += 1

    async with trio.open_nursery() as nursery:
        for _ in range(CONNECTIONS):
            nursery.start_soon(read_streams)
    return (cpu_seconds(target.pid) - before) / streams * 1e6
