"""What reading usage costs: a stream of twenty chunks, and a JSON answer, with and without.

Two gateways on the same core get the same load in turn; one of them writes a usage log. Its CPU
includes the record and its line.

Run it with `python -m benchmarks usage`.
"""

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.contenders import PROVIDERS, Starter
from benchmarks.load import Target, chat, cpu_in_turn
from benchmarks.streams import stream_cpu_in_turn
from benchmarks.table import Row, row
from bridgepool.gateway.commands._programs import client_row


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
        streamed_unread, streamed_read = stream_cpu_in_turn([(off, stream), (on, stream)])
        unread, read = cpu_in_turn([(off, whole), (on, whole)])
        return [
            row("CPU of a stream of 20 chunks", streamed_unread, "us"),
            row(
                "CPU of a stream of 20 chunks, usage read", streamed_read, "us",
                base=streamed_unread, to="not read", target="<= 1.2 x", in_turn=True,
            ),
            row("CPU of a JSON answer of 1 kB", unread, "us"),
            row(
                "CPU of a JSON answer of 1 kB, usage read", read, "us",
                base=unread, to="not read", target="<= 1.3 x", in_turn=True,
            ),
        ]  # fmt: skip
