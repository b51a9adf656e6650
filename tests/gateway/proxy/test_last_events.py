"""The last event of a stream that cannot be completed, in its client's dialect."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any

import anthropic as anthropic_sdk
import attrs
import openai as openai_sdk
import pytest
import trio
import trio.testing

from bridgepool.gateway import GatewaySettings, Outcome
from tests.gateway.proxy.at_once import AtOnce, host
from tests.gateway.proxy.raw import RawClient, connect, post, raw_upstream, says, silence
from tests.gateway.proxy.rig import anthropic, open_rig, openai

OPEN = GatewaySettings(allow_anonymous=True, min_reload_interval=0.001)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
SIZE = re.compile(rb"\r\n([0-9a-f]+)\r\n")  # of a chunk
QUOTED = (
    r'{"type":"response.output_text.delta","delta":"\\"sequence_number\\":99","sequence_number":7}'
)


def chunk(event: str) -> bytes:
    data = f"data: {event}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_event(data: bytes) -> tuple[bytes | None, Any]:
    """Return the name and the document of the last event that a client received."""
    assert not data.endswith(b"0\r\n\r\n"), "it looks complete"
    lines = data.rstrip().rpartition(b"\r\n")[2].split(b"\n")
    name = next((line[7:] for line in lines if line.startswith(b"event: ")), None)
    [document] = [line[6:] for line in lines if line.startswith(b"data: ")]
    return name, json.loads(document)


async def read_first(client: RawClient, target: str) -> None:
    await client.send(post(target))
    await client.read_until(b"data: ")


async def test_a_cut_responses_stream_ends_with_an_event_that_its_sdks_know(
    nursery: trio.Nursery,
) -> None:
    """OpenAI's SDK and Vercel's each read other fields of it."""
    url = await raw_upstream(nursery, says(HEAD + chunk('{"sequence_number":6}') + chunk(QUOTED)))
    async with (
        open_rig(openai(url), nursery=nursery) as rig,
        connect(rig.address) as client,
        connect(rig.address) as other,
    ):
        await client.send(post("/ai/v1/responses"))
        name, document = last_event(await client.read_to_end())
        assert name == b"error"
        assert document["type"] == "error"
        assert document["sequence_number"] == 8
        assert (document["code"], document["param"]) == ("upstream_cut", None)
        assert document["error"]["code"] == "upstream_cut"
        assert document["message"] == document["error"]["message"]
        await read_first(other, "/ai/v1/chat/completions")
        name, document = last_event(await other.read_to_end())
        assert (name, set(document)) == (None, {"error", "request_id"})
        for record, got in zip(await rig.wait_records(2), (client.data, other.data), strict=True):
            assert record.bytes_sent == sum(int(size, 16) for size in SIZE.findall(got))


async def again(address: str) -> RawClient:
    host, _, port = address.partition(":")
    return RawClient(await trio.open_tcp_stream(host, int(port)))


@pytest.mark.parametrize(
    "target", ["/ai/v1/responses", "/ai/v1/chat/completions", "/claude/v1/messages"]
)
async def test_a_drain_deadline_and_a_shutdown_give_their_last_event(
    nursery: trio.Nursery, target: str
) -> None:
    url = await raw_upstream(nursery, says(HEAD + chunk('{"sequence_number":3}'), then=silence))
    settings = attrs.evolve(OPEN, drain_timeout=0.05)
    providers = (openai(url), anthropic(url.removesuffix("/v1")))
    named = None if target.endswith("completions") else b"error"
    async with open_rig(*providers, nursery=nursery, settings=settings) as rig:
        async with connect(rig.address) as client:
            await read_first(client, target)
            await rig.replace()
            name, document = last_event(await client.read_to_end())
        assert name == named
        assert document["error"]["code"] == "drain_deadline"
        if target.endswith("responses"):
            assert document["sequence_number"] == 4
        await rig.replace(*providers)
        client = await again(rig.address)
        await read_first(client, target)
    name, document = last_event(await client.read_to_end())
    assert name == named
    assert document["error"]["code"] == "shutting_down"
    await client.stream.aclose()
    outcomes = [(record.outcome, record.code) for record in rig.records]
    assert outcomes == [
        (Outcome.DRAIN_DEADLINE, "drain_deadline"),
        (Outcome.SHUTDOWN, "shutting_down"),
    ]


async def test_a_stream_of_which_a_piece_came_as_it_was_ended_has_its_last_event(
    nursery: trio.Nursery,
) -> None:
    """The send of that piece counted as interrupted, so nothing could follow it."""
    go_on = trio.Event()

    async def speak(stream: trio.SocketStream) -> None:
        await go_on.wait()
        await stream.send_all(chunk('{"sequence_number":4}'))
        await trio.sleep_forever()

    url = await raw_upstream(nursery, says(HEAD + chunk('{"sequence_number":3}'), then=speak))
    serving: trio.Nursery = await nursery.start(host)
    async with open_rig(openai(url), nursery=serving) as rig, connect(rig.address) as client:
        await read_first(client, "/ai/v1/responses")
        await trio.testing.wait_all_tasks_blocked(0.05)
        at_once = AtOnce("_accepting._run_handler", serving.cancel_scope)
        trio.lowlevel.add_instrument(at_once)
        go_on.set()
        name, document = last_event(await client.read_to_end())
        trio.lowlevel.remove_instrument(at_once)
        assert (name, document["code"]) == (b"error", "shutting_down")
        assert document["sequence_number"] == 4
    assert at_once.has_cancelled


async def test_the_end_of_a_shutdown_before_any_answer_is_a_503(nursery: trio.Nursery) -> None:
    asked = trio.Event()

    async def ask_in_vain(stream: trio.SocketStream) -> None:
        asked.set()
        await silence(stream)

    url = await raw_upstream(nursery, says(b"", then=ask_in_vain))
    async with open_rig(openai(url), nursery=nursery) as rig:
        client = await again(rig.address)
        await client.send(post("/ai/v1/responses"))
        with trio.fail_after(60):
            await asked.wait()
    data = await client.read_to_end()
    assert data.startswith(b"HTTP/1.1 503 ")
    assert b'"code":"shutting_down"' in data
    await client.stream.aclose()


async def test_nothing_follows_a_piece_that_was_cut_off_by_the_deadline(
    nursery: trio.Nursery,
) -> None:
    """A client that does not read holds the piece up: an event would end up inside of it."""
    many = b"".join(chunk(json.dumps({"text": "x" * 65000})) for _ in range(400))

    async def sends_much(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await says(HEAD + many)(stream)

    url = await raw_upstream(nursery, sends_much)
    settings = attrs.evolve(OPEN, drain_timeout=0.05)
    async with (
        open_rig(openai(url), nursery=nursery, settings=settings) as rig,
        connect(rig.address) as client,
    ):
        await read_first(client, "/ai/v1/responses")
        await rig.replace()
        [record] = await rig.wait_records(1)
        assert record.outcome is Outcome.DRAIN_DEADLINE
        assert b"drain_deadline" not in await client.read_to_end()


@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
async def test_the_sdks_raise_their_own_errors_for_it(nursery: trio.Nursery) -> None:
    url = await raw_upstream(
        nursery, says(HEAD + chunk('{"type":"response.in_progress","sequence_number":1}'))
    )
    async with open_rig(openai(url), anthropic(url.removesuffix("/v1")), nursery=nursery) as rig:
        base = f"http://{rig.address}"
        async with openai_sdk.AsyncOpenAI(base_url=f"{base}/ai/v1", api_key="x") as sdk:
            with pytest.raises(openai_sdk.APIError, match="ended its answer before"):
                async for _ in await sdk.responses.create(model="m", input="x", stream=True):
                    pass
        async with anthropic_sdk.AsyncAnthropic(base_url=f"{base}/claude", api_key="x") as claude:
            with pytest.raises(anthropic_sdk.APIError, match="ended its answer before"):
                async for _ in await claude.messages.create(
                    model="m", max_tokens=1, messages=[], stream=True
                ):
                    pass
