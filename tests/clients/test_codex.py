"""Codex and its own websocket transport, through a real gateway."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.clients.codex import run_codex
from tests.e2e.files import client_row_and_key, provider, write
from tests.e2e.process import run_gateway
from tests.e2e.talking import TEXT, TalkingUpstream, start_talking_upstream

pytestmark = pytest.mark.clients


def said_on(upstream: TalkingUpstream) -> list[tuple[int, str, bool]]:
    """What the user said in each request for an answer.

    With the number of its websocket, and whether the request continues an earlier one on it, so
    that only what is new was sent.
    """
    said = []
    for number, asked in upstream.asked:
        if asked.get("generate") is False:  # it only sends its instructions ahead
            continue
        match asked["input"]:
            case [*_, {"role": "user", "content": [*_, {"text": str(text)}]}]:
                said.append((number, text, "previous_response_id" in asked))
    return said


async def test_turns_of_codex_pass_on_one_websocket_and_on_another_after_a_provider_change(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    north = await start_talking_upstream(nursery, "north")
    south = await start_talking_upstream(nursery, "south")
    file = tmp_path / "providers.toml"
    row, key = client_row_and_key("ada")
    write(file, provider("ai", "openai", north.openai_url), row)
    home = tmp_path / "home"
    home.mkdir()
    async with run_gateway(file, "--drain-timeout", "1") as gateway:
        async with run_codex(gateway.url, key, home) as codex:
            for text in ("One.", "Two."):
                assert await codex.turn(text) == [TEXT]
            write(file, provider("ai", "openai", south.openai_url), row)
            await gateway.wait_request(close_code=1012)
            for text in ("Three.", "Four."):
                assert await codex.turn(text) == [TEXT]
            south.before_words = trio.sleep_forever  # its next answer stops after its first event
            asked = len(south.asked)

            async def change_in_the_middle() -> None:
                while len(south.asked) == asked:  # noqa: ASYNC110 -- no event tells
                    await trio.sleep(0.01)
                write(file, provider("ai", "openai", north.openai_url), row)

            nursery.start_soon(change_in_the_middle)
            assert await codex.turn("Five.") == [TEXT]
        log = await gateway.stop()
    assert said_on(north)[1:] == [(1, "Two.", True), (2, "Five.", False)]
    assert said_on(south) == [(1, "Three.", False), (1, "Four.", True), (1, "Five.", True)]
    sockets = {
        line["generation"]: (line["status"], line["code"])
        for line in log
        if line["route"] == "/responses"
    }
    assert sockets == {1: (101, ""), 2: (101, "drain_deadline"), 3: (101, "")}
