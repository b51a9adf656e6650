"""What the parts of the data plane cost a request, all of them on beside all of them off.

Two gateways have the same upstream. Both have client keys and an access log. One also has keys in
turn, breaker, retries, fallback, limits of provider and gateway, rules of its client on providers,
models, rates and a budget, usage records and metrics. They get the same load in turn; the figures
are CPU time of the whole process, its threads included, and each ratio is of one round, so that
other work on the machine affects both sides. The answer is 1 kB of JSON, or a stream of twenty
chunks.

Run it with `python -m benchmarks data_plane`.
"""

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.contenders import Starter
from benchmarks.load import Target, chat, cpu_in_turn
from benchmarks.streams import stream_cpu_in_turn
from benchmarks.table import Row, row
from bridgepool.gateway.commands._programs import client_row

_OFF = """
allow_private = true

[[providers]]
name = "ai"
type = "openai"
base_url = "http://127.0.0.1:{upstream}/v1"
keys = ["sk-of-the-upstream"]

{client}
"""
_ON = """
allow_private = true

[[providers]]
name = "ai"
type = "openai"
base_url = "http://127.0.0.1:{upstream}/v1"
keys = ["sk-number-1", "sk-number-2", "sk-number-3"]
key_policy = "round_robin"
breaker = true
retries = 2
fallback = ["other"]
max_concurrent = 1000

[[providers]]
name = "other"
type = "openai"
base_url = "http://127.0.0.1:{upstream}/v1"
keys = ["sk-of-the-other"]

{client}
providers = ["ai", "oth*"]
models = ["m*"]
max_concurrent = 1000
requests_per_minute = 100_000_000
tokens_per_minute = 100_000_000_000
tokens_per_day = 100_000_000_000
"""


def run() -> list[Row]:
    """Measure, and return the rows."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        starter = Starter(folder, stack)
        _, upstream = starter.start_module("upstream", core=0)
        client, key = client_row("bench")

        def start(name: str, rows: str, *options: str, lines: int = 1) -> Target:
            providers = folder / f"{name}.toml"
            providers.write_text(rows.format(upstream=upstream, client=client))
            log = str(folder / f"{name}.log")
            pid, port = starter.start(
                *(sys.executable, "-m", "bridgepool", "gateway", "--providers", str(providers)),
                *("--listen", "127.0.0.1:0", "--access-log", log, *options),
                lines=lines,
            )
            return Target(name, port, pid, "/ai")

        off = start("off", _OFF)
        on = start(
            "on", _ON, "--usage-log", str(folder / "usage"), "--max-concurrent", "1000",
            "--admin-listen", "127.0.0.1:0", lines=2,
        )  # fmt: skip
        return _cost(key.reveal(), off, on)


def _cost(key: str, off: Target, on: Target) -> list[Row]:
    whole, stream = chat(key, "?chat"), chat(key, "?chunks", '"stream": true, ')
    without, everything = cpu_in_turn([(off, whole), (on, whole)])
    stream_without, stream_everything = stream_cpu_in_turn([(off, stream), (on, stream)])
    return [
        row("CPU of a request, all off", without, "us"),
        row(
            "CPU of a request, everything on", everything, "us",
            base=without, to="all off", target="<= 1.3 x", in_turn=True,
        ),
        row("CPU of a stream of 20 chunks, all off", stream_without, "us"),
        row(
            "CPU of a stream of 20 chunks, everything on", stream_everything, "us",
            base=stream_without, to="all off", target="<= 1.3 x", in_turn=True,
        ),
    ]  # fmt: skip
