"""Control plane and gateways: how fast a change is everywhere, and what it costs.

The control plane is a process of its own (SQLite), the gateways are two others; all see one clock.
CPU figures hold while other work is on the machine; times hold on a quiet one.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.remote_talk import Peer, started
from benchmarks.table import Row, row, spread

GATEWAYS = 100
PROCESSES = 2  # that have them
CHANGES = 120
WATCHERS = 1000
IDLE = 60.0  # seconds
PROVIDERS = 500
RELOADS = 15


def run() -> list[Row]:
    """Measure all of it."""
    with _folder() as (folder, plane):
        rows = _convergence(plane, folder)
    with _folder() as (folder, plane):
        rows += _watchers(plane, folder)
    with _folder() as (folder, plane):
        rows += _reloads(plane, folder)
    return rows


@contextmanager
def _folder() -> Iterator[tuple[Path, Peer]]:
    with tempfile.TemporaryDirectory() as name, started("remote_plane", name) as plane:
        yield Path(name), plane


def _many(kind: str, count: int, plane: Peer, folder: Path) -> list[str]:
    return ["remote_gateways", kind, str(count), plane.greeting, str(folder)]


def _convergence(plane: Peer, folder: Path) -> list[Row]:
    """Change providers, and see when each of many gateways serves the change."""
    plane.ask("fill", 10)
    with ExitStack() as stack:
        processes = [
            stack.enter_context(started(*_many("gateway", GATEWAYS // PROCESSES, plane, folder)))
            for _ in range(PROCESSES)
        ]
        everyone = (plane, *processes)
        plane.ask("wait_sessions", GATEWAYS)
        plane.ask("changes", 5)  # warms up
        before = [peer.ask("usage")["cpu"] for peer in everyone]
        begun = time.monotonic()
        made = plane.ask("changes", CHANGES)
        took = time.monotonic() - begun
        after = [peer.ask("usage")["cpu"] for peer in everyone]
        first, last = [], []
        for revision, committed in made:
            served = [when for peer in processes for when in peer.ask("times", revision)]
            first.append((min(served) - committed) * 1e3)
            last.append((max(served) - committed) * 1e3)
        # What both use when nothing changes is not a change's.
        idle = [peer.ask("usage")["cpu"] for peer in everyone]
        time.sleep(took / 4)
        idle = [
            (peer.ask("usage")["cpu"] - since) * 4
            for peer, since in zip(everyone, idle, strict=True)
        ]
    each = [
        (end - begin - rest) / CHANGES / GATEWAYS * 1e6
        for begin, end, rest in zip(before, after, idle, strict=True)
    ]
    name = f"commit to the last of {GATEWAYS} gateways serving"
    p99 = statistics.quantiles(last, n=100, method="inclusive")[98]
    return [
        row(f"commit to the first of {GATEWAYS} gateways serving", first, "ms", target="<= 5 ms"),
        row(f"{name}, p50", last, "ms", target="<= 35 ms"),
        Row(f"{name}, p99", p99, 0, "ms", target="<= 100 ms"),
        Row(f"{name}, worst of {CHANGES}", max(last), 0, "ms"),
        Row("CPU of the control plane, a gateway and change", each[0], 0, "us", target="<= 300 us"),
        Row("CPU of a gateway, a change", sum(each[1:]), 0, "us"),
    ]


def _watchers(plane: Peer, folder: Path) -> list[Row]:
    """Connect many, and leave them alone."""
    plane.ask("fill", 10)
    with started(*_many("watcher", 20, plane, folder)):
        plane.ask("wait_sessions", 20)  # what every process has once is not a watcher's
    plane.ask("wait_sessions", 0)
    time.sleep(1)
    alone_memory = plane.ask("memory")["memory"]
    alone = _shares_of_a_core(plane)
    with started(*_many("watcher", WATCHERS, plane, folder)):
        plane.ask("wait_sessions", WATCHERS)
        time.sleep(3)
        memory = plane.ask("memory")["memory"]
        shares = _shares_of_a_core(plane)
    more = [share - statistics.median(alone) for share in shares]
    return [
        Row(f"memory of the control plane, of {WATCHERS:,} watchers each",
            (memory - alone_memory) / WATCHERS, 0, "kB", target="<= 60 kB"),
        row("CPU of an idle control plane without watchers", alone, "% core"),
        row(f"CPU of an idle control plane with {WATCHERS:,} watchers", shares, "% core"),
        row(f"CPU of {WATCHERS:,} idle watchers", more, "% core", target="<= 0.5 % core"),
    ]  # fmt: skip


def _shares_of_a_core(plane: Peer) -> list[float]:
    """Return the CPU of an idle control plane in each of some spans of time."""
    shares = []
    for _ in range(3):
        begun, before = time.monotonic(), plane.ask("usage")
        time.sleep(IDLE / 3)
        took, after = time.monotonic() - begun, plane.ask("usage")
        shares.append((after["cpu"] - before["cpu"]) / took * 100)
    return shares


def _reloads(plane: Peer, folder: Path) -> list[Row]:
    """Reload many providers in one gateway, all of them new or one."""
    plane.ask("fill", PROVIDERS)
    rows = []
    with started(*_many("keeper", 1, plane, folder)) as gateway:
        plane.ask("wait_sessions", 1)
        for what in ("all", "one"):
            spent: list[float] = []
            longest: list[float] = []
            walls: list[float] = []
            for turn in range(-1, RELOADS):
                gateway.ask("begin_loop")
                if what == "all":
                    revision = plane.ask("fill", PROVIDERS)
                else:
                    revision = plane.ask("changes", 1)[0][0]
                figures = gateway.ask("end_loop", revision)
                if turn < 0:
                    continue  # it warms up
                for samples, figure in zip((spent, longest, walls), figures, strict=True):
                    samples.append(figure * 1e3)
            name = f"{what} of {PROVIDERS} providers changed"
            rows += [
                row(f"{name}: loop time", spent, "ms", target="<= 20 ms"),
                row(f"{name}: longest stall", longest, "ms", target="<= 5 ms"),
                Row(f"{name}: longest stall, worst of {RELOADS}", max(longest), 0, "ms"),
                Row(f"{name}: longest stall by the clock", statistics.median(walls),
                    spread(walls), "ms"),
            ]  # fmt: skip
    return rows
