"""Providers change while the SDKs stream, through the real gateway process."""

from __future__ import annotations

from pathlib import Path

import anthropic
import openai
import pytest
import trio

from bridgepool.gateway.demo._upstream import WORDS, SimulatedUpstream
from tests.e2e.files import provider, write
from tests.e2e.process import run_gateway

# The SDKs and their HTTP library leave async generators unfinished; Trio tells.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")


async def test_streams_end_where_they_began_while_new_calls_go_to_the_new_provider(
    north: SimulatedUpstream, south: SimulatedUpstream, tmp_path: Path
) -> None:
    file = tmp_path / "providers.toml"
    reached, may_go_on = [trio.Event(), trio.Event()], trio.Event()

    async def before_word(number: int) -> None:
        if number == 2:
            next(event for event in reached if not event.is_set()).set()
            await may_go_on.wait()

    north.before_word = before_word

    def point_to(upstream: SimulatedUpstream) -> None:
        write(
            file,
            provider("ai", "openai", upstream.openai_url),
            provider("claude", "anthropic", upstream.anthropic_url),
        )

    point_to(north)
    models: dict[str, set[str]] = {"openai": set()}
    texts: dict[str, str] = {}
    async with (
        run_gateway(file) as gateway,
        openai.AsyncOpenAI(base_url=f"{gateway.url}/ai/v1", api_key="x") as ai,
        anthropic.AsyncAnthropic(base_url=f"{gateway.url}/claude", api_key="x") as claude,
    ):

        async def stream_openai() -> None:
            stream = await ai.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "Hello."}], stream=True
            )
            said = []
            async for chunk in stream:
                models["openai"].add(chunk.model)
                said.append(chunk.choices[0].delta.content or "")
            texts["openai"] = "".join(said)

        async def stream_anthropic() -> None:
            async with claude.messages.stream(
                model="m", max_tokens=9, messages=[{"role": "user", "content": "Hello."}]
            ) as stream:
                message = await stream.get_final_message()
            models["anthropic"] = {message.model}
            texts["anthropic"] = "".join(block.text for block in message.content)  # type: ignore[union-attr]  # all are text

        async with trio.open_nursery() as streams:
            streams.start_soon(stream_openai)
            streams.start_soon(stream_anthropic)
            for event in reached:
                await event.wait()
            point_to(south)
            await gateway.wait_event("providers replaced", generation=2)
            new = await ai.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "Hello."}]
            )
            assert new.model == "m@south"
            newer = await claude.messages.create(
                model="m", max_tokens=9, messages=[{"role": "user", "content": "Hello."}]
            )
            assert newer.model == "m@south"
            assert not texts, "a stream ended early"
            may_go_on.set()
        assert models == {"openai": {"m@north"}, "anthropic": {"m@north"}}
        assert set(texts.values()) == {"".join(WORDS)}
        log = await gateway.stop()
    assert sorted(line["generation"] for line in log) == [1, 1, 2, 2]  # type: ignore[type-var]  # ints
