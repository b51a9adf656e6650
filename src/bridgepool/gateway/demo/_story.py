"""The demo: one gateway, two simulated upstreams, one provider file that changes.

Everything except the upstreams' answers is real: sockets, HTTP, the file and its watcher, the pool.
Each claim that is printed at the end is checked against the data that the clients received; the
exit status is 1 if one is false.
"""

from __future__ import annotations

import io
import logging
import sys
import tempfile
from functools import partial
from pathlib import Path

import trio

from bridgepool import RetireReason
from bridgepool.gateway import GatewaySettings, open_gateway
from bridgepool.gateway.demo._scenario import Scenario, StreamRecord, write_providers
from bridgepool.gateway.demo._screen import Screen
from bridgepool.gateway.demo._upstream import WORDS, SimulatedUpstream, serve_simulated_upstream
from bridgepool.gateway.providers import open_provider_file
from bridgepool.gateway.serving._listening import listener_url
from bridgepool.http import GracefulClose, serve_http


def _whole(seen: StreamRecord, server: str) -> bool:
    """Return whether a stream is complete and came from one server."""
    return seen.finished and not seen.cut and seen.words == list(WORDS) and seen.servers == {server}


async def _replace(scenario: Scenario) -> None:
    """Move a provider while a stream runs, then disable it while two run."""
    scenario.screen.section(
        "1  A provider moves during a stream, then is disabled", "ada", "ben", "cleo"
    )
    async with trio.open_nursery() as clients:
        ada = await scenario.start_stream(clients, "ada")
        await scenario.change("writer moves from north to south", scenario.south)
        ben = await scenario.start_stream(clients, "ben")
        side_by_side = not ada.finished
        await scenario.change("writer is disabled", scenario.south, enabled=False)
        cleo = await scenario.stream("cleo")
        both_running = not ada.finished and not ben.finished
        scenario.last_word.set()
    scenario.claim(
        "ada's stream began before the move and was completed by north", _whole(ada, "north")
    )
    scenario.claim(
        "ben's stream began after the move and was completed by south",
        _whole(ben, "south"),
        side_by_side,
    )
    scenario.claim(
        "cleo got 503 provider_disabled while both were still streaming",
        (cleo.status, cleo.error) == (503, "provider_disabled"),
        both_running,
    )


async def _break(scenario: Scenario) -> None:
    """Kill an upstream during a stream, then make an invalid edit and a valid one."""
    scenario.screen.section(
        "2  An upstream dies; an invalid edit; a valid edit", "dan", "eve", "fay", "gus"
    )
    scenario.last_word = trio.Event()
    await scenario.change("writer is enabled again, on south", scenario.south)
    async with trio.open_nursery() as clients:
        dan = await scenario.start_stream(clients, "dan")
        eve = await scenario.start_stream(clients, "eve", "anthropic")
        scenario.screen.change("south dies", "bad")
        scenario.south.scope.cancel()
        fay = await scenario.stream("fay")
        before = scenario.generation
        problem = await scenario.write_invalid_file()
        kept = scenario.generation == before
        await scenario.change("writer moves to north", scenario.north)
        scenario.last_word.set()
        gus = await scenario.stream("gus")
    scenario.claim(
        "dan's stream was visibly cut: the SDKs' error event, and no end",
        dan.cut and not dan.finished and dan.error == "upstream_cut",
    )
    scenario.claim("eve's stream, on the other provider, was complete", _whole(eve, "north"))
    scenario.claim(
        "fay got 502 upstream_unreachable",
        (fay.status, fay.error) == (502, "upstream_unreachable"),
    )
    scenario.claim(
        "the invalid file was refused, its line was named, and nothing changed",
        kept and "line 3" in problem,
    )
    scenario.claim("gus was served by north after the valid edit", _whole(gus, "north"))


def _count(scenario: Scenario) -> None:
    counted = scenario.gateway.pool.statistics()
    facts = {
        "generation": counted.generation,
        "hits": counted.hits,
        "misses": counted.misses,
        "joins": counted.joins,
        "retired": counted.retired.get(RetireReason.REPLACED, 0),
        "leased": counted.leased,
        "draining": counted.draining,
        "forced closes": counted.forced_closes,
        "close overruns": counted.close_overruns,
    }
    scenario.screen.section("The pool's statistics")
    scenario.screen.text("  ".join(f"{name} {value}" for name, value in facts.items()))
    scenario.claim(
        "no bridge was closed under a request, and no lease or retired bridge is left",
        not any((counted.forced_closes, counted.close_overruns, counted.leased, counted.draining)),
    )


async def _run(
    folder: Path, north: SimulatedUpstream, south: SimulatedUpstream, pace: float
) -> bool:
    """Open the gateway on the file, run every section, return whether every claim held."""
    file = folder / "providers.toml"
    write_providers(file, north, north)
    async with (
        open_provider_file(file) as source,
        open_gateway(
            source,
            source.changes,
            first=await source.reload(),
            settings=GatewaySettings(allow_anonymous=True),
        ) as gateway,
        trio.open_nursery() as nursery,
    ):
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        graceful = GracefulClose()
        await nursery.start(partial(serve_http, gateway.handle, listeners, graceful=graceful))
        screen, url = Screen(), listener_url(listeners[0])
        scenario = Scenario(screen, file, north, south, pace, gateway, url)
        screen.title("bridgepool demo")
        screen.text(
            f"A gateway on {url} reads providers.toml. Two simulated upstreams, north and "
            "south, can be its provider `writer`; `critic` is always north. Each client streams "
            "one answer of seven words, each with the name of its upstream."
        )
        await _replace(scenario)
        await _break(scenario)
        await gateway.pool.wait_drained(gateway.pool.generation - 1)
        _count(scenario)
        graceful.begin(within=5)
    screen.section("Results")
    for text, holds in scenario.claims:
        screen.check(text, holds=holds)
    return all(holds for _, holds in scenario.claims)


async def _main(pace: float) -> bool:
    with tempfile.TemporaryDirectory(prefix="bridgepool-demo-") as folder:
        async with trio.open_nursery() as upstreams:
            north = await upstreams.start(serve_simulated_upstream, "north")
            south = await upstreams.start(serve_simulated_upstream, "south")
            held = await _run(Path(folder), north, south, pace)
            upstreams.cancel_scope.cancel()
    return held


def run_demo(pace: float) -> int:
    """Run the demo and return the exit status: 0 if all its claims are true.

    Args:
        pace: Seconds from word to word of the simulated answers.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without ✓ is no reason to fail
    # The demo prints what happens; the log would repeat it.
    logging.getLogger("bridgepool").addHandler(logging.NullHandler())
    return 0 if trio.run(_main, pace) else 1
