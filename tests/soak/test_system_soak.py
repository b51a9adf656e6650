"""A whole system under load: nothing is cut by a change, no usage is wrong, lost or doubled."""

from __future__ import annotations

import itertools
import os
import signal
from collections import Counter, defaultdict
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from bridgepool import BridgePoolError
from tests.e2e.process import GatewayProcess
from tests.soak.run import Run
from tests.soak.socket_load import SocketClients, Told
from tests.soak.system_load import Clients, PacedUpstream
from tests.system.asking import Front, Home
from tests.system.rig import make_home, run_front, run_plane

STREAMS = 200
SOCKETS = 50
REPLACEMENTS = 20  # a second
DRAIN = 10  # seconds
KEYS = 5
RULES = {
    "models": ["m*"],
    "providers": ["ai", "stand-in"],
    "requests_per_minute": 10_000_000,
    "tokens_per_minute": 10_000_000_000,
    "max_concurrent": 100_000,
}


@attrs.define(eq=False)
class Changes:
    """Changes of the providers all the time, as far as there is a control plane."""

    home: Home
    keys: list[str] = attrs.field(factory=lambda: [f"sk-soak-{number}" for number in range(KEYS)])
    """The keys of the provider; each leaves after a while, and another comes."""
    made: int = 0
    failed: int = 0
    plane_up: bool = True

    async def run(self) -> None:
        """Change a header of one provider and the keys of the other, on schedule."""
        start, number = trio.current_time(), 0
        while True:
            number += 1
            await trio.sleep_until(start + number / REPLACEMENTS)  # the load is paced
            if not self.plane_up:
                continue
            try:
                await self._change(number)
                self.made += 1
            except (AssertionError, BridgePoolError):  # its answer, or its connection
                if self.plane_up:
                    raise
                self.failed += 1

    async def _change(self, number: int) -> None:
        headers = {"x-soak": str(number)}
        if number % 20 == 0:
            self.keys = [*self.keys[1:], f"sk-soak-{KEYS + number}"]
        if number % 5 == 0:
            turn = number // 5 % KEYS
            keys = [{"value": key} for key in self.keys[turn:] + self.keys[:turn]]
            await self.home.change("ai", headers=headers, keys=keys)
        else:
            await self.home.change("ai" if number % 2 else "stand-in", headers=headers)

    async def refuse_keys(self, upstream: PacedUpstream) -> None:
        """Let one key after the other be rate-limited, and refuse one now and then."""
        for number in itertools.count():
            refusing = upstream.refused if number % 4 == 3 else upstream.limited
            key = self.keys[number % KEYS].encode()
            refusing.add(key)
            await trio.sleep(0.7)  # the load is paced
            refusing.discard(key)
            await trio.sleep(0.3)


async def records_of(home: Home) -> list[dict[str, Any]]:
    """Return all records of the store, by the API."""
    page = await home.api("GET", "usage/records?limit=1000")
    found: list[dict[str, Any]] = list(page["records"])
    while page["next"] is not None:
        page = await home.api("GET", f"usage/records?limit=1000&before_id={page['next']}")
        found += page["records"]
    return found


async def set_up(home: Home, changes: Changes, main: PacedUpstream, other: PacedUpstream) -> str:
    """Make the providers and the clients; return the key of the websockets' client."""
    common: dict[str, object] = {
        "type": "openai", "allow_private": True, "headers": {"x-soak": "0"},
        "key_policy": "round_robin", "max_concurrent": 1000,
    }  # fmt: skip
    [client] = (await home.api("GET", "clients"))["clients"]
    await home.api("PATCH", f"clients/{client['id']}", {"rules": RULES})
    made = await home.api("POST", "clients", {"id": "sockets"})
    stand_in = {"name": "stand-in", "base_url": other.base_url, "keys": [{"value": "sk-soak-z"}]}
    await home.api("POST", "providers", common | stand_in)
    recovery = {"breaker": True, "breaker_open": 1.0, "retries": 2, "fallback": ["stand-in"]}
    keys = {"keys": [{"value": key} for key in changes.keys]}
    draft = common | {"name": "ai", "base_url": main.base_url} | recovery | keys
    await home.api("POST", "providers", draft)
    key: str = made["key"]
    return key


