"""The provider file on a real file system, with the real watcher. Nothing here waits for time:
`look_interval` is an hour where events must do, and tiny where only a look can."""

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from bridgepool import ProviderSnapshot, open_bridge_pool
from bridgepool._reload import watch_providers
from bridgepool.gateway.providers import (
    Provider,
    ProviderFileError,
    ProviderFileSource,
    open_provider_file,
)
from tests.garbage import cycles_left_by
from tests.gateway.providers.provider_files import (
    EVENTS_ONLY,
    follow_to,
    follow_to_error,
    move,
    names,
    opened,
    remove,
    text,
    write,
)


async def test_an_edit_in_place_is_noticed(file: Path) -> None:
    async with opened(file) as source:
        write(file, text("two"))
        await follow_to(source, "two")
        write(file, text("three"))
        await follow_to(source, "three")


async def test_a_file_renamed_into_its_place_is_noticed_again_and_again(file: Path) -> None:
    async with opened(file) as source:
        for name in ("two", "three", "four"):
            draft = file.with_name(f".{name}.tmp")
            draft.write_text(text(name))
            draft.rename(file)
            await follow_to(source, name)


async def test_an_editor_that_moves_the_old_file_away_first_loses_nothing(file: Path) -> None:
    async with opened(file) as source:
        backup = file.with_name("providers.toml~")
        move(file, backup)
        write(file, text("two"))
        remove(backup)
        await follow_to(source, "two")


async def test_a_half_written_file_keeps_what_is_in_force_until_it_is_whole(file: Path) -> None:
    whole = text("two", client="bob")
    async with opened(file) as source:
        with file.open("w") as writing:
            writing.write(whole[:50])
            writing.flush()
            await follow_to_error(source, "is not TOML")
            assert source.file is not None
            assert names(source.file.snapshot) == ["one"]
            assert [client.id for client in source.clients.rows] == ["alice"]
            writing.write(whole[50:])
        await follow_to(source, "two")
        assert [client.id for client in source.clients.rows] == ["bob"]


async def test_a_truncated_file_is_not_taken_for_a_wish_to_have_no_providers(file: Path) -> None:
    async with opened(file) as source:
        write(file, "")
        await follow_to_error(source, "has no [[providers]]")
        assert source.file is not None
        assert names(source.file.snapshot) == ["one"]
        write(file, "providers = []")
        await follow_to(source)
        assert not source.clients


async def test_a_deleted_file_that_comes_back_is_noticed_both_times(file: Path) -> None:
    async with opened(file) as source:
        remove(file)
        await follow_to_error(source, "does not exist")
        write(file, text("two"))
        await follow_to(source, "two")


async def test_a_file_that_is_not_there_yet_is_noticed_when_it_comes(tmp_path: Path) -> None:
    file = tmp_path / "providers.toml"
    async with open_provider_file(file, look_interval=EVENTS_ONLY) as source:
        with pytest.raises(ProviderFileError, match="does not exist"):
            await source.reload()
        assert source.file is None
        assert not source.clients
        write(file, text("one"))
        await follow_to(source, "one")


async def test_a_reload_that_fails_leaves_nothing_to_the_garbage_collector(file: Path) -> None:
    async with opened(file) as source:
        write(file, "providers = [")

        async def reload() -> None:
            with suppress(ProviderFileError):
                await source.reload()

        assert await cycles_left_by(reload) == []


async def test_links_that_are_switched_as_kubernetes_does_it_are_noticed(tmp_path: Path) -> None:
    def publish(version: str, name: str) -> None:
        (tmp_path / version).mkdir()
        (tmp_path / version / "providers.toml").write_text(text(name))
        (tmp_path / "..data_tmp").symlink_to(version)
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")

    publish("..v1", "one")
    file = tmp_path / "providers.toml"
    file.symlink_to("..data/providers.toml")
    async with opened(file) as source:
        for version, name in (("..v2", "two"), ("..v3", "three")):
            old = os.readlink(tmp_path / "..data")
            publish(version, name)
            shutil.rmtree(tmp_path / old)
            await follow_to(source, name)


async def test_an_edit_at_the_end_of_a_chain_of_links_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real = tmp_path / "real" / "file.toml"
    real.write_text(text("one"))
    (tmp_path / "middle").symlink_to("real/file.toml")
    (tmp_path / "etc").mkdir()
    file = tmp_path / "etc" / "providers.toml"
    file.symlink_to("../middle")
    async with opened(file) as source:
        real.write_text(text("two"))
        await follow_to(source, "two")
        (tmp_path / "other").mkdir()
        other = tmp_path / "other" / "file.toml"
        other.write_text(text("three"))
        (tmp_path / "new").symlink_to(other)
        (tmp_path / "new").rename(tmp_path / "middle")
        await follow_to(source, "three")
        other.write_text(text("four"))
        await follow_to(source, "four")


