"""What some clients do to the others: a greedy one, idle ones, bursts, mass timeouts.

The gateway is a process on one core; the upstream and the clients have the other one. What is
promised of the others is a ratio to the same run without the crowd, or to a plain proxy.

Run it with `python -m benchmarks fairness`.
"""

import os
import resource
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
import trio

from benchmarks.contenders import PROVIDERS, Starter
from benchmarks.crowd import Address, Crowd, open_crowd, percentile
from benchmarks.table import Row, row
from benchmarks.upstream import END, EVENT
from bridgepool.gateway.commands._programs import client_row
from bridgepool.http import Exchange, HttpLimits, serve_http

OTHERS = 8  # clients whose answers are timed
QUIET_SECONDS = 4.0
ROUNDS = 5
HELD = 2100  # requests of the greedy client: its share of connections and waiting places, and more
IDLE = 10_000
TIMED_OUT = 2000
BURST = 1000
BUSY = 32
STREAMS = 512
_MAX_BURST_SECONDS = 60.0


@attrs.frozen
class _Gateway:
    port: int
    address: Address | None
    """Where it listens beside loopback; None if this machine has no other address."""
    keys: tuple[str, str]
    floor_port: int


def run() -> list[Row]:
    """Measure, and return the rows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    rows = []
    for measure in (_greedy_client, _idle_connections, _burst, _closed_loop, _streams):
        print(f"  {measure.__name__.strip('_')} ...", file=sys.stderr, flush=True)
        rows += measure()
    return rows + _mass_timeouts()


@contextmanager
def _running() -> Iterator[_Gateway]:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        starter = Starter(folder, stack)
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(allowed)})  # with the upstream; the gateway has the other core
        stack.callback(os.sched_setaffinity, 0, allowed)
        _, upstream = starter.start_module("upstream", core=0)
        _, floor = starter.start_module("floor_batched_proxy", str(upstream))
        rows, keys = zip(*(client_row(name) for name in ("greedy", "other")), strict=True)
        providers = folder / "providers.toml"
        providers.write_text(PROVIDERS.format(upstream=upstream, client="\n".join(rows)))
        own, outside = _own_address(), None
        listens = ["--listen", "127.0.0.1:0"]
        if own:
            with socket.create_server((own, 0)) as free:
                outside = own, free.getsockname()[1]
            listens = ["--listen", f"{own}:{outside[1]}", *listens]
        _, port = starter.start(
            *(sys.executable, "-m", "bridgepool", "gateway", "--providers", str(providers)),
            *(*listens, "--access-log", str(folder / "access.log")),
            lines=len(listens) // 2,
        )
        yield _Gateway(port, outside, (keys[0].reveal(), keys[1].reveal()), floor)


def _own_address() -> str:
    """Return an address of this machine that is not loopback; empty if there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))  # sends nothing
        except OSError:
            return ""
        address: str = probe.getsockname()[0]
        return "" if address.startswith("127.") else address


