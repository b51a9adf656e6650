"""More requests than may run: some wait, the others are refused, and nobody is left behind."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from bridgepool.gateway import GatewaySettings
from bridgepool.gateway.providers import Provider
from tests.gateway.proxy.dying import start_dying
from tests.gateway.proxy.raw import connect, post, raw_upstream, read_head
from tests.gateway.proxy.rig import CHAT, Answer, Rig, open_rig, openai
from tests.waiting import wait_until

AI = f"/ai/v1{CHAT}"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Gate:
    """An upstream that answers when it is told to, one request after the other."""

    def __init__(self) -> None:
        self.arrived: list[bytes] = []
        self._permits = trio.Semaphore(0)

    async def serve(self, stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, AssertionError):
            while True:
                self.arrived.append(await read_head(stream))
                await self._permits.acquire()
                await stream.send_all(OK)

    def let(self, count: int) -> None:
        for _ in range(count):
            self._permits.release()

    async def wait_arrived(self, count: int) -> None:
        await wait_until(lambda: len(self.arrived) >= count)


async def ask(rig: Rig, answers: list[Answer]) -> None:
    answers.append(await rig.ask(f"/ai/v1{CHAT}", {"model": "m"}))


async def test_over_the_gateways_limit_requests_wait_shortly_or_are_refused(
    nursery: trio.Nursery,
) -> None:
    gate, answers = Gate(), list[Answer]()
    url = await raw_upstream(nursery, gate.serve)
    settings = GatewaySettings(allow_anonymous=True, max_concurrent=2, max_waiting=1)
    async with open_rig(openai(url), nursery=nursery, settings=settings) as rig:
        async with trio.open_nursery() as asking:
            for count in (1, 2):
                asking.start_soon(ask, rig, answers)
                await gate.wait_arrived(count)
            asking.start_soon(ask, rig, answers)
            await rig.wait_requests(3)
            refused = await rig.ask(f"/ai/v1{CHAT}", {"model": "m"})
            assert (refused.status, refused.code) == (503, "gateway_overloaded")
            assert refused.headers[b"retry-after"] == b"1"
            assert (await rig.ask("/healthz")).status == 200
            gate.let(3)
        assert [answer.status for answer in answers] == [200, 200, 200]
        assert len(gate.arrived) == 3
        await wait_all_tasks_blocked()
        admission = rig.gateway._admission
        assert (admission.running, admission.waiting, admission.refused) == (0, 0, 1)


async def test_a_client_that_leaves_the_queue_makes_room_for_another(
    nursery: trio.Nursery,
) -> None:
    gate, answers = Gate(), list[Answer]()
    url = await raw_upstream(nursery, gate.serve)
    settings = GatewaySettings(allow_anonymous=True, max_concurrent=1, max_waiting=1)
    async with open_rig(openai(url), nursery=nursery, settings=settings) as rig:
        async with trio.open_nursery() as asking:
            asking.start_soon(ask, rig, answers)
            await gate.wait_arrived(1)
            async with connect(rig.address) as impatient:
                await impatient.send(b"GET /ai/v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
                await rig.wait_requests(2)
            await rig.wait_records(1)
            asking.start_soon(ask, rig, answers)
            await rig.wait_requests(2)
            gate.let(2)
        assert [answer.status for answer in answers] == [200, 200]
        assert rig.records[0].outcome.value == "client_gone"


async def test_a_new_limit_holds_at_once_and_requests_from_before_keep_it(
    nursery: trio.Nursery,
) -> None:
    """It came with the next request, and a late one of the generation before took it back."""
    upstream = await start_dying(nursery)

    def limited(most: int) -> Provider:
        return openai(upstream.url, max_concurrent=most, max_waiting=5)

    async with open_rig(limited(1), nursery=nursery) as rig:
        assert (await rig.ask(AI, {})).status == 200
        runtime: Any = rig.gateway._runtimes.in_force.get("ai")
        admission = runtime._resilience.state.admission
        await admission.enter()

        async def wait_for(waiting: int) -> None:
            await wait_until(lambda: admission.waiting == waiting)

        async with trio.open_nursery() as asking:
            for _ in range(2):
                asking.start_soon(rig.ask, AI, {})
            await wait_for(2)
            await rig.replace(limited(3))
            assert admission.waiting == 0
        async with connect(rig.address) as slow:
            head, _, body = post(AI).partition(b"\r\n\r\n")
            await slow.send(head + b"\r\n\r\n" + body[:-1])
            await rig.wait_requests(1)
            await rig.replace(limited(1))
            await slow.send(body[-1:])
            await wait_for(1)
            assert admission.rules.limit == 1
            await rig.replace(openai(upstream.url))  # no limit at all
            await slow.read_until(b" 200 ")
        admission.leave()
        await rig.wait_records(4)
        assert (admission.running, admission.waiting, upstream.count) == (0, 0, 4)
