from __future__ import annotations

import trio

from bridgepool.gateway.demo._upstream import WORDS
from tests.gateway.proxy.rig import anthropic, open_rig, openai, start_upstream

CHAT = "/ai/v1/chat/completions"


async def test_a_request_goes_to_the_provider_that_its_path_names(nursery: trio.Nursery) -> None:
    north, south = await start_upstream(nursery), await start_upstream(nursery, "south")
    async with open_rig(openai(north), anthropic(south), nursery=nursery) as rig:
        answer = await rig.ask(CHAT, {"model": "m"})
        assert answer.status == 200
        assert answer.json["model"] == "m@north"
        answer = await rig.ask("/claude/v1/messages", {"model": "m"})
        assert answer.json["model"] == "m@south"
    assert north.received[0].target == b"/v1/chat/completions"
    assert south.received[0].target == b"/v1/messages"


async def test_a_stream_arrives_word_by_word(nursery: trio.Nursery) -> None:
    north = await start_upstream(nursery)
    async with open_rig(openai(north), nursery=nursery) as rig:
        answer = await rig.ask(CHAT, {"model": "m", "stream": True})
    assert answer.body.count(b"data: ") == len(WORDS) + 2
    assert answer.body.endswith(b"data: [DONE]\n\n")
