from pathlib import Path

import pytest
import trio
import trio.testing

from bridgepool.gateway.providers._file_watcher import (
    FileWatcher,
    Scene,
    file_version,
    link_chain,
    look,
)


async def test_a_change_of_a_neighbour_is_looked_at_and_is_no_news(tmp_path: Path) -> None:
    file = tmp_path / "providers.toml"
    file.write_text("one")
    changed = 0

    def count() -> None:
        nonlocal changed
        changed += 1
        news.set()

    watcher = FileWatcher(file, count, look_interval=3600)
    events = watcher._events.subscribe()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await watcher.look_first()
            nursery.start_soon(watcher.run)
            # The first look after the watches stand; and with it all that is before.
            for _ in range(5):
                await trio.to_thread.run_sync(int, limiter=watcher._limiter)
            for number in range(3):
                (tmp_path / "neighbour").write_text(str(number))
                await events.receive()
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()
                await trio.to_thread.run_sync(int, limiter=watcher._limiter)
                assert changed == 0
            news = trio.Event()
            file.write_text("two")
            await news.wait()
            nursery.cancel_scope.cancel()


async def test_an_event_about_the_file_is_news_though_it_looks_the_same(tmp_path: Path) -> None:
    """Two edits of the same length within one tick of the file system's clock look alike."""
    file = tmp_path / "providers.toml"
    file.write_text("one")
    news = trio.Event()
    watcher = FileWatcher(file, news.set, look_interval=3600)
    await watcher.look_first()
    scene = look(file)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watcher._follow_scene, scene)
            await trio.testing.wait_all_tasks_blocked()
            assert not news.is_set()
            watcher._take({str(file)}, scene)
            await news.wait()
            nursery.cancel_scope.cancel()


async def test_when_events_cannot_be_had_the_looks_go_on_and_it_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watcher = FileWatcher(tmp_path / "x", lambda: None, look_interval=0.01)
    nowhere = Scene(
        names=frozenset(), directories=(str(tmp_path / "gone"),), places=((0, 0),), version=None
    )
    for _ in range(2):
        with trio.fail_after(60):
            await watcher._follow_events(nowhere)
        assert watcher._blind
    assert len(caplog.records) == 1
    assert "polling every 0.01 s" in caplog.text
    # At the next look the watches are set up anew.
    with trio.fail_after(60):
        assert await watcher._follow_scene(look(watcher.path)) == look(watcher.path)


def test_the_chain_of_links_is_followed_to_its_end_and_never_for_ever(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to(tmp_path / "c")
    (tmp_path / "c").write_text("x")
    assert link_chain(tmp_path / "a") == [tmp_path / "a", tmp_path / "b", tmp_path / "c"]
    (tmp_path / "loop").symlink_to("loop")
    assert len(link_chain(tmp_path / "loop")) == 40


def test_only_a_regular_file_has_an_identity(tmp_path: Path) -> None:
    assert file_version(tmp_path) is None
    assert file_version(tmp_path / "none") is None
    (tmp_path / "file").write_text("x")
    first = file_version(tmp_path / "file")
    assert first is not None
    (tmp_path / "file").write_text("xy")
    assert file_version(tmp_path / "file") != first
