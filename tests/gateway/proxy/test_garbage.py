"""What a request leaves to the garbage collector: nothing, however it ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked
from wsproto.events import TextMessage

from bridgepool.gateway import AccessRecord, GatewaySettings
from bridgepool.gateway.limits._prices import parse_prices
from bridgepool.gateway.providers import AuthorizationUnavailableError
from bridgepool.gateway.proxy._auth import identify
from bridgepool.gateway.proxy._tracing import RequestTrace, begin_trace
from bridgepool.http import Headers, UpstreamError, UpstreamLimits
from tests.garbage import cycles_left_by
from tests.gateway.proxy.dying import CUT, HANG, answer, closed_port, start_dying
from tests.gateway.proxy.raw import connect, post
from tests.gateway.proxy.rig import CHAT, Rig, open_rig, openai
from tests.gateway.proxy.websockets.rig import Opened, connected, create, events, opened

AI = f"/ai/v1{CHAT}"
STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    b'e\r\ndata: {"a": 1}\r\n2\r\n\n\n\r\n'
)
CLOSES = STREAM.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1)
SHORT = GatewaySettings(
    allow_anonymous=True,
    min_reload_interval=0.001,
    upstream_limits=UpstreamLimits(head_timeout=3),
)


class Traced:
    def begin(self, headers: Headers) -> RequestTrace | None:
        return begin_trace(headers, 1.0)

    def observe(self, record: AccessRecord) -> None:
        pass


async def ask(rig: Rig) -> None:
    with suppress(UpstreamError):
        await rig.ask(AI, {"model": "m", "stream": True})


async def leave(rig: Rig) -> None:
    async with connect(rig.address) as client:
        await client.send(post(AI))
        await client.read_until(b"data")


async def send_nonsense(rig: Rig) -> None:
    async with connect(rig.address) as client:
        await client.send(b"POST " + AI.encode() + b" HTTP/1.1\r\nhost: h\r\nexpect: x\r\n\r\n")
        await client.read_to_end()


@pytest.mark.parametrize(
    ("use", "said", "fields"),
    [
        (ask, answer(200), {}),
        (ask, answer(200), {"retries": 1, "keys": ["a", "b"], "breaker_failures": 5}),
        (ask, STREAM + b"0\r\n\r\n", {}),
        (ask, CLOSES, {}),
        (ask, CUT, {"retries": 1}),
        (ask, b"nonsense\r\n\r\n", {}),
        (ask, HANG, {}),
        (ask, HANG, {"retries": 1, "retry_on": ["timeout"]}),
        (ask, answer(307), {}),
        (ask, answer(401), {"keys": ["a", "b"]}),
        (ask, answer(503), {"retries": 1}),
        (ask, CUT, {"fallback": ["other"]}),
        (ask, answer(503), {"fallback": ["other"]}),
        (ask, answer(200), {"enabled": False}),
        (leave, STREAM, {}),
        (send_nonsense, answer(200), {}),
    ],
)
async def test_a_request_leaves_nothing_to_the_garbage_collector(
    nursery: trio.Nursery,
    mock_clock: MockClock,
    use: Callable[[Rig], Awaitable[None]],
    said: bytes,
    fields: dict[str, Any],
) -> None:
    mock_clock.rate = 20
    upstream = await start_dying(nursery, then=said)
    providers = (openai(upstream.url, **fields), openai(closed_port(), "other"))
    async with open_rig(*providers, nursery=nursery, settings=SHORT, tracing=Traced()) as rig:

        async def use_once() -> None:
            await use(rig)
            await rig.wait_records(1)
            rig.records.clear()
            await wait_all_tasks_blocked()

        assert await cycles_left_by(use_once) == []


async def serve(opened: Opened) -> None:
    async with connected(opened) as socket:
        await socket.send_text(create())
        await events(socket, 2)


async def refuse(opened: Opened) -> None:
    async with connected(opened) as socket:
        await socket.send_text(create("other"))
        await events(socket, 1)


async def name_two_models(opened: Opened) -> None:
    async with connected(opened) as socket:
        text = create("gpt-5", Model="gpt-5")
        await socket.send_text(text)
        await socket.send(TextMessage(text[:-5], message_finished=False))
        await socket.send_text(text[-5:])
        await events(socket, 2)


async def be_refused(opened: Opened) -> None:
    await opened.refusal("/ai/v1/models")


@pytest.mark.parametrize("use", [serve, refuse, name_two_models, be_refused])
async def test_a_websocket_leaves_nothing_to_the_garbage_collector(
    nursery: trio.Nursery, use: Callable[[Opened], Awaitable[None]]
) -> None:
    async with opened(nursery) as found:
        found.rules(models=("gpt-*",))

        async def use_once() -> None:
            await use(found)
            await found.rig.wait_records(1)
            found.rig.records.clear()
            await wait_all_tasks_blocked()

        assert await cycles_left_by(use_once) == []


async def test_an_authority_that_is_away_leaves_nothing_to_the_garbage_collector() -> None:
    class Away:
        has_clients = True

        async def authorize(self, token: bytes) -> None:
            await trio.lowlevel.checkpoint()
            raise AuthorizationUnavailableError

    async def ask_who() -> None:
        await identify(((b"authorization", b"Bearer x"),), Away(), allow_anonymous=False)

    assert await cycles_left_by(ask_who) == []


async def test_a_price_table_leaves_nothing_to_the_garbage_collector() -> None:
    async def read() -> None:
        await trio.lowlevel.checkpoint()
        parse_prices('[[models]]\nmodel = "m"\ninput = 1\noutput = 1').price_of("ai", "m")

    assert await cycles_left_by(read) == []
