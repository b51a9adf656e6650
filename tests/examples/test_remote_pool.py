"""The example of an own provider type, as two processes."""

from __future__ import annotations

import re

import pytest

from tests.examples.support import EXAMPLES, ROOT, running


async def test_two_processes_follow_the_changes_of_one_owner() -> None:
    async with running("remote_pool.py", "own") as owner:
        port = await owner.said("port ")
        async with running("remote_pool.py", "follow", port) as follower:
            for program, who in ((owner, "owner"), (follower, "follower")):
                first = await program.said(f"{who}: hall at ")
                await program.output.wait_for(
                    lambda line, who=who, first=first: (  # type: ignore[misc]  # bound now
                        line.startswith(f"{who}: hall at ") and not line.endswith(first)
                    )
                )
            assert not any("1234" in line for line in follower.output.lines)


@pytest.mark.parametrize("name", ["remote_pool.py"])
def test_it_is_short(name: str) -> None:
    assert len((EXAMPLES / name).read_text().splitlines()) < 80


def test_the_snippet_of_its_page_runs() -> None:
    page = (ROOT / "docs" / "howto" / "remote.md").read_text(encoding="utf-8")
    [snippet] = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    exec(snippet, {})
