"""The spool: what is added is stored, each once and in order, whatever happens in between."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from bridgepool.gateway import JournalError, NotStoredError, UsageRecord, open_usage_spool
from bridgepool.gateway.usage._journal import Journal
from bridgepool.gateway.usage._spool import MAX_BATCH


def record(number: int) -> UsageRecord:
    return UsageRecord(
        id=f"{number:06}", time="t", client="web", provider="ai", tools=("shell",), attempts=1
    )


@attrs.define(eq=False)
class Store:
    """Keeps each record once; fails and hangs when it is told to."""

    kept: dict[str, UsageRecord] = attrs.field(factory=dict)
    batches: list[int] = attrs.field(factory=list)
    fails: int = 0
    hangs: bool = False
    loses_answers: bool = False

    async def __call__(self, records: Iterable[UsageRecord]) -> None:
        await trio.lowlevel.checkpoint()
        if self.hangs:
            await trio.sleep_forever()
        if self.fails and not self.loses_answers:
            self.fails -= 1
            raise NotStoredError("away")
        records = tuple(records)
        self.batches.append(len(records))
        for one in records:
            self.kept.setdefault(one.id, one)
        if self.fails:
            self.fails -= 1
            raise NotStoredError("no answer")

    @property
    def ids(self) -> list[int]:
        return [int(id) for id in self.kept]


async def test_records_are_sent_in_order_in_batches_until_they_are_stored(
    autojump_clock: MockClock, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store()
    async with open_usage_spool() as spool:
        for number in range(450):
            spool.add(record(number))
        store.fails = 3
        nursery.start_soon(spool.send, store)
        await spool.wait_empty()
        assert store.ids == list(range(450))
        assert store.kept["000007"] == record(7)
        assert store.batches == [MAX_BATCH, MAX_BATCH, 50]
        assert caplog.text.count("usage records not stored; retrying: away") == 1
        store.fails, store.loses_answers = 2, True  # stored, and not known to be
        for number in range(450, 460):
            spool.add(record(number))
        await spool.wait_empty()
        assert store.ids == list(range(460))
        assert store.batches[3:] == [10, 10, 10]
        statistics = spool.statistics()
        assert (statistics.pending, statistics.pending_bytes) == (0, 0)
        assert (statistics.stored, statistics.dropped) == (460, 0)
        nursery.cancel_scope.cancel()


async def test_a_session_that_ends_leaves_its_batch_for_the_next(
    autojump_clock: MockClock,
) -> None:
    store = Store(hangs=True)
    async with open_usage_spool() as spool:
        for number in range(3):
            spool.add(record(number))
        for _ in range(2):
            async with trio.open_nursery() as session:
                session.start_soon(spool.send, store)
                await trio.sleep(1)
                session.cancel_scope.cancel()
        store.hangs = False
        async with trio.open_nursery() as session:
            session.start_soon(spool.send, store)
            await spool.wait_empty()
            session.cancel_scope.cancel()
    assert store.ids == [0, 1, 2]


async def test_what_waits_for_the_last_records_does_not_wait_for_the_next_try(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    store = Store(fails=8)
    async with open_usage_spool() as spool:
        spool.add(record(1))
        nursery.start_soon(spool.send, store)
        while store.fails > 1:  # noqa: ASYNC110 -- then the pauses are as long as they get
            await trio.sleep(0.01)
        store.fails = 0
        with trio.fail_after(0.5):
            await spool.wait_empty()
        nursery.cancel_scope.cancel()


async def test_a_full_spool_drops_and_counts_or_has_requests_refused(
    autojump_clock: MockClock, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store()
    async with open_usage_spool(max_bytes=5000) as spool:
        for number in range(100):
            spool.add(record(number))
        statistics = spool.statistics()
        assert statistics.pending + statistics.dropped == 100
        assert 5000 <= statistics.pending_bytes < 6000
        assert not spool.full  # no request is refused for it
        nursery.start_soon(spool.send, store)
        await spool.wait_empty()
        assert store.ids == list(range(statistics.pending))
        assert caplog.text.count("usage spool full; dropping records") == 1
        assert caplog.text.count("usage records dropped") == 1
        spool.add(record(200))
        await spool.wait_empty()
    async with open_usage_spool(max_bytes=5000, refuses=True) as spool:
        for number in range(100):  # of requests that run: they are kept
            assert spool.full == (spool.statistics().pending_bytes >= 5000)
            spool.add(record(number))
        for number in range(100):  # of requests that were refused for it: they fill no memory
            spool.add(attrs.evolve(record(number), code="usage_unavailable", attempts=0))
        assert (spool.full, spool.statistics().pending) == (True, 100)
        assert spool.statistics().dropped == 0
        nursery.start_soon(spool.send, store)
        await spool.wait_empty()
        assert not spool.full
        nursery.cancel_scope.cancel()
    assert "usage records lost" not in caplog.text
    async with open_usage_spool() as spool:
        spool.add(record(1))
    assert "usage records lost" in caplog.text


async def test_records_in_a_directory_survive_the_end_of_the_program(tmp_path: Path) -> None:
    directory = tmp_path / "spool"
    store = Store()
    async with open_usage_spool(directory) as spool:
        for number in range(10):
            spool.add(record(number))
        with pytest.raises(JournalError, match="is used by another program"):
            async with open_usage_spool(directory):
                pass
        shutil.copytree(directory, tmp_path / "killed")  # as a kill at this point leaves it
    for place in ("spool", "killed"):
        async with open_usage_spool(tmp_path / place) as spool, trio.open_nursery() as nursery:
            assert spool.statistics().pending == 10
            spool.add(record(10))
            nursery.start_soon(spool.send, store)
            await spool.wait_empty()
            nursery.cancel_scope.cancel()
        assert os.listdir(tmp_path / place) == ["lock"]
    assert store.ids == list(range(11))
    assert oct(directory.stat().st_mode & 0o777) == "0o700"
    with pytest.raises(JournalError, match="lock: is not a directory"):
        async with open_usage_spool(tmp_path / "spool" / "lock"):
            pass


async def test_many_records_go_through_many_files_which_are_removed(tmp_path: Path) -> None:
    store = Store()
    async with open_usage_spool(tmp_path, max_bytes=1_200_000) as spool, trio.open_nursery() as n:
        n.start_soon(spool.send, store)
        for number in range(3000):
            spool.add(record(number))
            if number % 200 == 0:
                await trio.lowlevel.checkpoint()  # the thread makes the next file meanwhile
        await spool.wait_empty()
        n.cancel_scope.cancel()
    assert spool.statistics().dropped == 0
    assert store.ids == list(range(3000))
    assert os.listdir(tmp_path) == ["lock"]


async def test_a_directory_that_cannot_be_written_is_reported_and_caught_up_with(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mock_clock: MockClock
) -> None:
    """What was in memory only meanwhile is in the directory when that can be written again."""
    directory = tmp_path / "spool"

    async def until(holds: Callable[[], bool]) -> None:
        while not holds():
            mock_clock.jump(0.1)  # a thread works meanwhile, in real time
            await trio.lowlevel.checkpoint()

    async with open_usage_spool(directory, max_bytes=2 * 10**6, refuses=True) as spool:
        journal = spool._journal
        assert journal is not None
        await until(lambda: journal._spare is not None)
        shutil.rmtree(directory)  # no file can be made there any more
        for number in range(4000):
            spool.add(record(number))
        await until(lambda: spool.failing)
        assert spool.full
        assert caplog.text.count("usage spool cannot be written; records in memory") == 1
        unwritten = spool._unwritten
        assert 0 < unwritten < 4000
        spool.add(attrs.evolve(record(4000), code="usage_unavailable", attempts=0))
        assert spool._unwritten == unwritten, "a refused request fills no memory"
        directory.mkdir()
        await until(lambda: not spool._unwritten)
        assert not spool.failing
        assert caplog.text.count("usage spool can be written again") == 1
    assert "usage records lost" in caplog.text, "those in the files that were removed"
    store = Store()
    async with open_usage_spool(directory) as spool, trio.open_nursery() as nursery:
        nursery.start_soon(spool.send, store)
        await until(lambda: not spool.statistics().pending)
        nursery.cancel_scope.cancel()
    assert store.ids == list(range(4000 - unwritten, 4000))


async def test_records_in_memory_only_are_counted_when_they_are_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_usage_spool(tmp_path) as spool:
        assert spool._journal is not None
        spool._journal._size = 2**62  # no disk has so much
        spool._journal._spare = None
        for number in range(8000):
            spool.add(record(number))
        unwritten = spool._unwritten
    [lost] = [one for one in caplog.records if one.getMessage() == "usage records lost"]
    assert lost.__dict__["records"] == unwritten > 0


def test_a_damaged_file_is_kept_for_the_operator_and_a_torn_one_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def open_again(change: Callable[[bytearray], None]) -> list[bytes]:
        [file] = tmp_path.glob("*.usage")
        content = bytearray(file.read_bytes())
        change(content)
        file.write_bytes(content)
        with _journal(tmp_path) as (journal, found):
            journal.acknowledge(len(found))
            for data in (b"one" * 9, b"two" * 9):
                assert journal.append(data)
        return found

    def tear(content: bytearray) -> None:
        content[-1500:] = bytes(1500)
        end = content.rindex(b"two")
        content[end : end + 3] = bytes(3)  # the last bytes were not written

    def spoil(content: bytearray) -> None:
        content[30] ^= 1

    def overwrite(content: bytearray) -> None:
        content[:] = b"not ours" * 10

    with _journal(tmp_path) as (journal, _):
        for data in (b"one" * 9, b"two" * 9):
            assert journal.append(data)
    assert open_again(tear) == [b"one" * 9]
    assert list(tmp_path.glob("*.damaged")) == []
    for change in (spoil, overwrite):
        caplog.clear()
        assert open_again(change) == []
        assert "usage spool has a damaged file; records are missing" in caplog.text
        [kept] = tmp_path.glob("*.damaged")
        assert kept.stat().st_mode & 0o077 == 0
        kept.unlink()


@contextmanager
def _journal(directory: Path) -> Iterator[tuple[Journal, list[bytes]]]:
    journal, found = Journal.open(directory, 2000)
    try:
        yield journal, found
    finally:
        journal.close()


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(1, 600)),
            st.tuples(st.just("acknowledge"), st.integers(1, 5)),
            st.tuples(st.just("kill"), st.just(0)),
            st.tuples(st.just("restart"), st.just(0)),
        ),
        max_size=40,
    )
)
def test_the_journal_has_what_was_added_and_is_not_done_with_after_any_kill(
    steps: list[tuple[str, int]],
) -> None:
    """A model of one list; a kill leaves what a copy of the directory has at that moment."""
    with tempfile.TemporaryDirectory() as folder:
        place, kills = Path(folder) / "0", 0
        journal, expected = Journal.open(place, 2000)[0], list[bytes]()
        count = 0
        for step, value in steps:
            if step == "add":
                count += 1
                data = b"%d:" % count + b"x" * value
                if journal._spare is None:  # what `run` does in a thread
                    journal._spare = journal._do_work(True, journal._done)
                assert journal.append(data)
                expected.append(data)
            elif step == "acknowledge":
                value = min(value, len(expected))
                journal.acknowledge(value)
                del expected[:value]
            else:
                if step == "kill":
                    kills += 1
                    shutil.copytree(place, Path(folder) / str(kills))
                journal.close()
                place = Path(folder) / str(kills)
                journal, found = Journal.open(place, 2000)
                assert found == expected
        journal._do_work(False, journal._done)  # removes the files that are done with
        files = [path for path in place.iterdir() if path.suffix == ".usage"]
        assert len(files) <= len(expected) + 2  # the one in use, and the spare one
        journal.close()


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_damaged_file_gives_the_records_before_the_damage(data: st.DataObject) -> None:
    records = [b"%d" % n * 20 for n in range(10)]
    with tempfile.TemporaryDirectory() as folder:
        journal, _ = Journal.open(Path(folder), 2000)
        for one in records:
            journal.append(one)
        journal.close()
        [file] = Path(folder).glob("*.usage")
        content = bytearray(file.read_bytes())
        at = data.draw(st.integers(16, 16 + sum(8 + len(one) for one in records) - 1))
        content[at] ^= data.draw(st.integers(1, 255))
        cut = data.draw(st.sampled_from([len(content), at, 3, 0]))
        file.write_bytes(content[:cut])
        journal, found = Journal.open(Path(folder), 2000)
        assert found == records[: len(found)]
        assert journal.append(b"more")
        journal.close()
