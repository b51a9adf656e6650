"""A provider file that is written in place is not taken in part. The test turns the clock."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from bridgepool.gateway.providers import (
    ProviderFileError,
    ProviderFileSource,
    hash_key,
    new_client_key,
    open_provider_file,
)
from tests.gateway.providers.provider_files import EVENTS_ONLY, names, write

QUIET = 2.0
GAPS = [0.06, 0.15, 0.3, 0.5, 0.7]
HASH = hash_key(new_client_key())


def lines(key: str, count: int = 4) -> list[str]:
    """Make a file whose first part is often a good file; the last row of providers is off."""
    rows = ["allow_private = false\n"]
    for number in range(count):
        rows += [
            "[[providers]]\n",
            f'name = "p{number}"\n',
            'type = "openai"\n',
            f'base_url = "https://p{number}.example/v1"\n',
            f'keys = ["{key}"]\n',
            'headers = { x-team = "a" }\n',
            f"enabled = {'false' if number == count - 1 else 'true'}\n",
        ]
    return [*rows, "[[clients]]\n", 'id = "web"\n', f'key_hash = "{HASH}"\n']


@asynccontextmanager
async def opened(file: Path) -> AsyncIterator[ProviderFileSource]:
    write(file, "".join(lines("sk-old")))
    async with open_provider_file(file, look_interval=EVENTS_ONLY, quiet_time=QUIET) as source:
        await source.reload()
        yield source


async def settle(source: ProviderFileSource) -> None:
    """Wait until no thread reads: the source waits for the clock, or has answered."""
    while True:
        await wait_all_tasks_blocked()
        if not source._limiter.borrowed_tokens:
            return
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("gap", GAPS)
async def test_a_file_that_is_written_line_by_line_is_never_taken_in_part(
    tmp_path: Path, gap: float, mock_clock: MockClock
) -> None:
    file = tmp_path / "providers.toml"
    keys: list[str] = []

    async def follow(source: ProviderFileSource) -> None:
        while True:
            snapshot = await source.reload()
            assert names(snapshot) == ["p0", "p1", "p2", "p3"]
            assert [one.enabled for one in snapshot.providers] == [True, True, True, False]
            assert all(one.headers for one in snapshot.providers[:3])
            assert [client.id for client in source.clients.rows] == ["web"]
            keys.append(snapshot.providers[2].keys[0].reveal())
            await trio.sleep(0.05)

    async with opened(file) as source, trio.open_nursery() as nursery:
        nursery.start_soon(follow, source)
        await settle(source)
        with file.open("w", buffering=1) as writer:
            for line in lines("sk-new"):
                writer.write(line)
                for _ in range(3):
                    mock_clock.jump(gap / 3)
                    await settle(source)
        assert keys[0] == "sk-old"
        mock_clock.jump(QUIET)
        await settle(source)
        assert keys[-1] == "sk-new"
        nursery.cancel_scope.cancel()


async def test_what_is_taken_out_in_place_counts_once_the_file_is_quiet(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    file = tmp_path / "providers.toml"
    found: list[list[str]] = []

    async def reload(source: ProviderFileSource) -> None:
        found.append(names(await source.reload()))

    async with opened(file) as source, trio.open_nursery() as nursery:
        file.write_text("".join(lines("sk-new", 2)))
        nursery.start_soon(reload, source)
        await settle(source)
        mock_clock.jump(QUIET * 0.99)
        await settle(source)
        assert found == []
        mock_clock.jump(QUIET * 0.02)
        await settle(source)
        assert found == [["p0", "p1"]]


async def test_what_cannot_be_used_is_reported_once_the_file_is_quiet(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    file = tmp_path / "providers.toml"
    problems: list[str] = []

    async def reload(source: ProviderFileSource) -> None:
        try:
            await source.reload()
        except ProviderFileError as error:
            problems.append(str(error))

    async with opened(file) as source, trio.open_nursery() as nursery:
        file.write_text("providers = [")
        nursery.start_soon(reload, source)
        await settle(source)
        assert problems == []
        mock_clock.jump(QUIET)
        await settle(source)
        assert "is not TOML" in problems[0]


async def test_a_change_that_takes_nothing_out_counts_at_once(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    file = tmp_path / "providers.toml"
    async with opened(file) as source:
        for key in ("k", "sk-a-longer-one"):
            file.write_text("".join(lines(key)))
            with trio.fail_after(1):
                [first, *_] = (await source.reload()).providers
            assert first.keys[0].reveal() == key


async def test_a_file_that_is_renamed_into_its_place_counts_at_once(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    file, draft = tmp_path / "providers.toml", tmp_path / "draft"
    async with opened(file) as source:
        draft.write_text("".join(lines("sk-new", 1)))
        os.utime(draft, (1_700_000_000, 1_700_000_000))  # written a while before the rename
        draft.rename(file)
        assert names(await source.reload()) == ["p0"]
        draft.write_text("nothing")
        os.utime(draft, (1_700_000_000, 1_700_000_000))
        draft.rename(file)
        with pytest.raises(ProviderFileError):
            await source.reload()


async def test_a_new_file_in_its_place_that_is_still_written_waits_as_well(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    file = tmp_path / "providers.toml"
    found: list[list[str]] = []

    async def reload(source: ProviderFileSource) -> None:
        found.append(names(await source.reload()))

    async with opened(file) as source, trio.open_nursery() as nursery:
        file.unlink()
        text = lines("sk-new")
        with file.open("w", buffering=1) as writer:
            writer.writelines(text[:15])
            nursery.start_soon(reload, source)
            await settle(source)
            mock_clock.jump(QUIET / 2)
            await settle(source)
            writer.writelines(text[15:])
        assert found == []
        mock_clock.jump(QUIET)
        await settle(source)
        assert found == [["p0", "p1", "p2", "p3"]]
