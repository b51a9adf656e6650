"""What is recorded of a websocket: log, metrics, status."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
import trio
import trio.testing
from wsproto.events import AcceptConnection, CloseConnection, Request, TextMessage

from bridgepool.gateway import BodyRecorder, GatewaySettings, RecordedBodies, UsageRecord
from bridgepool.gateway.limits._prices import parse_prices
from bridgepool.gateway.metrics._gateway import RequestMetrics
from bridgepool.gateway.providers import Client, ClientRules, hash_key
from bridgepool.gateway.proxy._access_log import Outcome, json_line
from tests.gateway.metrics.test_gateway_metrics import scrape
from tests.gateway.proxy.rig import open_rig, openai
from tests.gateway.proxy.websockets.peers import Socket, connect_socket, start_upstream
from tests.gateway.proxy.websockets.rig import (
    BEARER,
    KEY,
    SERVED,
    TOKENS,
    Upstream,
    create,
    events,
    response,
)

CLOSED = "bridgepool_websockets_closed_total"


async def leave_or_echo(socket: Socket, _request: Request) -> None:
    """Leave after a message `leave`."""
    while (event := await socket.next_event()) is not None:
        if isinstance(event, CloseConnection):
            await socket.send(event.response())
            return
        if getattr(event, "data", "") == "leave":
            return
        await socket.send(event)


async def test_open_websockets_and_how_they_were_closed_are_shown(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    north = await start_upstream(nursery, leave_or_echo)
    metrics = RequestMetrics()
    async with open_rig(
        openai(north.url), openai(north.url, "other"), nursery=nursery, observers=[metrics.observe]
    ) as rig:
        ended = 0

        async def closed(count: int) -> None:
            nonlocal ended
            ended += count
            await rig.wait_records(ended)

        async with connect_socket(rig.address) as (socket, answer):
            assert isinstance(answer, AcceptConnection)
            request_id = dict(answer.extra_headers)[b"x-request-id"].decode()
            await socket.send_text("x")
            await socket.receive()
            found = await scrape(rig, metrics)
            assert found["bridgepool_websockets"] == {("ai",): 1, ("other",): 0}
            status = rig.gateway.status()["requests"]
            assert status["websockets"] == 1  # type: ignore[index] # it is a document
            [shown] = status["oldest"]  # type: ignore[index]
            assert (shown["websocket"], shown["request_id"]) == (True, request_id)
            assert shown["bytes"] == shown["bytes_received"] - 4 == 3  # without the mask
            await socket.send(CloseConnection(1000, "done"))
            await socket.receive_close()
        await closed(1)
        line = json.loads(json_line(rig.records[0]))
        expected = {
            "request_id": request_id,
            "provider": "ai",
            "route": "/responses",
            "status": 101,
            "bytes": 3,
            "bytes_received": 7,
            "attempts": 1,
            "upstream_status": 101,
            "close_code": 1000,
            "outcome": "complete",
        }
        assert line | expected == line
        for code, sent in ((4321, 4321), (1005, None)):
            async with connect_socket(rig.address) as (socket, _):
                close = CloseConnection(sent) if sent is not None else None
                if close is not None:
                    await socket.send(close)
                else:
                    await socket.stream.send_all(b"\x88\x80\0\0\0\0")
                await socket.next_event()
            await closed(1)
            assert rig.records[-1].close_code == code
        async with connect_socket(rig.address):
            pass
        await closed(1)
        assert rig.records[-1].close_code == 1006
        async with connect_socket(rig.address) as (socket, answer):
            assert isinstance(answer, AcceptConnection)
            cut = dict(answer.extra_headers)[b"x-request-id"].decode()
            await socket.send_text("leave")
            assert await socket.receive_close() == (1011, "upstream_cut")
        await closed(1)
        assert rig.records[-1].close_code == 1011
        found = await scrape(rig, metrics)
        codes = {("1000", "ai"): 1, ("other", "ai"): 1, ("1005", "ai"): 1, ("1006", "ai"): 1}
        assert found[CLOSED] == {**codes, ("1011", "ai"): 1}
        assert found["bridgepool_websockets"] == {("ai",): 0, ("other",): 0}
        assert found["bridgepool_request_duration_seconds_count"] == {("ai",): 0}
    [logged] = [each for each in caplog.records if each.message == "upstream request failed"]
    assert vars(logged)["request_id"] == cut


async def test_each_response_on_a_websocket_has_a_usage_record_when_it_has_ended(
    nursery: trio.Nursery,
) -> None:
    made: list[UsageRecord] = []
    full = False
    upstream = Upstream()
    north = await start_upstream(nursery, upstream.serve)
    async with open_rig(
        openai(north.url),
        nursery=nursery,
        on_usage=made.append,
        usage_full=lambda: full,
    ) as rig:
        async with connect_socket(rig.address) as (socket, _):
            for number in (1, 2):
                await socket.send_text(create())
                assert await events(socket, 2) == SERVED
                await trio.testing.wait_all_tasks_blocked()
                assert [each.response_id for each in made] == ["resp_1", "resp_2"][:number]
            full = True
            await socket.send_text(create())
            assert await events(socket, 1) == ["usage_unavailable"]
            full = False
            upstream.hold = trio.Event()
            await socket.send_text(create())
            assert await events(socket, 1) == SERVED[:1]
        [record] = await rig.wait_records(1)
        async with connect_socket(rig.address):
            pass
        await rig.wait_records(2)
    assert (record.usage.tokens.input, record.responses) == (2 * (TOKENS - 10), 3)
    found = [(each.response_id, each.complete, each.input_tokens, each.outcome) for each in made]
    assert found == [
        ("resp_1", True, TOKENS - 10, "complete"),
        ("resp_2", True, TOKENS - 10, "complete"),
        ("", False, None, "refused"),
        ("resp_3", False, None, "client_gone"),
        ("", False, None, "client_gone"),
    ]
    assert {each.request_id for each in made[:4]} == {record.request_id}
    assert len({each.id for each in made}) == 5
    refused = made[2]
    assert (refused.status, refused.code, refused.cost) == (503, "usage_unavailable", None)
    assert all(0 < each.duration_ms < 10_000 for each in made)


async def test_what_a_provider_says_unasked_makes_no_usage_records_without_end(
    nursery: trio.Nursery,
) -> None:
    """Each end of a response made a record, also where none was running or asked for.

    And responses that the provider began were recorded beyond what there was room for.
    """
    made: list[UsageRecord] = []
    ended = response("response.done", 1, "completed", usage={"output_tokens": 1})
    begun = response("response.created", 2, "in_progress")

    seen = trio.Event()

    async def flood(socket: Socket, _request: Request) -> None:
        await socket.send(*[TextMessage(ended)] * 50, TextMessage(begun), TextMessage(ended))
        await seen.wait()
        with suppress(trio.BrokenResourceError):
            for _ in range(1000):
                await socket.send(TextMessage(begun), TextMessage(ended))

    north = await start_upstream(nursery, flood)
    async with open_rig(
        openai(north.url), nursery=nursery, on_usage=made.append, usage_full=lambda: bool(made)
    ) as rig:
        async with connect_socket(rig.address, "/ai/v1/realtime?model=gpt-5") as (socket, _):
            expected = [*["response.done"] * 50, "response.created", "response.done"]
            assert await events(socket, 52) == expected
            await trio.testing.wait_all_tasks_blocked()
            assert [each.complete for each in made] == [True]
            seen.set()
            found = await socket.next_event()
            while isinstance(found, TextMessage):
                found = await socket.next_event()
            assert isinstance(found, CloseConnection)
            assert (found.code, found.reason) == (1008, "usage_unavailable")
        [record] = await rig.wait_records(1)
    assert (record.outcome, record.code) == (Outcome.REFUSED, "usage_unavailable")
    assert len(made) < 70  # those of one read


PRICES = parse_prices(
    "".join(
        f'[[models]]\nmodel = "{model}"\ninput = {price}\noutput = {price}\n'
        for model, price in (("cheap", 1), ("dear", 100), ("*", 10_000))
    )
)


async def test_each_response_has_the_model_that_it_was_asked_of_and_its_price(
    nursery: trio.Nursery,
) -> None:
    """All of a websocket had the model of its first one; on /realtime none was known."""
    made: list[UsageRecord] = []
    upstream = Upstream()
    north = await start_upstream(nursery, upstream.serve)
    async with open_rig(
        openai(north.url), nursery=nursery, on_usage=made.append, prices=PRICES
    ) as rig:
        async with connect_socket(rig.address) as (socket, _):
            for fields in ({"model": "cheap"}, {"response": {"model": "dear"}}, {"model": "cheap"}):
                message = json.dumps({"type": "response.create", **fields, "input": "x" * 70_000})
                await socket.send_text(message)
                assert await events(socket, 2) == SERVED
            upstream.hold = trio.Event()
            await socket.send_text(create("dear"))  # it does not end
            assert await events(socket, 1) == SERVED[:1]
        await rig.wait_records(1)
        upstream.hold = None
        async with connect_socket(rig.address, "/ai/v1/realtime?model=dear") as (socket, _):
            await socket.send_text(create(None))
            assert await events(socket, 2) == SERVED
        await rig.wait_records(2)
    found = [(each.model, each.answered_model, each.complete, each.cost) for each in made]
    cheap, dear = (round(TOKENS * price / 1e6, 9) for price in (1, 100))
    assert found == [
        ("cheap", "cheap", True, cheap),
        ("dear", "dear", True, dear),
        ("cheap", "cheap", True, cheap),
        ("dear", "dear", False, None),
        ("dear", "", True, dear),
    ]
    assert all(0 < (each.first_byte_ms or 0) <= each.duration_ms < 10_000 for each in made)


@pytest.mark.parametrize("in_frames", [False, True])
async def test_a_response_that_is_answered_with_an_error_has_a_record_as_a_request_has(
    nursery: trio.Nursery, in_frames: bool
) -> None:
    """It had none: who was refused by the provider all day showed in no report.

    Of an error in two frames, only the last was searched for its status.
    """
    made: list[UsageRecord] = []
    found: list[RecordedBodies] = []
    upstream = Upstream(fails=True, in_frames=in_frames)
    north = await start_upstream(nursery, upstream.serve)
    recorder = BodyRecorder(on_bodies=found.append, providers=["ai"])
    async with open_rig(
        openai(north.url), nursery=nursery, on_usage=made.append, prices=PRICES, bodies=recorder
    ) as rig:
        rules = ClientRules(models=("cheap",))
        rig.set_clients(Client(id="ada", key_hashes=(hash_key(KEY),), rules=rules))
        async with connect_socket(rig.address, headers=BEARER) as (socket, _):
            for error in (
                '{"type": "error", "status": 429, "error": {"message": "\\"status\\": 500"}}',
                '{"type": "error", "error": {"type": "invalid_request_error"}}',
                '{"type": "error", "error": {"type": "server_error"}}',
            ):
                upstream.error = error
                await socket.send_text(create("cheap"))
                assert await events(socket, 1) == ["error"]
            await socket.send_text(create("dear"))
            assert await events(socket, 1) == ["model_not_allowed"]
            await socket.send_text('{"type": "session.update", "model": "dear"}')
            assert await events(socket, 1) == ["model_not_allowed"]  # asks for none
            upstream.fails = False
            await socket.send_text(create("cheap"))
            assert await events(socket, 2) == SERVED
            upstream.mute = True
            await socket.send_text(create("cheap"))  # it does not begin
            await upstream.wait_messages(5)
        await rig.wait_records(1)
    assert [
        (each.status, each.outcome, each.code, each.model, each.cost, each.complete, each.attempts)
        for each in made
    ] == [
        (429, "complete", "", "cheap", 0, False, 1),
        (400, "complete", "", "cheap", 0, False, 1),
        (500, "complete", "", "cheap", 0, False, 1),
        (403, "refused", "model_not_allowed", "", 0, False, 0),
        (101, "complete", "", "cheap", TOKENS / 1e6, True, 1),
        (101, "client_gone", "", "cheap", None, False, 1),
    ]
    assert all((each.first_byte_ms is None) == (at in (3, 5)) for at, each in enumerate(made))
    assert [each.status for each in found] == [429, 400, 500, 101, 101]
    assert all(create("cheap").encode() in each.request for each in found)
    assert b"dear" not in b"".join(each.request for each in found)


async def test_prompts_and_answers_on_a_websocket_are_recorded_for_each_response(
    nursery: trio.Nursery,
) -> None:
    """Those on websockets were not, though an operator had asked for it."""
    found: list[RecordedBodies] = []
    recorder = BodyRecorder(on_bodies=found.append, providers=["ai"], max_bytes=1000)
    upstream = Upstream()
    north = await start_upstream(nursery, upstream.serve)
    secret = [(b"x-secret", b"header-secret")]
    settings = GatewaySettings(allow_anonymous=True)  # nothing else wants the messages
    async with open_rig(
        openai(north.url, keys=["upstream-secret"]),
        openai(north.url, "other"),
        nursery=nursery,
        settings=settings,
        bodies=recorder,
    ) as rig:
        async with connect_socket(rig.address, headers=secret) as (socket, _):
            for text in ("One.", "x" * 3000):
                await socket.send_text('{"type": "session.update"}')
                await socket.send_text(create(input=text))
                assert await events(socket, 2) == SERVED
            upstream.hold = trio.Event()
            await socket.send_text(create(input="Three."))
            assert await events(socket, 1) == SERVED[:1]
        await rig.wait_records(1)
        upstream.hold = None
        async with connect_socket(rig.address, "/other/v1/responses") as (socket, _):
            await socket.send_text(create(input="private"))
            assert await events(socket, 2) == SERVED
        await rig.wait_records(2)
    first, second, third = found
    update = {"type": "session.update"}
    assert [json.loads(line) for line in first.request.splitlines()] == [
        update,
        json.loads(create(input="One.")),
    ]
    kinds = [json.loads(line)["type"] for line in first.response.splitlines()]
    assert kinds == SERVED
    assert (first.status, first.outcome, first.provider) == (101, "complete", "ai")
    assert (len(second.request), second.request_truncated) == (1000, True)
    assert b'"resp_2"' in second.response
    assert not second.response_truncated
    assert json.loads(third.request) == json.loads(create(input="Three."))
    assert json.loads(third.response)["type"] == SERVED[0]
    assert (third.outcome, third.request_truncated) == ("client_gone", False)
    assert len({each.request_id for each in found}) == 1
    recorded = b"".join(each.request + each.response for each in found)
    assert b"secret" not in recorded
    assert b"private" not in recorded
    assert recorder._held == 0


async def test_an_error_while_another_response_runs_takes_none_of_its_messages(
    nursery: trio.Nursery,
) -> None:
    made: list[UsageRecord] = []
    found: list[RecordedBodies] = []

    async def overlap(socket: Socket, _request: Request) -> None:
        await socket.receive()
        await socket.send_text(response("response.created", 1, "in_progress"))
        await socket.receive()
        await socket.send_text('{"type": "error", "status": 400, "error": {}}')
        await socket.send_text(response("response.completed", 1, "completed"))
        await socket.next_event()

    north = await start_upstream(nursery, overlap)
    recorder = BodyRecorder(on_bodies=found.append, providers=["ai"])
    async with open_rig(
        openai(north.url), nursery=nursery, on_usage=made.append, bodies=recorder
    ) as rig:
        async with connect_socket(rig.address) as (socket, _):
            await socket.send_text(create(input="One."))
            assert await events(socket, 1) == SERVED[:1]
            await socket.send_text(create(input="Two."))
            assert await events(socket, 2) == ["error", *SERVED[1:]]
        await rig.wait_records(1)
    assert [each.status for each in made] == [400, 101]
    [only] = found
    assert (only.status, only.request.count(b"response.create")) == (101, 2)
    kinds = [json.loads(line)["type"] for line in only.response.splitlines()]
    assert kinds == [SERVED[0], "error", SERVED[1]]
    assert recorder._held == 0
