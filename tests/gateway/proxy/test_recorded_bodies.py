"""Prompts and answers: recorded only where that is asked for, bounded, and never with a header."""

from __future__ import annotations

import json
from functools import partial

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from bridgepool.gateway import BodyRecorder, RecordedBodies, bodies_line
from bridgepool.gateway.usage import _bodies
from bridgepool.http import Exchange, serve_http
from tests.gateway.proxy.raw import connect, post
from tests.gateway.proxy.rig import open_rig, openai, start_upstream

CHAT = "/{}/v1/chat/completions"


async def test_the_bodies_of_the_clients_and_providers_asked_for_are_recorded_and_no_others(
    nursery: trio.Nursery,
) -> None:
    upstream = await start_upstream(nursery)
    found: list[RecordedBodies] = []
    recorder = BodyRecorder(on_bodies=found.append, providers=["ai", "first"], max_bytes=100_000)
    providers = (
        openai(upstream, keys=["upstream-secret"]),
        openai(upstream, "other"),
        openai("http://127.0.0.1:9/v1", "first", fallback=("other",)),
    )
    async with open_rig(*providers, nursery=nursery, bodies=recorder) as rig:
        secret = ((b"x-secret", b"header-secret"), (b"accept-encoding", b"gzip"))
        whole = await rig.ask(CHAT.format("ai"), {"model": "m"}, secret)
        assert upstream.received[-1].header(b"accept-encoding") == b"identity"
        stream = await rig.ask(CHAT.format("ai"), {"model": "m", "stream": True}, secret)
        long = {"model": "m", "messages": [{"content": "x" * 300_000}]}
        await rig.ask(CHAT.format("ai"), long)
        await rig.ask(CHAT.format("other"), {"model": "private"}, secret)
        assert upstream.received[-1].header(b"accept-encoding") == b"gzip"
        await rig.ask(CHAT.format("first"), {"model": "asked of first"})
        records = await rig.wait_records(5)
    assert [one.request_id for one in found] == [records[at].request_id for at in (0, 1, 2, 4)]
    first, second, third, fourth = found
    assert json.loads(first.request) == {"model": "m"}
    assert first.response == whole.body
    assert second.response == stream.body
    assert b"data:" in second.response
    assert (len(third.request), third.request_truncated) == (100_000, True)
    assert [one.response_truncated for one in found] == [False] * 4
    assert not first.request_truncated
    assert (fourth.provider, json.loads(fourth.request)) == ("other", {"model": "asked of first"})
    lines = b"".join(piece for one in found for piece in bodies_line(one))
    assert lines.count(b"\n") == 4
    for text in (b"secret", b"private"):
        assert text not in lines
    assert recorder._held == 0


async def test_recording_delays_no_byte_and_an_answer_that_is_cut_is_recorded_as_far_as_it_came(
    nursery: trio.Nursery,
) -> None:
    async def handle(exchange: Exchange) -> None:
        async for _ in exchange.body:
            pass
        async with exchange.respond(200, ((b"content-type", b"text/event-stream"),)) as stream:
            await stream.send_all(b"data: one\n")
            await trio.sleep_forever()

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/v1"
    await nursery.start(partial(serve_http, handle, listeners))
    found: list[RecordedBodies] = []
    recorder = BodyRecorder(on_bodies=found.append, clients=["-"])
    async with open_rig(openai(url), nursery=nursery, bodies=recorder) as rig:
        async with connect(rig.address) as client:
            await client.send(post(CHAT.format("ai")))
            await client.read_until(b"data: one\n")  # it is no whole event
        await rig.wait_records(1)
    [one] = found
    assert (one.response, one.outcome, recorder._held) == (b"data: one\n", "client_gone", 0)


def test_all_recordings_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_bodies, "_MAX_TOTAL", 1000)
    recorder = BodyRecorder(on_bodies=print, clients=["a"])
    recordings = [recorder._begin("a", ()) for _ in range(3)]
    assert recorder._begin("b", ("p",)) is None
    for recording in recordings:
        assert recording is not None
        for _ in range(4):
            recording.response.feed(b"x" * 150)
    kept = [one.response for one in recordings if one is not None]
    assert [one.truncated for one in kept] == [False, True, True]
    assert recorder._held == 1000
    first = recordings[0]
    assert first is not None
    first.restart()  # another attempt
    first.response.feed(b"again")
    assert [len(one.take()) for one in kept] == [5, 400, 0]
    assert recorder._held == 0


@given(st.binary(max_size=60), st.text(max_size=60), st.integers(1, 9))
def test_the_line_of_recorded_bodies_is_one_of_json_however_its_pieces_divide_them(
    request: bytes, text: str, size: int
) -> None:
    bodies = RecordedBodies(
        time="t",
        request_id="r",
        client="a",
        provider="p",
        route="/x",
        status=200,
        outcome="complete",
        request=request,
        request_truncated=True,
        response=text.encode(),
        response_truncated=False,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_bodies, "_PIECE", size)
        line = b"".join(bodies_line(bodies))
    assert line.count(b"\n") == 1
    assert json.loads(line) == attrs.asdict(bodies) | {
        "request": request.decode("utf-8", "replace"),
        "response": text,
    }


def test_no_piece_of_a_long_line_takes_long_to_make() -> None:
    """An event loop waits for at most one of them: their thread pauses in between."""
    longest = b"\x01" * _bodies.MAX_BODY_BYTES  # six bytes for each, in JSON
    bodies = RecordedBodies(
        time="t",
        request_id="r",
        client="a",
        provider="p",
        route="/x",
        status=200,
        outcome="complete",
        request=longest,
        request_truncated=False,
        response=longest,
        response_truncated=False,
    )
    assert max(map(len, bodies_line(bodies))) < 256 * 1024