async def test_a_directory_that_goes_and_comes_back_is_followed(tmp_path: Path) -> None:
    directory = tmp_path / "etc"
    directory.mkdir()
    file = directory / "providers.toml"
    write(file, text("one"))
    async with opened(file, look_interval=0.01) as source:
        for name in ("two", "three"):
            shutil.rmtree(directory)
            await follow_to_error(source, "does not exist")
            directory.mkdir()
            write(file, text(name))
            await follow_to(source, name)


async def test_without_a_directory_to_watch_a_look_finds_the_file(tmp_path: Path) -> None:
    file = tmp_path / "not" / "yet" / "providers.toml"
    async with open_provider_file(file, look_interval=0.01) as source:
        file.parent.mkdir(parents=True)
        write(file, text("one"))
        await follow_to(source, "one")


async def test_a_change_of_permissions_is_noticed(file: Path) -> None:
    async with opened(file) as source:
        os.chmod(file, 0o400)
        await follow_to(source, "one")


async def test_the_path_is_that_of_the_moment_of_opening(
    file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.chdir(file.parent)
    async with open_provider_file("providers.toml", look_interval=EVENTS_ONLY) as source:
        monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
        assert names(await source.reload()) == ["one"]
        write(file, "x")
        await follow_to_error(source, "providers.toml: end of document: is not TOML")


async def test_a_reload_that_is_cancelled_changes_nothing(file: Path) -> None:
    async with opened(file) as source:
        before = source.file
        write(file, text("two"))
        with trio.CancelScope() as scope:
            scope.cancel()
            await source.reload()
        assert scope.cancelled_caught
        assert source.file is before
        assert names(await source.reload()) == ["two"]


async def test_leaving_ends_the_changes_and_what_the_block_raises_comes_out_as_it_is(
    file: Path,
) -> None:
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        async with opened(file) as source:
            raise error
    assert caught.value is error
    with pytest.raises(trio.ClosedResourceError):
        await source.changes.receive()

    async def reader() -> None:
        with pytest.raises((trio.ClosedResourceError, trio.EndOfChannel)):
            await source.changes.receive()

    async with trio.open_nursery() as nursery, opened(file) as source:
        nursery.start_soon(reader)
        await wait_all_tasks_blocked()

    with trio.CancelScope() as scope:
        async with opened(file):
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


@asynccontextmanager
async def open_bridge(key: str, snapshot: ProviderSnapshot[Provider]) -> AsyncIterator[list[str]]:
    yield names(snapshot)


async def test_without_watchfiles_the_parser_works_and_the_error_names_the_extra(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    monkeypatch.delitem(sys.modules, "bridgepool.gateway.providers._file_watcher", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'bridgepool\[gateway\]'"):
        async with open_provider_file(file):
            raise AssertionError


def test_importing_the_providers_brings_no_heavier_part() -> None:
    heavy = {"watchfiles", "structlog", "cyclopts", "truststore", "hypothesis"}
    program = (
        "import sys, bridgepool.gateway.providers, bridgepool._reload\n"
        f"print(sorted({heavy!r} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"[]\n"


@attrs.define(eq=False)
class Observed:
    """A reloader that tells, for each reload of another, how it went."""

    source: ProviderFileSource
    outcomes: trio.MemorySendChannel[str]

    async def reload(self) -> ProviderSnapshot[Provider]:
        try:
            snapshot = await self.source.reload()
        except ProviderFileError as error:
            self.outcomes.send_nowait(str(error))
            raise
        self.outcomes.send_nowait("good")
        return snapshot


async def test_a_pool_follows_the_file_and_keeps_the_last_good_providers(file: Path) -> None:
    send, outcomes = trio.open_memory_channel[str](1000)

    async def wait_for(wanted: str) -> None:
        with trio.fail_after(60):
            while wanted not in await outcomes.receive():
                pass

    async with (
        opened(file) as source,
        open_bridge_pool(open_bridge, await source.reload()) as pool,
        trio.open_nursery() as nursery,
    ):
        observed = Observed(source, send)
        status = await nursery.start(watch_providers, pool, observed, source.changes)
        await wait_for("good")
        assert pool.generation == 1
        async with pool.acquire("a request that lasts") as before:
            write(file, "providers = [ broken")
            await wait_for("line 1")
            assert "line 1" in (status.last_error or "")
            assert pool.generation == 1
            write(file, text("two"))
            await wait_for("good")
            assert pool.generation == 2
            async with pool.acquire("a request that lasts") as after:
                assert (before, after) == (["one"], ["two"])
        assert status.failures_in_a_row == 0
        nursery.cancel_scope.cancel()
    send.close()
    outcomes.close()