@attrs.define(eq=False)
class System:
    """Gateway and control plane, which are killed and started again."""

    home: Home
    options: tuple[str, ...]
    changes: Changes
    stack: AsyncExitStack
    run: Run
    plane: GatewayProcess
    gateways: list[tuple[Front, GatewayProcess]] = attrs.field(factory=list)

    async def start_gateway(self) -> None:
        """Start a gateway, with what the one before has left."""
        front = await self.stack.enter_async_context(run_front(self.home, *self.options))
        self.gateways.append(front)
        await front[0].wait_ready(ready=True)
        self.run.gateway_back(front[0].url)

    async def start_plane(self) -> None:
        """Start a control plane."""
        self.plane = await self.stack.enter_async_context(run_plane(self.home))
        self.changes.plane_up = True

    async def kill_plane(self) -> None:
        """Kill the control plane."""
        self.changes.plane_up = False
        self.plane.signal(signal.SIGKILL)
        await self.plane.wait()

    async def kill_gateway(self) -> None:
        """Kill the gateway."""
        self.run.gateway_gone()
        gateway = self.gateways[-1][1]
        gateway.signal(signal.SIGKILL)
        await gateway.wait()

    async def stop_gateway(self) -> None:
        """End the gateway as an operator does, once it has its control plane."""
        front, gateway = self.gateways[-1]
        await front.wait_ready(connected=True)  # else its records stay in the spool
        await gateway.stop()


def id_of(record: dict[str, Any]) -> str:
    """Return the id of the response on a websocket that a record is of; else of the request."""
    response: str = record["response_id"]
    return response or str(record["request_id"])


@attrs.frozen
class Outcome:
    """What clients, upstreams and the store say after a run."""

    streams: Clients
    sockets: SocketClients
    told: dict[str, Told]
    """What the upstreams told each request, and each response on a websocket."""
    kept: list[dict[str, Any]]
    sums: list[dict[str, Any]]
    """Of the store, by client and provider."""

    @property
    def by_id(self) -> dict[str, dict[str, Any]]:
        """The records by the ids of what they are of."""
        return {id_of(record): record for record in self.kept}

    @property
    def lost(self) -> set[str]:
        """What ended before the gateway was killed, and has no record."""
        streams, sockets = self.streams, self.sockets
        return (streams.sealed | streams.cut | sockets.sealed) - self.by_id.keys()

    @property
    def doubled(self) -> list[str]:
        """What has more than one record."""
        count = Counter(id_of(record) for record in self.kept)
        return [id for id, times in count.items() if times > 1]

    @property
    def wrong(self) -> list[dict[str, Any]]:
        """Records that have other tokens than the upstream told, or are not whole, as it was."""
        by_id, whole = self.by_id, self.streams.whole | self.sockets.whole
        wrong = [
            record
            for id, record in by_id.items()
            if Told(record["input_tokens"] or 0, record["output_tokens"] or 0)
            != self.told.get(id, Told())
        ]
        return wrong + [by_id[id] for id in whole & by_id.keys() if not by_id[id]["complete"]]

    @property
    def wrong_sums(self) -> list[str]:
        """Sums of the store, by client and provider, that are not what the upstreams counted."""
        counted = defaultdict[tuple[str, str], Told](Told)
        for record in self.kept:
            told = self.told.get(id_of(record), Told())
            place = counted[record["client"], record["provider"]]
            place.input, place.output = place.input + told.input, place.output + told.output
        stored = {
            (row["client"], row["provider"]): Told(row["input_tokens"], row["output_tokens"])
            for row in self.sums
        }
        return [
            f"{key}: {stored.get(key)}, counted {counted[key]}"
            for key in stored.keys() | counted.keys()
            if stored.get(key) != counted[key]
        ]

    @property
    def unrecorded(self) -> set[str]:
        """What was told tokens, and has no record."""
        return {id for id, told in self.told.items() if told.input} - self.by_id.keys()

    @property
    def last_instant(self) -> set[str]:
        """What came whole, and after which the gateway was not seen to go on."""
        streams, sockets = self.streams, self.sockets
        return (streams.whole - streams.sealed) | (sockets.whole - sockets.sealed)

    def __str__(self) -> str:
        streams, sockets = self.streams, self.sockets
        last = self.last_instant - self.by_id.keys()
        return (
            f"{len(streams.whole)} whole streams, {len(streams.cut)} cut by their upstream, "
            f"{len(streams.killed)} by a killed gateway, {streams.fallbacks} by fallback; "
            f"{len(sockets.whole)} whole responses on {sockets.opened} websockets: "
            f"{sockets.restarted} closed at the drain deadline ({sockets.asked_again} asked "
            f"again), {len(sockets.cut)} cut by their upstream, {len(sockets.killed)} by a killed "
            f"gateway, handshakes refused {dict(sockets.refused)}; "
            f"{len(self.kept)} records, {len(self.lost)} lost, {len(last)} of the very last "
            f"instant without one, {len(self.doubled)} doubled, {len(self.wrong)} wrong, "
            f"{len(self.wrong_sums)} wrong sums of {len(self.sums)}"
        )


