"""Bugs of our own, bridges that cannot be built, and a gateway that is being left."""

from __future__ import annotations

import json
import logging
import math

import pytest
import trio

from bridgepool import MemoryReloader, ProviderSnapshot
from bridgepool.gateway import Gateway, GatewaySettings, Outcome, open_gateway
from bridgepool.gateway.proxy import _app as app
from bridgepool.gateway.proxy._call import Call
from bridgepool.gateway.proxy._runtimes import Runtimes
from bridgepool.http import UpstreamCut, open_upstream_client, serve_http
from tests.gateway.proxy.raw import connect, post, raw_upstream, says, silence_to_end
from tests.gateway.proxy.rig import open_rig, openai, start_upstream
from tests.simulated import Gate

CHAT = "/ai/v1/chat/completions"


class BugError(Exception):
    pass


async def test_a_bug_costs_its_request_a_500_and_nothing_else(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    north = await start_upstream(nursery)
    async with open_rig(openai(north), nursery=nursery) as rig:

        async def broken(*_: object) -> None:
            await trio.lowlevel.checkpoint()
            raise BugError("sk-central is in this text")

        with monkeypatch.context() as patch:
            patch.setattr(app, "forward_request", broken)
            answer = await rig.ask(CHAT, {})
        assert (answer.status, answer.code) == (500, "internal_error")
        assert b"sk-central" not in answer.body
        assert (await rig.ask(CHAT, {})).status == 200
    assert [record.outcome for record in rig.records] == [Outcome.FAILED, Outcome.COMPLETE]
    assert "request failed" in caplog.messages


async def test_a_bug_in_mid_stream_cuts_the_stream(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    north = await start_upstream(nursery)

    async def broken(call: Call, *_: object) -> None:
        async with call.exchange.respond(200) as stream:
            await stream.send_all(b"half of it")
            raise BugError

    monkeypatch.setattr(app, "forward_request", broken)
    with caplog.at_level(logging.ERROR):
        async with open_rig(openai(north), nursery=nursery) as rig:
            with pytest.raises(UpstreamCut):
                await rig.ask(CHAT, {})
            [record] = await rig.wait_records(1)
    assert record.outcome is Outcome.FAILED
    lines = [vars(line) for line in caplog.records]
    assert [line["message"] for line in lines] == ["request failed", "handler failed"]
    assert {line["request_id"] for line in lines} == {record.request_id}


async def test_a_bridge_that_cannot_be_built_is_a_503(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise BugError

    async with open_rig(nursery=nursery) as rig:
        with monkeypatch.context() as patch:
            patch.setattr(Runtimes, "take", broken)
            answer = await rig.ask(CHAT, {})
        assert (answer.status, answer.code) == (503, "bridge_failed")
        assert (await rig.ask(CHAT, {})).code == "unknown_provider"


async def test_a_gateway_that_is_being_left_lets_streams_end_and_admits_nobody(
    nursery: trio.Nursery,
) -> None:
    north = await start_upstream(nursery)
    gate = Gate(north, at=1)
    source = MemoryReloader(ProviderSnapshot([openai(north)]))
    left = trio.Event()
    async with trio.open_nursery() as servers:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        address = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"

        async def gateway_life(task_status: trio.TaskStatus[Gateway]) -> None:
            async with open_gateway(
                source,
                source.subscribe(),
                first=source.snapshot,
                settings=GatewaySettings(allow_anonymous=True, drain_timeout=math.inf),
            ) as gateway:
                task_status.started(gateway)
                await left.wait()

        gateway = await nursery.start(gateway_life)
        servers.start_soon(app_server, gateway, listeners)
        async with (
            connect(address) as streaming,
            open_upstream_client(f"http://{address}") as client,
        ):
            await streaming.send(post(CHAT, b'{"model": "m", "stream": true}'))
            await gate.reached.wait()
            left.set()
            await trio.testing.wait_all_tasks_blocked()
            async with client.request(b"POST", CHAT.encode(), (), b"{}") as response:
                answer = json.loads(await response.receive_some())
            assert (response.status, answer["error"]["code"]) == (503, "shutting_down")
            gate.opened.set()
            await streaming.read_until(b"[DONE]")
        servers.cancel_scope.cancel()


async def app_server(gateway: Gateway, listeners: list[trio.SocketListener]) -> None:
    await serve_http(gateway.handle, listeners)


async def test_cancelling_all_of_it_leaves_nothing(nursery: trio.Nursery) -> None:
    url = await raw_upstream(nursery, says(b"", then=silence_to_end))
    await trio.testing.wait_all_tasks_blocked()
    before = trio.lowlevel.current_statistics().tasks_living
    with trio.CancelScope() as everything:
        async with (
            trio.open_nursery() as inner,
            open_rig(openai(url), nursery=inner) as rig,
            connect(rig.address) as client,
        ):
            await client.send(post(CHAT))
            await rig.wait_requests(1)
            everything.cancel()
            await trio.sleep_forever()
    await trio.testing.wait_all_tasks_blocked()
    assert trio.lowlevel.current_statistics().tasks_living == before
    assert rig.gateway.statistics().runtimes == 0
    assert rig.gateway.statistics().requests == 0


async def test_what_the_block_raises_comes_out_as_it_is(nursery: trio.Nursery) -> None:
    source = MemoryReloader(ProviderSnapshot([openai("http://127.0.0.1:9/v1")]))
    with pytest.raises(BugError):
        async with open_gateway(source, source.subscribe()):
            raise BugError
