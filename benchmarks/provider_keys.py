"""What several keys of a provider cost a request, and what a failover to the next key takes.

One gateway has the same upstream under many names. The cost is measured under load, in turn. For
the failover, each sample is the first request to a provider of its own: one with a single good key,
or one whose first key is rate-limited. The time in which the upstream itself refuses that key, on a
connection of its own, is measured beside it.

Run it with `python -m benchmarks provider_keys`.
"""

import socket
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.contenders import Starter
from benchmarks.load import Ask, Target, chat, cpu_in_turn, first_bytes, request_bytes
from benchmarks.table import Row, row
from benchmarks.upstream import LIMITED_KEY
from bridgepool.gateway.commands._programs import client_row

PROVIDERS = 300  # of each kind, for the failover

_PROVIDER = """
[[providers]]
name = "{name}"
type = "openai"
base_url = "http://127.0.0.1:{upstream}/v1"
keys = [{keys}]
key_policy = "{policy}"
"""
_GOOD = '"sk-of-the-upstream"'


def run() -> list[Row]:
    """Measure, and return the rows."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        starter = Starter(folder, stack)
        _, upstream = starter.start_module("upstream", core=0)
        client, key = client_row("bench")
        many = ", ".join([_GOOD, *(f'"sk-number-{number}"' for number in range(4))])
        rows = [
            _PROVIDER.format(name=name, upstream=upstream, keys=keys, policy=policy)
            for name, keys, policy in (
                ("one", _GOOD, "first"),
                ("first", many, "first"),
                ("turn", many, "round_robin"),
                *((f"good-{number}", _GOOD, "first") for number in range(PROVIDERS)),
                *(
                    (f"limited-{number}", f'"{LIMITED_KEY}", {_GOOD}', "first")
                    for number in range(PROVIDERS)
                ),
            )
        ]
        providers = folder / "providers.toml"
        providers.write_text("allow_private = true\n" + "".join(rows) + client)
        pid, port = starter.start(
            *(sys.executable, "-m", "bridgepool", "gateway"),
            *("--providers", str(providers), "--listen", "127.0.0.1:0", "--access-log", "none"),
        )
        ask = chat(key.reveal())
        names = ("one", "first", "turn")
        one, first, turn = (Target(name, port, pid, f"/{name}") for name in names)
        return _cost(ask, one, first, turn) + _failover(ask, port, pid, upstream)


def _cost(ask: Ask, *targets: Target) -> list[Row]:
    one, first, turn = cpu_in_turn((target, ask) for target in targets)
    return [
        row("CPU of a request, one key", one, "us"),
        row(
            "CPU of a request, five keys, the first", first, "us",
            base=one, to="one key", target="<= 1.02 x", in_turn=True,
        ),
        row(
            "CPU of a request, five keys in turn", turn, "us",
            base=one, to="one key", target="<= 1.3 x", in_turn=True,
        ),
    ]  # fmt: skip


def _failover(ask: Ask, port: int, pid: int, upstream: int) -> list[Row]:
    refusals: list[float] = []
    times: dict[str, list[float]] = {"good": [], "limited": []}
    for number in range(PROVIDERS):
        for kind, taken in times.items():
            target = Target(kind, port, pid, f"/{kind}-{number}")
            taken += first_bytes(target, marker=b"200 OK", end=b'x"}', samples=1, ask=ask)
        refusals.append(_refusal(upstream))
    # Other work on the machine only adds to a time, so the quick samples tell more of the code.
    own, good, limited = map(_quick, (refusals, times["good"], times["limited"]))
    later = limited - good
    return [
        row("the upstream refuses a key, on a new connection", refusals, "ms"),
        row("first request to a provider, good key", times["good"], "ms"),
        row("first request to a provider, its first key is rate-limited", times["limited"], "ms"),
        Row("a failover takes, beside the upstream's own time, p10", later - own, 0, "ms",
            target="<= 1 ms"),
    ]  # fmt: skip


def _quick(samples: list[float]) -> float:
    return statistics.quantiles(samples, n=10)[0]


def _refusal(upstream: int) -> float:
    request = request_bytes(Target("upstream", upstream, 0), chat(LIMITED_KEY))
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", upstream)) as sock:
        sock.sendall(request)
        while not sock.recv(65536).endswith(b"}"):
            pass
    return (time.perf_counter() - began) * 1e3