@pytest.mark.soak
async def test_a_system_under_load_cuts_nothing_and_counts_right_also_when_it_is_killed(
    tmp_path: Path, nursery: trio.Nursery, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = float(os.environ.get("SOAK_SECONDS", "60"))
    told = defaultdict[str, Told](Told)
    main = PacedUpstream(told)
    other = PacedUpstream(told, begun=main.begun, cut=main.cut)
    for upstream in (main, other):
        await nursery.start(upstream.serve)
    home = await make_home(tmp_path)
    options = (
        *home.standalone(), "--store-usage", "--usage-spool", str(tmp_path / "spool"),
        "--snapshot-file", str(tmp_path / "snapshot"), "--access-log", "none",
        "--drain-timeout", str(DRAIN), "--admin-listen", "127.0.0.1:0",
    )  # fmt: skip
    async with trio.open_nursery() as tasks, AsyncExitStack() as stack:
        plane = await stack.enter_async_context(run_plane(home))
        changes, run = Changes(home), Run("")
        system = System(home, options, changes, stack, run, plane)
        socket_key = await set_up(home, changes, main, other)
        await system.start_gateway()
        streams = Clients(run, home.client_key, main.cut)
        sockets = SocketClients(run, socket_key, main.begun, main.cut)
        changing, ended = trio.CancelScope(), trio.Event()

        async def change() -> None:
            with changing:
                async with trio.open_nursery() as changers:
                    changers.start_soon(changes.run)
                    changers.start_soon(changes.refuse_keys, main)

        async def ask() -> None:
            async with trio.open_nursery() as crowd:
                for _ in range(STREAMS):
                    crowd.start_soon(streams.stream_on)
                for place in range(SOCKETS):
                    crowd.start_soon(sockets.have_sockets, place)
            ended.set()

        tasks.start_soon(change)
        tasks.start_soon(ask)
        at = partial(_sleep_until_part, trio.current_time(), seconds)
        # Changes, keys that are refused, and a provider that dies and returns.
        await at(0.15)
        main.die()
        await at(0.3)
        await nursery.start(main.serve)
        await at(0.45)
        # The control plane dies, then the gateway, then both.
        await system.kill_plane()
        await at(0.5)
        await system.start_plane()
        await system.kill_gateway()
        await system.start_gateway()
        await at(0.6)
        await system.kill_plane()
        await system.kill_gateway()
        await system.start_gateway()
        await at(0.65)
        await system.start_plane()
        await at(1)
        run.stopping = True
        with trio.fail_after(30):
            await ended.wait()
        changing.cancel()
        await system.stop_gateway()
        kept = await records_of(home)
        sums = (await home.api("GET", "usage?by=client,provider"))["sums"]
    nursery.cancel_scope.cancel()
    outcome = Outcome(streams, sockets, told, kept, sums)
    with capsys.disabled():
        print(
            f"\n{outcome}; {changes.made} changes, {changes.failed} failed with a killed control "
            f"plane; refused keys: {dict(main.refusals)} of {len(main.used)}"
        )
    for _, gateway in system.gateways:
        assert "unexpected" not in gateway.everything
        assert "Traceback" not in gateway.everything
    assert run.faults == []
    assert set(streams.statuses) == {200}
    assert outcome.lost == set()
    assert outcome.doubled == []
    assert len({record["id"] for record in kept}) == len(kept)
    assert outcome.wrong == []
    assert outcome.wrong_sums == []
    # Only what the gateway's death cut has told tokens that are in no record.
    assert outcome.unrecorded <= streams.killed | sockets.killed_responses | outcome.last_instant
    # It did what it is for.
    assert min(streams.fallbacks, len(streams.cut), len(streams.killed)) > 0
    assert min(len(sockets.cut), len(sockets.killed), len(sockets.whole)) > 0
    assert seconds < 2 * DRAIN or sockets.restarted >= SOCKETS
    assert min(main.refusals[429], main.refusals[401]) > 0
    assert changes.made > seconds * REPLACEMENTS / 2


async def _sleep_until_part(begun: float, seconds: float, part: float) -> None:
    await trio.sleep_until(begun + part * seconds)  # the load is paced
