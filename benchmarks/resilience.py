"""What breakers, retries, fallbacks and limits cost a request; and what a failover takes.

One gateway has the same upstream under several names: without any of it, with all of it, behind a
provider that refuses connections, and behind one whose breaker is open. They get the same load in
turn, so the ratios are of the same process in the same second.

Run it with `python -m benchmarks resilience`.
"""

import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.contenders import Starter
from benchmarks.load import Ask, Target, chat, cpu_in_turn, first_bytes
from benchmarks.table import Row, row
from bridgepool.gateway.commands._programs import client_row

ROUNDS = 12
SAMPLES = 100  # a round

_PROVIDERS = """
[[providers]]
name = "off"
type = "openai"
base_url = "http://127.0.0.1:{upstream}/v1"
keys = ["sk-of-the-upstream"]

[[providers]]
name = "on"
type = "openai"
base_url = "http://127.0.0.1:{upstream}/v1"
keys = ["sk-of-the-upstream"]
breaker = true
retries = 2
fallback = ["off"]
max_concurrent = 1000

[[providers]]
name = "refuses"
type = "openai"
base_url = "http://127.0.0.1:1/v1"
keys = ["sk-of-the-upstream"]
fallback = ["off"]

[[providers]]
name = "open"
type = "openai"
base_url = "http://127.0.0.1:1/v1"
keys = ["sk-of-the-upstream"]
breaker = true
breaker_failures = 1
breaker_open = 3600
fallback = ["off"]

{client}
"""


def run() -> list[Row]:
    """Measure, and return the rows."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        starter = Starter(folder, stack)
        _, upstream = starter.start_module("upstream", core=0)
        client, key = client_row("bench")
        providers = folder / "providers.toml"
        providers.write_text(
            "allow_private = true\n" + _PROVIDERS.format(upstream=upstream, client=client)
        )
        pid, port = starter.start(
            *(sys.executable, "-m", "bridgepool", "gateway"),
            *("--providers", str(providers), "--listen", "127.0.0.1:0", "--access-log", "none"),
        )
        ask = chat(key.reveal())
        off, on, refuses, breaking = (
            Target(name, port, pid, f"/{name}") for name in ("off", "on", "refuses", "open")
        )
        return _cost(ask, off, on) + _failover(ask, off, refuses, breaking)


def _cost(ask: Ask, off: Target, on: Target) -> list[Row]:
    without, everything = cpu_in_turn([(off, ask), (on, ask)])
    return [
        row("CPU of a request, all off", without, "us"),
        row(
            "CPU of a request, breaker, retries, fallback, limit",
            everything, "us", base=without, to="all off", target="<= 1.3 x", in_turn=True,
        ),
    ]  # fmt: skip


def _failover(ask: Ask, off: Target, *failing: Target) -> list[Row]:
    times: dict[Target, list[float]] = {target: [] for target in (off, *failing)}
    for round_number in range(-1, ROUNDS):
        for target in times:
            took = first_bytes(target, marker=b"200 OK", end=b'x"}', samples=SAMPLES, ask=ask)
            if round_number >= 0:
                times[target] += took
    rows = [row("time to the answer, no failover", times[off], "ms")]
    for target in failing:
        samples = times[target]
        name = {"refuses": "a refused connection", "open": "an open breaker"}[target.name]
        rows.append(row(f"time to the answer, after {name}", samples, "ms"))
        later = statistics.median(samples) - statistics.median(times[off])
        rows.append(Row(f"failover after {name} takes", later, 0, "ms", target="<= 1 ms"))
    return rows
