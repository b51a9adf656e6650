"""The SDKs, unmodified: a provider is down, and another serves; or none does, and they are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from bridgepool.gateway.demo._upstream import WORDS, SimulatedUpstream
from tests.e2e.files import provider, write
from tests.e2e.process import run_gateway
from tests.gateway.proxy.dying import closed_port

# The SDK and its HTTP library leave their async generators unfinished at [DONE]; Trio tells.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")

TEXT = "".join(WORDS)


async def test_a_fallback_is_not_noticed_and_an_open_breaker_raises_the_errors_of_the_sdks(
    north: SimulatedUpstream, tmp_path: Path
) -> None:
    dead = closed_port()
    file = tmp_path / "providers.toml"
    fast: dict[str, Any] = {"breaker": True, "breaker_failures": 1}
    write(
        file,
        provider("ai", "openai", dead, fallback=["ai2"], **fast),
        provider("ai2", "openai", north.openai_url),
        provider("claude", "anthropic", dead, fallback=["claude2"], retries=1, **fast),
        provider("claude2", "anthropic", north.anthropic_url),
        provider("alone", "openai", dead, **fast),
        provider("lonely", "anthropic", dead, **fast),
    )
    async with run_gateway(file) as gateway:
        await ask_openai(gateway.url)
        await ask_anthropic(gateway.url)


async def ask_openai(url: str) -> None:
    def sdk(name: str) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{url}/{name}/v1", api_key="any", max_retries=0)

    async with sdk("ai") as client, sdk("alone") as alone:
        for _ in range(2):
            stream = await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "Hello."}], stream=True
            )
            words = [chunk.choices[0].delta.content async for chunk in stream]
            assert "".join(word or "" for word in words) == TEXT
            assert stream.response.headers["x-bridgepool-fallback"] == "ai2"
        codes = []
        for _ in range(2):
            with pytest.raises(openai.InternalServerError) as failed:
                await alone.responses.create(model="m", input="Hello.")
            codes.append(failed.value.code)
        assert codes == ["upstream_unreachable", "circuit_open"]
        assert 0 < int(failed.value.response.headers["retry-after"]) <= 30


async def ask_anthropic(url: str) -> None:
    def sdk(name: str) -> anthropic.AsyncAnthropic:
        return anthropic.AsyncAnthropic(base_url=f"{url}/{name}", api_key="any", max_retries=0)

    async with sdk("claude") as client, sdk("lonely") as lonely:
        answer = await client.messages.create(
            model="m", max_tokens=9, messages=[{"role": "user", "content": "Hello."}]
        )
        assert "".join(block.text for block in answer.content if block.type == "text") == TEXT
        for status in (502, 503):
            with pytest.raises(anthropic.InternalServerError) as failed:
                await lonely.messages.create(
                    model="m", max_tokens=9, messages=[{"role": "user", "content": "Hello."}]
                )
            assert failed.value.status_code == status
        assert "paused" in failed.value.message
