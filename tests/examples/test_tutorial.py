"""What the tutorial and the README show is what happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bridgepool.gateway.providers import parse_provider_file
from tests.e2e.process import run_gateway
from tests.examples.support import EXAMPLES, ROOT, ask, output_of, running, streaming

WORDS = ("The", "pool", "that", "never", "cuts", "a", "stream.")


@pytest.mark.parametrize("name", ["first_pool", "follow_changes", "tiny_pool"])
def test_a_program_prints_what_the_tutorial_says(name: str) -> None:
    shown = (ROOT / "docs" / "output" / f"{name}.txt").read_text()
    assert output_of(f"{name}.py") == shown


def test_the_readme_shows_the_first_program_and_its_output_as_they_are() -> None:
    readme = (ROOT / "README.md").read_text()
    assert (EXAMPLES / "tiny_pool.py").read_text() in readme
    assert (ROOT / "docs" / "output" / "tiny_pool.txt").read_text() in readme


def test_the_provider_file_of_the_readme_is_good() -> None:
    readme = (ROOT / "README.md").read_text()
    files = re.findall(r"^```toml\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    assert [parse_provider_file(text).providers[0].name for text in files] == ["openai"]


async def test_an_edit_of_the_file_moves_the_next_stream_and_not_the_one_that_runs(
    tmp_path: Path,
) -> None:
    async with (
        running("slow_upstream.py", "north", "0", "0.1") as north,
        running("slow_upstream.py", "south", "0", "0.01") as south,
    ):
        before = await north.said("north listens on port ")
        after = await south.said("south listens on port ")
        file = tmp_path / "providers.toml"
        file.write_text((EXAMPLES / "providers.toml").read_text().replace("9001", before))
        path = "/words/v1/chat/completions"
        async with run_gateway(file) as gateway:
            async with streaming(gateway.url, path, b"{}") as stream:
                first = await stream.receive_some()
                file.write_text(file.read_text().replace(before, after))
                await gateway.wait_event("providers replaced", generation=2)
                second = await ask(gateway.url, path, b"{}")
                while piece := await stream.receive_some():
                    first += piece
            lines = [await gateway.wait_request(generation=number) for number in (1, 2)]
            assert await gateway.stop()
    assert first == b"".join(b"data: %s (north)\n\n" % word.encode() for word in WORDS)
    assert second == b"200\n" + first.replace(b"north", b"south")
    assert [line["outcome"] for line in lines] == ["complete", "complete"]
