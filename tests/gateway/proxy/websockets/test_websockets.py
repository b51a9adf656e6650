"""Websockets through the gateway: judged before their 101, then relayed both ways."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack, suppress

import attrs
import pytest
import trio
import trio.testing
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)

from bridgepool.gateway import GatewaySettings, Outcome, WebSocketLimits
from bridgepool.gateway.providers import Client, hash_key, new_client_key
from bridgepool.http.asgi import asgi_app
from tests.gateway.proxy.rig import open_rig, openai, own_refusals
from tests.gateway.proxy.websockets.peers import Socket, connect_socket, echo, start_upstream
from tests.http.test_asgi import hypercorn_serving

OPEN = GatewaySettings(allow_anonymous=True, min_reload_interval=0.001)
CREATE = json.dumps({"type": "response.create", "model": "m"})


def limited(**limits: float) -> GatewaySettings:
    return attrs.evolve(OPEN, websockets=WebSocketLimits(**limits))  # type: ignore[arg-type] # ints


async def test_messages_of_any_kind_pass_both_ways_as_they_are(nursery: trio.Nursery) -> None:
    north = await start_upstream(nursery, echo)
    async with (
        open_rig(openai(north.url), nursery=nursery) as rig,
        connect_socket(rig.address, "/ai/v1/realtime?model=m") as (socket, answer),
    ):
        assert isinstance(answer, AcceptConnection)
        assert b"x-request-id" in dict(answer.extra_headers)
        await socket.send_text("hello")
        assert await socket.receive() == "hello"
        await socket.send(BytesMessage(bytearray(b"\x00" * 300_000)))
        assert await socket.receive() == b"\x00" * 300_000
        await socket.send(
            TextMessage("in ", message_finished=False),
            Ping(b"between"),
            TextMessage("parts", message_finished=True),
        )
        assert await socket.receive() == "in parts"
        await socket.send(CloseConnection(1000, "done"))
        assert await socket.receive_close() == (1000, "done")
        assert await socket.next_event() is None
        [record] = await rig.wait_records(1)
    assert (record.status, record.outcome, record.websocket) == (101, Outcome.COMPLETE, True)
    assert record.bytes_sent > 300_000
    [request] = north.requests
    sent = dict(request.extra_headers)
    assert sent[b"authorization"] == b"Bearer sk-central"
    assert request.target == "/v1/realtime?model=m"
    assert (request.subprotocols, request.extensions) == ([], [])
    assert rig.gateway.statistics().requests == 0


async def test_a_browsers_key_is_understood_and_goes_no_further(nursery: trio.Nursery) -> None:
    north = await start_upstream(nursery, echo, protocol="realtime")
    key = new_client_key()
    clients = (Client(id="ada", key_hashes=(hash_key(key),)),)
    offered = ["realtime", f"openai-insecure-api-key.{key.reveal()}", "openai-organization.org-1"]
    async with open_rig(openai(north.url), nursery=nursery, clients=clients) as rig:
        async with connect_socket(rig.address, protocols=[*offered, "v2"]) as (socket, answer):
            assert isinstance(answer, AcceptConnection)
            assert answer.subprotocol == "realtime"
            await socket.send_text("x")
            assert await socket.receive() == "x"
        for protocols, status in (([], 401), (["openai-insecure-api-key.wrong"], 401)):
            async with connect_socket(rig.address, protocols=protocols) as (_, answer):
                assert isinstance(answer, RejectConnection)
                assert answer.status_code == status
    [request] = north.requests
    assert request.subprotocols == ["realtime", "v2"]
    assert key.reveal() not in repr(request)
    assert {record.client for record in rig.records} == {"ada", "-"}


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_an_upstream_without_websockets_is_a_426(
    nursery: trio.Nursery, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "bridgepool.gateway")
    north = await start_upstream(nursery, echo, refuse=status)
    async with (
        open_rig(openai(north.url), nursery=nursery) as rig,
        connect_socket(rig.address) as (_, answer),
    ):
        assert isinstance(answer, RejectConnection)
        assert answer.status_code == 426
    assert own_refusals(caplog) == [("INFO", "websocket_not_supported")]
    assert "The provider does not speak websockets" in vars(caplog.records[-1])["reason"]


async def test_a_key_that_the_upstream_refuses_is_followed_by_the_next(
    nursery: trio.Nursery,
) -> None:
    north = await start_upstream(nursery, echo, refuse=401)
    providers = (openai(north.url, keys=["sk-1", "sk-2"]),)
    async with (
        open_rig(*providers, nursery=nursery) as rig,
        connect_socket(rig.address) as (_, answer),
    ):
        assert isinstance(answer, RejectConnection)
        assert answer.status_code == 502
    keys = [dict(request.extra_headers)[b"authorization"] for request in north.requests]
    assert keys == [b"Bearer sk-1", b"Bearer sk-2"]


async def test_what_the_gateway_does_not_relay_is_a_426(nursery: trio.Nursery) -> None:
    north = await start_upstream(nursery, echo)
    off = openai(north.url, "off", enabled=False)
    async with open_rig(openai(north.url), off, nursery=nursery) as rig:
        for target in ("/off/v1/responses", "/ai/v1/chat/completions", "/ai/responses"):
            async with connect_socket(rig.address, target) as (_, answer):
                assert isinstance(answer, RejectConnection)
                assert answer.status_code == 426
    assert not north.requests


async def test_beyond_the_caps_clients_use_http(nursery: trio.Nursery) -> None:
    north = await start_upstream(nursery, echo)
    async with open_rig(
        openai(north.url), nursery=nursery, settings=limited(max_per_client=1)
    ) as rig:
        async with connect_socket(rig.address) as (first, _):
            async with connect_socket(rig.address) as (_, answer):
                assert isinstance(answer, RejectConnection)
                assert answer.status_code == 426
            await first.send(CloseConnection(1000))
            await first.receive_close()
        await rig.wait_records(2)
        async with connect_socket(rig.address) as (_, answer):
            assert isinstance(answer, AcceptConnection), "a place is given back"
    assert rig.records[0].code == "too_many_websockets"


async def test_an_upstream_that_breaks_off_closes_its_client_visibly(
    nursery: trio.Nursery,
) -> None:
    async def leave(socket: Socket, _request: Request) -> None:
        await socket.receive()

    north = await start_upstream(nursery, leave)
    async with (
        open_rig(openai(north.url), nursery=nursery) as rig,
        connect_socket(rig.address) as (socket, _),
    ):
        await socket.send_text("x")
        assert await socket.receive_close() == (1011, "upstream_cut")
        [record] = await rig.wait_records(1)
    assert (record.outcome, record.code) == (Outcome.UPSTREAM_CUT, "upstream_cut")


async def test_a_client_that_leaves_ends_its_upstreams_socket(nursery: trio.Nursery) -> None:
    gone = trio.Event()

    async def wait(socket: Socket, _request: Request) -> None:
        event = await socket.next_event()
        assert isinstance(event, CloseConnection)
        assert event.code == 1001
        gone.set()

    north = await start_upstream(nursery, wait)
    async with open_rig(openai(north.url), nursery=nursery) as rig:
        async with connect_socket(rig.address):
            pass
        with trio.fail_after(60):
            await gone.wait()
        [record] = await rig.wait_records(1)
    assert record.outcome is Outcome.CLIENT_GONE


async def test_silent_peers_are_pinged_at_both_ends_and_dead_ones_ended(
    nursery: trio.Nursery,
) -> None:
    sockets: list[Socket] = []

    async def quiet(socket: Socket, _request: Request) -> None:
        sockets.append(socket)
        await socket.next_event()

    north = await start_upstream(nursery, quiet)
    patient = limited(ping_interval=0.05, ping_timeout=60)
    async with (
        open_rig(openai(north.url), nursery=nursery, settings=patient) as rig,
        connect_socket(rig.address) as (socket, _),
        trio.open_nursery() as reading,
    ):
        reading.start_soon(socket.next_event)
        with trio.fail_after(30):
            while not sockets or min(socket.pings, sockets[0].pings) <= 2:  # noqa: ASYNC110 -- no event
                await trio.sleep(0.001)
        assert not rig.records, "both are alive"
        reading.cancel_scope.cancel()
    settings = limited(ping_interval=0.05, ping_timeout=0.2)
    async with (
        open_rig(openai(north.url), nursery=nursery, settings=settings) as rig,
        connect_socket(rig.address) as (socket, _),
    ):
        [record] = await rig.wait_records(1)  # the client answers none
        assert not await socket.next_event()
        assert socket.pings == 1
    assert record.outcome is Outcome.CLIENT_GONE


async def test_an_old_socket_is_closed_between_two_messages(nursery: trio.Nursery) -> None:
    north = await start_upstream(nursery, echo)
    settings = limited(max_age=0.1)
    async with (
        open_rig(openai(north.url), nursery=nursery, settings=settings) as rig,
        connect_socket(rig.address) as (socket, _),
    ):
        assert await socket.receive_close() == (1001, "max_age")
        [record] = await rig.wait_records(1)
    assert record.outcome is Outcome.COMPLETE


async def test_a_replaced_provider_keeps_its_socket_until_the_drain_deadline(
    nursery: trio.Nursery,
) -> None:
    """And closes it 1012 between two messages: the one that is under way comes to its end."""
    go_on = trio.Event()

    async def slow(socket: Socket, _request: Request) -> None:
        await socket.receive()
        await socket.send(TextMessage("one", message_finished=False))
        await go_on.wait()
        await trio.sleep(0.1)  # the deadline passes meanwhile
        await socket.send(TextMessage(" message", message_finished=True))
        await socket.next_event()

    north = await start_upstream(nursery, slow)
    settings = attrs.evolve(OPEN, drain_timeout=0.05)
    async with (
        open_rig(openai(north.url), nursery=nursery, settings=settings) as rig,
        connect_socket(rig.address) as (socket, _),
    ):
        await socket.send_text("x")
        event = await socket.next_event()
        assert isinstance(event, TextMessage)
        await rig.replace(openai(north.url, keys=["sk-new"]))
        go_on.set()
        assert await socket.receive() == " message"
        assert await socket.receive_close() == (1012, "drain_deadline")
        [record] = await rig.wait_records(1)
    assert (record.outcome, record.code) == (Outcome.DRAIN_DEADLINE, "drain_deadline")


async def test_a_disabled_provider_begins_no_new_response_on_a_socket(
    nursery: trio.Nursery,
) -> None:
    got: list[str | bytes] = []
    began, finish = trio.Event(), trio.Event()

    async def responds(socket: Socket, _request: Request) -> None:
        got.append(await socket.receive())
        began.set()
        await finish.wait()
        await socket.send_text("the end of the first")
        with suppress(AssertionError):  # it is closed
            while True:
                got.append(await socket.receive())

    north = await start_upstream(nursery, responds)
    async with open_rig(openai(north.url), nursery=nursery) as rig:
        async with connect_socket(rig.address) as (socket, _):
            await socket.send_text(CREATE)
            with trio.fail_after(60):
                await began.wait()
            await rig.replace(openai(north.url, enabled=False))
            await socket.send_text(CREATE)
            error = json.loads(await socket.receive())
            assert (error["type"], error["code"]) == ("error", "provider_disabled")
            finish.set()
            assert await socket.receive() == "the end of the first", "what runs goes on"
            await rig.replace(openai(north.url))
            await socket.send_text("again")
            await socket.send(CloseConnection(1000))
            await socket.receive_close()
        await rig.wait_records(1)
    assert got == [CREATE, "again"]


async def test_a_shutdown_closes_sockets_as_going_away(nursery: trio.Nursery) -> None:
    north = await start_upstream(nursery, echo)
    async with AsyncExitStack() as stack:
        async with open_rig(openai(north.url), nursery=nursery) as rig:
            socket, _ = await stack.enter_async_context(connect_socket(rig.address))
            await socket.send_text("x")
            await socket.receive()
        assert await socket.receive_close() == (1001, "shutting_down")
        assert [record.close_code for record in rig.records] == [1001]


async def test_what_all_responses_used_is_in_the_record(nursery: trio.Nursery) -> None:
    def completed(number: int, tokens: int) -> str:
        usage = {"input_tokens": tokens, "output_tokens": 1}
        response = {"id": f"resp_{number}", "status": "completed", "model": "m-1", "usage": usage}
        return json.dumps({"type": "response.completed", "response": response}, indent=1)

    async def responds(socket: Socket, _request: Request) -> None:
        for number, tokens in ((1, 10), (2, 20)):
            await socket.receive()
            await socket.send_text('{"type":"response.output_text.delta","delta":"x"}')
            await socket.send_text(completed(number, tokens))
        await socket.next_event()

    north = await start_upstream(nursery, responds)
    settings = attrs.evolve(OPEN, reads_usage=True)
    async with (
        open_rig(openai(north.url), nursery=nursery, settings=settings) as rig,
        connect_socket(rig.address) as (socket, _),
    ):
        for _ in range(2):
            await socket.send_text(CREATE)
            assert "delta" in str(await socket.receive())
            assert "completed" in str(await socket.receive())
        await socket.send(CloseConnection(1000))
        await socket.next_event()
        [record] = await rig.wait_records(1)
    tokens = record.usage.tokens
    assert (tokens.input, tokens.output, record.usage.complete) == (30, 2, True)
    assert (record.usage.model, record.usage.response_id) == ("m-1", "resp_2")


async def test_the_gateway_relays_under_an_asgi_server_as_well(nursery: trio.Nursery) -> None:
    north = await start_upstream(nursery, echo)
    off = openai(north.url, "off", enabled=False)
    async with (
        open_rig(openai(north.url), off, nursery=nursery) as rig,
        hypercorn_serving(asgi_app(rig.gateway.handle)) as port,
    ):
        async with connect_socket(f"127.0.0.1:{port}") as (socket, answer):
            assert isinstance(answer, AcceptConnection)
            await socket.send_text("hello")
            assert await socket.receive() == "hello"
            await socket.send(BytesMessage(bytearray(b"\x00" * 70_000)))
            assert await socket.receive() == b"\x00" * 70_000
            await socket.send(CloseConnection(1000))
            assert (await socket.receive_close())[0] == 1000
        async with connect_socket(f"127.0.0.1:{port}", "/off/v1/responses") as (_, answer):
            assert isinstance(answer, RejectConnection)
            assert answer.status_code == 426
        records = await rig.wait_records(2)
    assert [record.status for record in records] == [101, 426]


async def test_each_time_that_a_provider_is_disabled_a_client_is_told(
    nursery: trio.Nursery,
) -> None:
    """Of several messages the first is answered; after an interval, it is so again."""
    north = await start_upstream(nursery, echo)
    async with (
        open_rig(openai(north.url), nursery=nursery, usage_full=lambda: False) as rig,
        connect_socket(rig.address) as (socket, _),
    ):
        for _ in range(2):
            await rig.replace(openai(north.url, enabled=False))
            for _ in range(2):
                await socket.send_text("x")
            assert json.loads(await socket.receive())["code"] == "provider_disabled"
            await rig.replace(openai(north.url))
            await socket.send_text("passes")
            assert await socket.receive() == "passes"
