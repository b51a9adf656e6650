"""The lines of logs: gathered, written by a thread, dropped and counted when nobody reads them."""

from __future__ import annotations

import errno
import gc
import io
import json
import logging
import os
import resource
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from bridgepool.gateway import LineWriter
from bridgepool.gateway.serving import _line_writer as line_writer
from bridgepool.gateway.serving._line_writer import LogFile, close_writers, write_to
from bridgepool.gateway.serving._logs import open_program_logs


async def test_lines_are_written_together_and_the_last_ones_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    async with trio.open_nursery() as nursery:
        writer = LineWriter(write_to(descriptor))
        await nursery.start(writer.run)
        for number in range(100):
            writer.append(b"%d\n" % number)
        nursery.cancel_scope.cancel()
    os.close(descriptor)
    assert path.read_bytes() == b"".join(b"%d\n" % number for number in range(100))
    assert writer.dropped == 0


async def test_a_long_line_is_made_in_the_thread_and_counts_until_then() -> None:
    written: list[bytes] = []
    made_in: set[int] = set()

    def pieces() -> Iterator[bytes]:
        for piece in (b"long", b" line", b"\n"):
            made_in.add(threading.get_ident())
            yield piece

    async with trio.open_nursery() as nursery:
        writer = LineWriter(written.append)
        writer.append(b"before\n")
        writer.append_pieces(pieces(), writer.max_buffered)
        writer.append(b"dropped\n")
        assert (made_in, writer.dropped) == (set(), 1)
        await nursery.start(writer.run)
        nursery.cancel_scope.cancel()
    assert b"".join(written) == b"before\nlong line\n"
    assert threading.get_ident() not in made_in


def test_lines_are_written_in_batches_that_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sink that was behind has no copy of all lines made for it."""
    monkeypatch.setattr(line_writer, "_MAX_BATCH", 10)
    written: list[bytes] = []
    writer = LineWriter(written.append)
    for line in (b"long line\n", b"1\n", b"2\n", b"long line\n", b"3\n"):
        writer.append(line)
    writer.start()
    close_writers([writer])
    assert written == [b"long line\n", b"1\n2\nlong line\n", b"3\n"]


async def test_a_sink_that_fails_costs_its_lines_and_nothing_else() -> None:
    written: list[bytes] = []
    broken = True

    def write(data: bytes) -> None:
        if broken:
            raise OSError("disk full")
        written.append(data)

    async with trio.open_nursery() as nursery:
        writer = LineWriter(write)
        await nursery.start(writer.run)
        writer.append(b"lost\n")
        while not writer.dropped:  # noqa: ASYNC110 -- no event tells
            await trio.sleep(0.001)
        broken = False
        writer.append(b"kept\n")
        nursery.cancel_scope.cancel()
    assert (writer.dropped, b"".join(written)) == (1, b"kept\n")


async def test_a_sink_that_hangs_neither_blocks_nor_fills_the_memory() -> None:
    free = threading.Event()

    def write(_: bytes) -> None:
        free.wait(30)

    async with trio.open_nursery() as nursery:
        writer = LineWriter(write)
        await nursery.start(writer.run)
        line = b"x" * 2**20
        for _ in range(64):
            writer.append(line)
        assert 0 < writer.dropped < 64
        nursery.cancel_scope.cancel()
        free.set()


def test_the_number_of_dropped_lines_is_logged_when_the_sink_is_read_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    read = threading.Event()
    writing = threading.Event()

    def write(_: bytes) -> None:
        writing.set()
        assert read.wait(30)

    writer = LineWriter(write, name="a log", max_buffered=100)
    writer.start()
    writer.append(b"x" * 101)
    assert writing.wait(30)
    for _ in range(5):
        writer.append(b"lost\n")
    assert writer.dropped == 5
    read.set()
    close_writers([writer])
    [record] = caplog.records
    assert record.getMessage() == "log lines dropped"
    assert (vars(record)["log"], vars(record)["lines"]) == ("a log", 5)


def test_a_full_disk_is_not_taken_for_one_with_room_when_nothing_is_written(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The end of a program, and a rotation, logged `log lines dropped`: that it can be written."""

    def write(data: bytes) -> None:
        if data:
            raise OSError(errno.ENOSPC, "no space")

    writer = LineWriter(write, name="a log")
    writer.append(b"lost\n")
    close_writers([writer])
    for _ in range(2):
        writer.start()
        writer.append(b"")  # as for a rotation
        close_writers([writer])
    assert caplog.messages == ["log cannot be written"]
    assert writer.dropped == 1


def test_a_line_does_not_continue_what_a_full_disk_left_of_another(tmp_path: Path) -> None:
    """The next line was lost with it, though it was not counted as dropped."""
    path = tmp_path / "log"
    file = LogFile.open(str(path))
    file(b"whole\n")
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, unlimited[1]))
    try:
        for _ in range(2):
            with pytest.raises(OSError, match="too large"):
                file(b"torn line\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    file(b"next\n")
    file(b"last\n")
    assert path.read_bytes() == b"whole\ntorn\nnext\nlast\n"


def test_a_finaliser_may_log_while_a_line_is_appended() -> None:
    """A lock that its own thread cannot take twice would hold the program up for ever."""
    writer = LineWriter(lambda data: None)

    class Speaks:
        def __del__(self) -> None:
            writer.append(b"goodbye\n")

    def collect_within_append() -> None:
        with writer._lock:
            Speaks()
            gc.collect()

    thread = threading.Thread(target=collect_within_append, daemon=True)
    thread.start()
    thread.join(10)
    assert writer._lines.qsize() == 1


def test_what_is_written_to_a_pipe_that_does_not_block_is_not_lost() -> None:
    """Another program that shares the pipe may have made it so."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    data = b"".join(b"%06d\n" % number for number in range(50_000))
    writer = LineWriter(write_to(writing))
    writer.start()
    writer.append(data)
    with open(reading, "rb") as pipe:
        assert pipe.read(len(data)) == data
    close_writers([writer])
    os.close(writing)
    assert writer.dropped == 0


def test_warnings_and_prints_of_a_program_go_through_its_writers(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with open_program_logs("json") as logs:
        print("to standard output")
        logging.getLogger("bridgepool.x").warning("a warning")
        print("to standard ", "error", sep="", end="", file=sys.stderr)
        assert logs.dropped == 0
    print("and after it")
    out, err = capfd.readouterr()
    assert out == "to standard output\nand after it\n"
    logged, printed = err.splitlines()
    assert json.loads(logged)["event"] == "a warning"
    assert printed == "to standard error"


def test_a_program_whose_standard_error_is_closed_logs_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stdout = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setattr(sys, "stderr", None)
    with open_program_logs("auto"):
        logging.getLogger("bridgepool.x").warning("nobody reads this")
        print("to standard output")
    assert stdout.getvalue() == "to standard output\n"
