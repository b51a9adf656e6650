"""The demo itself: one gateway, two simulated upstreams, one provider file that changes.

Everything is real but the upstreams' wits: sockets, HTTP, the file and its watcher, the pool.
Each claim printed at the end is checked against what the clients saw; the exit status says so.
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
from bridgepool.gateway.demo._client import Seen
from bridgepool.gateway.demo._screen import Screen
from bridgepool.gateway.demo._stage import Play, Stage
from bridgepool.gateway.demo._upstream import WORDS, serve_simulated_upstream
from bridgepool.gateway.providers import open_provider_file
from bridgepool.gateway.serving._listening import listener_url
from bridgepool.http import GracefulClose, serve_http


def _whole(seen: Seen, server: str) -> bool:
    """Tell whether a stream came complete, and all of it from one server."""
    return seen.finished and not seen.cut and seen.words == list(WORDS) and seen.servers == {server}


async def _replace(play: Play) -> None:
    """A provider moves while a stream runs, then is switched off while two run."""
    stage = play.stage
    stage.screen.act(
        "1  A provider moves in mid-stream, then is switched off", "ada", "ben", "cleo"
    )
    async with trio.open_nursery() as clients:
        ada = await play.begin(clients, "ada")
        await play.change("writer moves from north to south", stage.south)
        ben = await play.begin(clients, "ben")
        side_by_side = not ada.finished
        await play.change("writer is switched off", stage.south, enabled=False)
        cleo = await play.ask("cleo")
        both_running = not ada.finished and not ben.finished
        stage.last_word.set()
    stage.claim(
        "ada's stream began before the change and finished, whole, on north", _whole(ada, "north")
    )
    stage.claim(
        "ben's began after it and came, whole, from south", _whole(ben, "south"), side_by_side
    )
    stage.claim(
        "cleo was refused, provider_disabled, while both were still streaming",
        (cleo.status, cleo.error) == (503, "provider_disabled"),
        both_running,
    )


async def _break(play: Play) -> None:
    """An upstream dies under a stream; a bad edit changes nothing; a good one heals."""
    stage = play.stage
    stage.screen.act("2  An upstream dies; a bad edit; a good edit", "dan", "eve", "fay", "gus")
    stage.last_word = trio.Event()
    await play.change("writer is back, on south", stage.south)
    async with trio.open_nursery() as clients:
        dan = await play.begin(clients, "dan")
        eve = await play.begin(clients, "eve", "anthropic")
        stage.screen.change("south dies", "bad")
        stage.south.scope.cancel()
        fay = await play.ask("fay")
        before = play.generation
        problem = await play.spoil_file()
        kept = play.generation == before
        await play.change("writer moves to north", stage.north)
        stage.last_word.set()
        gus = await play.ask("gus")
    stage.claim(
        "dan's stream was cut visibly: an error that SDKs know, and no end",
        dan.cut and not dan.finished and dan.error == "upstream_cut",
    )
    stage.claim("eve, on the other provider, noticed nothing", _whole(eve, "north"))
    stage.claim("fay was told 502", (fay.status, fay.error) == (502, "upstream_unreachable"))
    stage.claim(
        "the half-written file was refused with its line, and nothing changed",
        kept and "line 3" in problem,
    )
    stage.claim("gus was served by north after one saved file", _whole(gus, "north"))


def _count(play: Play) -> None:
    counted = play.gateway.pool.statistics()
    facts = {
        "generation": counted.generation,
        "acquires": counted.hits + counted.misses + counted.joins,
        "found": counted.hits,
        "built": counted.misses,
        "replaced": counted.retired.get(RetireReason.REPLACED, 0),
        "leased": counted.leased,
        "draining": counted.draining,
        "forced closes": counted.forced_closes,
        "close overruns": counted.close_overruns,
    }
    play.stage.screen.act("The pool's statistics")
    play.stage.screen.text("  ".join(f"{name} {value}" for name, value in facts.items()))
    play.stage.claim(
        "nothing was closed under a request, and nothing is left over",
        not any((counted.forced_closes, counted.close_overruns, counted.leased, counted.draining)),
    )


async def _play(stage: Stage) -> bool:
    """Open the gateway on the file, play every act, tell whether every claim held."""
    stage.write(stage.north)
    async with (
        open_provider_file(stage.file) as source,
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
        play = Play(stage, gateway, listener_url(listeners[0]))
        stage.screen.title("bridgepool demo")
        stage.screen.text(
            f"A gateway on {play.url} reads providers.toml. Two simulated upstreams, north and "
            "south, can be its provider `writer`; `critic` is always north. Each client streams "
            "one answer of seven words; a word shows who sent it."
        )
        await _replace(play)
        await _break(play)
        await gateway.pool.wait_drained(gateway.pool.generation - 1)
        _count(play)
        graceful.begin(within=5)
    stage.screen.act("What was true")
    for text, holds in stage.claims:
        stage.screen.check(text, holds=holds)
    return all(holds for _, holds in stage.claims)


async def _main(pace: float) -> bool:
    with tempfile.TemporaryDirectory(prefix="bridgepool-demo-") as folder:
        async with trio.open_nursery() as upstreams:
            north = await upstreams.start(serve_simulated_upstream, "north")
            south = await upstreams.start(serve_simulated_upstream, "south")
            stage = Stage(Screen(), Path(folder) / "providers.toml", north, south, pace)
            held = await _play(stage)
            upstreams.cancel_scope.cancel()
    return held


def run_demo(pace: float) -> int:
    """Run the demo and return the exit status: 0 if everything it claims was true.

    Args:
        pace: Seconds from word to word of the simulated answers.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without ✓ is no reason to fail
    # The story tells what happens; the log would tell it twice.
    logging.getLogger("bridgepool").addHandler(logging.NullHandler())
    return 0 if trio.run(_main, pace) else 1