def _request(path: str, key: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\n\r\n".encode()


def _plain(key: str, path: str = "/bench/v1/models") -> tuple[bytes, bytes]:
    """Return a request, and what its answer ends with."""
    return _request(path, key), b'x"}'


def _others(
    gateway: _Gateway, crowd: Crowd, meanwhile: Callable[[], None] = lambda: None
) -> list[float]:
    """Return the milliseconds of the answers to the other clients."""
    request, ends = _plain(gateway.keys[1])
    others = [crowd.add(("127.0.0.1", gateway.port), request, ends) for _ in range(OTHERS)]
    crowd.run(0.5)  # warm up
    began = time.perf_counter()
    while time.perf_counter() < began + QUIET_SECONDS:
        crowd.run(0.1)
        meanwhile()
    for other in others:
        other.asks_again = False
    crowd.run(0.2)
    return [took * 1e3 for other in others for at, took in other.answered if at > began]


def _beside_quiet(name: str, quiet: list[list[float]], loud: list[list[float]]) -> Row:
    tails = [[percentile(samples, 0.99) for samples in rounds] for rounds in (quiet, loud)]
    return row(
        f"p99 of {OTHERS} others: {name}",
        tails[1],
        "ms",
        base=tails[0],
        to="the quiet gateway",
        target="<= 2 x",
        in_turn=True,
    )


def _greedy_client() -> list[Row]:
    """One client holds all connections and waiting places that it gets, and asks for more."""
    quiet: list[list[float]] = []
    loud: list[list[float]] = []
    got: list[float] = []
    for _ in range(ROUNDS):
        with _running() as gateway, open_crowd() as crowd:
            quiet.append(_others(gateway, crowd))
            target = ("127.0.0.1", gateway.port)
            hold = _request("/bench/v1/models?hold", gateway.keys[0])
            held = []
            for number in range(HELD):
                held.append(crowd.add(target, hold, b"never"))
                if number % 20 == 0:
                    crowd.run(0.01)
            crowd.run(2.0)
            loud.append(_others(gateway, crowd))
            got.append(sum(one.status == b"200" for one in held))
    rows = [row(f"p99 of {OTHERS} others: quiet", [percentile(one, 0.99) for one in quiet], "ms")]
    return [
        *rows,
        _beside_quiet(f"{HELD:,} held requests of one client", quiet, loud),
        row("of them, that got a connection", got, "requests"),
    ]


def _idle_connections() -> list[Row]:
    """One address opens ten thousand connections, and says nothing."""
    quiet: list[list[float]] = []
    loud: list[list[float]] = []
    kept: list[float] = []
    for _ in range(ROUNDS):
        with _running() as gateway, open_crowd() as crowd:
            if gateway.address is None:
                return []  # loopback has no limit of its own
            quiet.append(_others(gateway, crowd))
            idle = []
            for number in range(IDLE):
                idle.append(crowd.add(gateway.address, b"", b"never"))
                if number % 100 == 0:
                    crowd.run(0.01)
            crowd.run(3.0)  # those over the limit are closed by now
            loud.append(_others(gateway, crowd))
            kept.append(sum(not one.closed for one in idle))
    return [
        _beside_quiet(f"{IDLE:,} idle connections of one address", quiet, loud),
        row("of them, kept open for a while", kept, "connections"),
    ]


def _first_answers(port: int, path: str, key: str) -> float:
    """Return the seconds until the last of a burst of clients has its first answer."""
    with open_crowd() as crowd:
        request, ends = _plain(key, path)
        target = ("127.0.0.1", port)
        for _ in range(BUSY):
            crowd.add(target, request, ends)
        crowd.run(1.0)
        burst = [crowd.add(target, request, ends) for _ in range(BURST)]
        began = time.perf_counter()
        while not all(one.answered for one in burst):
            crowd.step(1.0)
            if time.perf_counter() > began + _MAX_BURST_SECONDS:
                break
        return max(one.first_answer or _MAX_BURST_SECONDS for one in burst)


def _burst() -> list[Row]:
    """A thousand clients connect at once, beside some that are busy; all keep asking."""
    floor: list[float] = []
    ours: list[float] = []
    for _ in range(ROUNDS):
        with _running() as gateway:
            floor.append(_first_answers(gateway.floor_port, "/v1/models", gateway.keys[1]))
            ours.append(_first_answers(gateway.port, "/bench/v1/models", gateway.keys[1]))
    name = f"{BURST:,} connect at once: the last first answer"
    plain = "a plain proxy, batched accepts"
    return [
        row(f"{name}, {plain}", floor, "s"),
        row(f"{name}, gateway", ours, "s", base=floor, to=plain, target="<= 3 x", in_turn=True),
    ]


def _closed_loop() -> list[Row]:
    """A thousand clients keep asking."""
    middle: list[float] = []
    tail: list[float] = []
    for _ in range(ROUNDS):
        with _running() as gateway, open_crowd() as crowd:
            request, ends = _plain(gateway.keys[1])
            askers = [crowd.add(("127.0.0.1", gateway.port), request, ends) for _ in range(BURST)]
            crowd.run(3.0)
            began = time.perf_counter()
            crowd.run(QUIET_SECONDS)
            took = [ms for one in askers for at, ms in one.answered if at > began]
            middle.append(percentile(took, 0.5) * 1e3)
            tail.append(percentile(took, 0.99) * 1e3)
    name = f"closed loop of {BURST:,} clients"
    return [
        row(f"{name}, p50", middle, "ms"),
        row(f"{name}, p99", tail, "ms", base=middle, to="p50", target="<= 4 x", in_turn=True),
    ]


def _streams() -> list[Row]:
    """Streams are opened within a second, each on a new connection."""
    samples: list[float] = []
    for _ in range(ROUNDS):
        with _running() as gateway, open_crowd() as crowd:
            target = ("127.0.0.1", gateway.port)
            warm, ends = _plain(gateway.keys[1])
            crowd.add(target, warm, ends, again=False)
            crowd.run(0.2)
            stream = _request("/bench/v1/models?hold", gateway.keys[1])
            began = time.perf_counter()
            opened = []
            for number in range(STREAMS):
                opened.append(crowd.add(target, stream, EVENT + END, again=False))
                crowd.run(began + (number + 1) / STREAMS - time.perf_counter())
            crowd.run(2.0)
            samples.append(percentile([one.first_byte * 1e3 for one in opened], 0.99))
    name = f"{STREAMS} streams opened within a second: first byte, p99"
    return [row(name, samples, "ms", target="<= 60 ms")]


def _mass_timeouts() -> list[Row]:
    """Connections time out together; in this process, so that a stall can be told from waiting."""
    stalls: list[float] = []
    by_the_clock: list[float] = []
    for _ in range(ROUNDS):
        cpu, clock = trio.run(_longest_stall)
        stalls.append(cpu * 1e3)
        by_the_clock.append(clock * 1e3)
    name = f"longest stall while {TIMED_OUT:,} connections time out"
    return [
        row(name, stalls, "ms", target="<= 20 ms"),
        row(f"{name}, by the clock", by_the_clock, "ms"),
    ]


async def _longest_stall() -> tuple[float, float]:
    """Return the longest wait of a task for its turn: seconds of CPU, and by the clock."""

    async def never_asked(_: Exchange) -> None:
        raise AssertionError("nobody asks")

    limits = HttpLimits(header_timeout=3.0)
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=4096)
    with ExitStack() as stack:
        async with trio.open_nursery() as nursery:

            async def serve(task_status: trio.TaskStatus[object]) -> None:
                await serve_http(never_asked, [listener], limits=limits, task_status=task_status)

            await nursery.start(serve)
            address = listener.socket.getsockname()
            clients = [
                stack.enter_context(socket.create_connection(address)) for _ in range(TIMED_OUT)
            ]
            await trio.sleep(1.0)
            longest_cpu = longest_clock = 0.0
            deadline = trio.current_time() + 4.0
            while trio.current_time() < deadline:
                cpu, clock = time.thread_time(), time.perf_counter()
                await trio.lowlevel.checkpoint()
                longest_cpu = max(longest_cpu, time.thread_time() - cpu)
                longest_clock = max(longest_clock, time.perf_counter() - clock)
            closed = sum(client.recv(1, socket.MSG_DONTWAIT) == b"" for client in clients)
            if closed != TIMED_OUT:
                raise RuntimeError(f"only {closed} connections timed out")
            nursery.cancel_scope.cancel()
    return longest_cpu, longest_clock
