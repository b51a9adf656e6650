"""Usage records, while the control plane and the gateway are killed in the middle of requests."""

from __future__ import annotations

import resource
import signal
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import attrs
import trio

from bridgepool.gateway.demo._upstream import WORDS, SimulatedUpstream
from bridgepool.http import UpstreamError, open_upstream_client
from tests.e2e.process import GatewayProcess
from tests.system.asking import Front, Gate, Home
from tests.system.rig import make_home, open_plane, run_front, run_plane

_CHAT = b"/ai/v1/chat/completions"


@attrs.define(eq=False)
class Client:
    """Asks all the time, and knows of which requests it got whole answers."""

    front: Front
    answered: set[str] = attrs.field(factory=set)
    stopped: bool = False
    ended: trio.Event = attrs.field(factory=trio.Event)

    async def run(self) -> None:
        """Ask until it is stopped."""
        headers = ((b"authorization", b"Bearer " + self.front.key.encode()),)
        async with open_upstream_client(self.front.url) as client:
            while not self.stopped:
                async with client.request(b"POST", _CHAT, headers, b'{"model": "m"}') as response:
                    while await response.receive_some():
                        pass
                    assert response.status == 200
                    self.answered.add(dict(response.headers)[b"x-request-id"].decode())
        self.ended.set()

    async def wait_more(self, count: int) -> None:
        """Wait until it has so many more answers."""
        goal = len(self.answered) + count
        while len(self.answered) < goal:  # noqa: ASYNC110 -- no event tells
            await trio.sleep(0.005)


async def kill_in_a_stream(front: Front, gateway: GatewayProcess) -> None:
    """Kill the gateway while it streams."""
    with suppress(UpstreamError):
        async with front.stream("slow"):
            gateway.signal(signal.SIGKILL)
            await gateway.wait()


async def records_of(home: Home) -> list[dict[str, object]]:
    """Return all records of the store, by the API."""
    found: list[dict[str, object]] = []
    page = await home.api("GET", "usage/records?limit=1000")
    found += page["records"]
    while page["next"] is not None:
        page = await home.api("GET", f"usage/records?limit=1000&before_id={page['next']}")
        found += page["records"]
    return found


async def test_no_record_is_lost_or_doubled_when_both_programs_are_killed(
    tmp_path: Path, north: SimulatedUpstream, south: SimulatedUpstream
) -> None:
    gate = Gate()
    south.before_word = gate
    home = await make_home(tmp_path)
    spool = ("--store-usage", "--usage-spool", str(tmp_path / "spool"))
    answered: set[str] = set()
    with trio.fail_after(180):
        async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
            plane = await stack.enter_async_context(run_plane(home))
            await home.add("ai", north)
            await home.add("slow", south)
            for number in range(2):
                source = (*home.standalone(), *spool, "--snapshot-file", str(tmp_path / "snapshot"))
                front, gateway = await stack.enter_async_context(run_front(home, *source))
                await front.wait_outcome("north")
                clients = [Client(front) for _ in range(4)]
                for client in clients:
                    nursery.start_soon(client.run)
                await clients[0].wait_more(30)
                if number == 0:
                    plane.signal(signal.SIGKILL)
                    await plane.wait()
                    await clients[0].wait_more(30)
                    plane = await stack.enter_async_context(run_plane(home))
                await clients[0].wait_more(5)
                for client in clients:
                    client.stopped = True
                for client in clients:
                    await client.ended.wait()
                answered = answered.union(*(client.answered for client in clients))
                await front.ready()  # by now the last of them has its record
                if number == 0:  # with a stream under way, and records not sent yet
                    gate.shut()
                    await kill_in_a_stream(front, gateway)
                    gate.open()
                else:
                    await gateway.stop()
            kept = await records_of(home)
            ids = [str(record["request_id"]) for record in kept]
            assert len(ids) == len(set(ids)), "each once"
            assert answered - set(ids) == set(), "none is lost"
            assert len({record["id"] for record in kept}) == len(kept)
            served = [one for one in kept if one["status"] == 200]
            assert len(served) == len(north.received), "as many as the upstream counted"
            [total] = (await home.api("GET", "usage?provider=ai"))["sums"]
            assert total["input_tokens"] == len(north.received)
            assert total["output_tokens"] == len(WORDS) * len(north.received)
            assert {record["gateway"] for record in kept} == {"first"}
            [by_key] = (await home.api("GET", "usage?by=client"))["sums"]
            assert by_key["requests"] == len(kept)


async def test_a_disk_that_takes_no_more_records_makes_the_gateway_not_ready_until_it_does(
    tmp_path: Path, north: SimulatedUpstream
) -> None:
    """The system refuses the gateway its next file, as a full disk does."""
    home = await make_home(tmp_path)
    spool = ("--store-usage", "--usage-spool", str(tmp_path / "spool"))
    small = ("--usage-spool-bytes", "262144", "--usage-on-full", "refuse")
    with trio.fail_after(180):
        async with run_plane(home), run_front(home, *home.standalone(), *spool, *small) as both:
            front, gateway = both
            await home.add("ai", north)
            await front.wait_outcome("north")
            hard = resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE)[1]
            resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (1000, hard))
            served = 0
            while (answer := await front.ask()).status == 200:
                served += 1
            assert (answer.status, answer.code) == (503, "usage_unavailable")
            refused = await front.wait_ready(ready=False, reason="usage cannot be recorded")
            usage = refused.document["usage"]
            assert isinstance(usage, dict)
            assert (refused.status, usage["failing"], usage["dropped"]) == (503, True, 0)
            failed = "usage spool cannot be written; records in memory"
            assert (await gateway.wait_event(failed))["error"] == "File too large"
            resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
            await gateway.wait_event("usage spool can be written again")
            assert (await front.ready()).status == 200
            assert (await front.ask()).status == 200
            await gateway.stop()
            kept = [one for one in await records_of(home) if one["status"] == 200]
            assert len(kept) == len(north.received) >= served


async def test_an_embedded_gateway_stores_its_records_itself(
    tmp_path: Path, north: SimulatedUpstream
) -> None:
    home = await make_home(tmp_path)
    with trio.fail_after(180):
        async with open_plane(home):
            await home.add("ai", north)
            options = (*home.embedded(), "--name", "inside", "--store-usage")
            async with run_front(home, *options) as (front, gateway):
                await front.wait_outcome("north")
                await gateway.stop()
            [total] = (await home.api("GET", "usage?by=gateway"))["sums"]
            assert total["gateway"] == "inside"
            assert total["input_tokens"] == len(north.received)
