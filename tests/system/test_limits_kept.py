"""Limits over two gateways and a control plane, each of them a process, and killed."""

from __future__ import annotations

import math
import signal
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import trio

from bridgepool.gateway.control.store import budgets_of
from bridgepool.gateway.demo._upstream import SimulatedUpstream
from tests.e2e.process import GatewayProcess
from tests.system.asking import Front, Home
from tests.system.rig import make_home, open_home_store, open_plane, run_front, run_plane

TOKENS = 8  # that an answer of the simulated upstream tells


async def set_rules(home: Home, **rules: object) -> None:
    [client] = (await home.api("GET", "clients"))["clients"]
    await home.api("PATCH", f"clients/{client['id']}", {"rules": rules})


async def ask_both(
    fronts: list[Front], seconds: float = math.inf, *, served: float = math.inf
) -> Counter[object]:
    """Ask two gateways, as fast as they answer; return codes, None for success.

    For some seconds, or until so many requests were served.
    """
    codes: Counter[object] = Counter()

    async def ask(front: Front) -> None:
        while codes[None] < served:
            answer = await front.ask()
            assert (answer.status == 200) == (answer.code is None)
            codes[answer.code] += 1
            if answer.code is not None:
                await trio.sleep(0.05)

    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for front in fronts:
                nursery.start_soon(ask, front)
    return codes


async def kill(*programs: GatewayProcess) -> None:
    for program in programs:
        program.signal(signal.SIGKILL)
        await program.wait()


async def test_two_gateways_keep_a_limit_whatever_is_killed(
    tmp_path: Path, north: SimulatedUpstream
) -> None:
    home = await make_home(tmp_path)
    with trio.fail_after(100):
        async with AsyncExitStack() as stack:

            async def start_plane() -> GatewayProcess:
                return await stack.enter_async_context(run_plane(home))

            async def start_gateways() -> tuple[list[Front], list[GatewayProcess]]:
                started = [
                    await stack.enter_async_context(run_front(home, *home.standalone()))
                    for _ in range(2)
                ]
                for front, _ in started:
                    await front.wait_ready(ready=True, connected=True)
                return [front for front, _ in started], [program for _, program in started]

            # A budget: also when everything is started anew, with nothing in memory.
            plane = await start_plane()
            await home.add("ai", north)
            await set_rules(home, tokens_per_day=1000)
            fronts, gateways = await start_gateways()
            codes = await ask_both(fronts, served=500 / TOKENS)
            spent = codes[None] * TOKENS
            assert spent <= 1000 * 1.05
            await kill(plane, *gateways)
            plane = await start_plane()
            fronts, gateways = await start_gateways()
            while True:
                codes = await ask_both(fronts, 1)
                spent += codes[None] * TOKENS
                assert spent <= 1000 * 1.05
                if codes and not codes[None]:
                    break
            assert set(codes) <= {"budget_exceeded", "rate_limited"}
            assert spent >= 0.75 * 1000  # what was held when all of it was killed is lost

            # A rate: while the control plane is away, and after its start.
            await set_rules(home, tokens_per_day=None, requests_per_minute=120)
            began, done = trio.current_time(), 0
            for away in (False, True, False):
                if away:
                    await kill(plane)
                codes = await ask_both(fronts, 1.5)
                done += codes[None]
                assert set(codes) <= {None, "rate_limited", "budget_exceeded"}
                assert done <= 1.05 * 120 * (1 + (trio.current_time() - began) / 60)
                if away:
                    plane = await start_plane()
                    for front in fronts:
                        await front.wait_ready(connected=True)
            assert done >= 2  # the killed control plane has its part for half a minute


async def test_what_a_program_used_just_before_sigterm_is_charged(
    tmp_path: Path, north: SimulatedUpstream
) -> None:
    """It reported each second, and what came after the last report was served for nothing."""
    home = await make_home(tmp_path)
    with trio.fail_after(100):
        async with open_plane(home) as plane:
            with plane.hub.subscribe() as moved:
                await home.add("ai", north)
                await set_rules(home, tokens_per_month=100_000)
                while plane.hub.revisions != await plane.store.revisions():
                    await moved.receive()
            async with run_front(home, *home.standalone()) as (front, gateway):
                await front.wait_outcome("north")
                for _ in range(5):
                    assert (await front.ask()).status == 200
                gateway.signal(signal.SIGTERM)
                signalled = trio.current_time()
                assert await gateway.wait() == 0
                took = trio.current_time() - signalled
        async with open_home_store(home) as store:
            [client] = await store.list_clients()
            [budget] = await budgets_of(store).list_of(client)
    # On a machine that is too slow for that, it has ended without an answer, after 1.5 seconds.
    assert budget.spent == TOKENS * len(north.received) or took > 1.4
