"""The gateway beside a floor and two peers: requests a second, CPU, time to the first byte.

Every contender is a process on one core. In each round all of them get the same load through the
same upstream, one after the other, so other work on the machine affects all of them. The gateway
runs with all features: client authentication, its provider's own key, an access log to a file. The
floor has no features. Ratios of throughput and CPU are computed for each round, and their median
is shown, since other work on the machine slows a whole round and not one contender.

Run it with `python -m benchmarks http`.
"""

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.contenders import Contenders, running
from benchmarks.load import Ask, Load, Target, first_bytes, load
from benchmarks.table import Row, row, spread
from benchmarks.upstream import END, EVENT

CONNECTIONS = 32
ROUNDS = 12
SECONDS = 1.0
STREAMS = 30  # a round

_CHAT = {
    "Accept": "application/json",
    "Accept-Encoding": "gzip, deflate",
    "Content-Type": "application/json",
    "User-Agent": "AsyncOpenAI/Python 3.52.0",
    "X-Stainless-Arch": "x64",
    "X-Stainless-Async": "async:trio",
    "X-Stainless-Lang": "python",
    "X-Stainless-OS": "Linux",
    "X-Stainless-Package-Version": "3.52.0",
    "X-Stainless-Retry-Count": "0",
    "X-Stainless-Runtime": "CPython",
}
_CHAT_BODY = '{"model": "m", "messages": [{"role": "user", "content": "%s"}]}' % ("why? " * 40)


def run() -> list[Row]:
    """Measure, and return the rows."""
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as contenders:
        key = {"Authorization": f"Bearer {contenders.key}"}
        rows = _throughput(contenders, contenders.all, Ask("/v1/models", key), "GET")
        pair = (contenders.floor, contenders.gateway)
        chat = Ask("/v1/chat/completions", {**key, **_CHAT}, _CHAT_BODY)
        rows += _throughput(contenders, pair, chat, "SDK-like POST")
        rows.append(_counting(contenders, chat))
        return rows + _first_bytes(contenders, Ask("/v1/models?stream=1", key))


def _throughput(
    contenders: Contenders, targets: Sequence[Target], ask: Ask, what: str
) -> list[Row]:
    loads: dict[Target, list[Load]] = {target: [] for target in targets}
    for round_number in range(-1, ROUNDS):
        for target in targets:
            measured = load(target, connections=CONNECTIONS, seconds=SECONDS, ask=ask)
            if round_number >= 0:  # the first one warms up
                loads[target].append(measured)
    floor, gateway = contenders.floor, contenders.gateway
    rates = {target: [entry.rate for entry in loads[target]] for target in targets}
    cpu = {target: [entry.cpu for entry in loads[target]] for target in targets}
    title = f"{what}, 1 kB, {CONNECTIONS} connections: "
    at_least = {} if ask.body else {gateway: ">= 0.9"}
    rows = []
    for target in targets:
        goal = at_least.get(target, "")
        rows += [
            _beside(title + target.name, rates[target], "answers/s", rates[floor], floor, goal),
            _beside(f"{what}, 1 kB: CPU of {target.name}", cpu[target], "us", cpu[floor], floor),
        ]
    for library in contenders.libraries if not ask.body else ():
        rows += [
            _beside(
                title + gateway.name, rates[gateway], "answers/s", rates[library], library, ">= 6"
            ),
            _beside(
                f"{what}, 1 kB: CPU of {library.name}", cpu[library], "us", cpu[gateway], gateway
            ),
        ]
    return rows


def _counting(contenders: Contenders, ask: Ask) -> Row:
    """Measure what counting for metrics costs."""
    cpu: dict[Target, list[float]] = {contenders.gateway: [], contenders.counting: []}
    for round_number in range(-1, ROUNDS):
        for target, samples in cpu.items():
            measured = load(target, connections=CONNECTIONS, seconds=SECONDS, ask=ask)
            if round_number >= 0:
                samples.append(measured.cpu)
    name = "SDK-like POST, 1 kB: CPU of the gateway with metrics on"
    plain, counting = cpu[contenders.gateway], cpu[contenders.counting]
    return _beside(name, counting, "us", plain, contenders.gateway, "<= 1.02")


def _beside(
    name: str,
    samples: Sequence[float],
    unit: str,
    base: Sequence[float],
    to: Target,
    goal: str = "",
) -> Row:
    """Make a row whose ratio is the median of the ratios of each round."""
    ratio = statistics.median(a / b for a, b in zip(samples, base, strict=True))
    return Row(name, statistics.median(samples), spread(samples), unit, ratio, to.name, goal)


def _first_bytes(contenders: Contenders, ask: Ask) -> list[Row]:
    targets = contenders.all
    times: dict[Target, list[float]] = {target: [] for target in targets}
    for round_number in range(-1, ROUNDS):
        for target in targets:
            took = first_bytes(target, marker=EVENT, end=END, samples=STREAMS, ask=ask)
            if round_number >= 0:
                times[target] += took
    floor = contenders.floor
    rows = [
        row(
            f"first streamed byte: {target.name}",
            times[target],
            "ms",
            base=times[floor],
            to=floor.name,
        )
        for target in targets
    ]
    ours, bare = (rows[targets.index(t)].median for t in (contenders.gateway, floor))
    later = Row(
        "first streamed byte: gateway later than floor by", ours - bare, 0, "ms", target="<= 0.5 ms"
    )
    return [*rows, later]
