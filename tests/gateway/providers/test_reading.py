"""Reading the provider file: what is refused, and how it is said."""

import os
import threading
from pathlib import Path

import pytest

from bridgepool.gateway.providers import (
    ProviderFileError,
)
from bridgepool.gateway.providers._file import ProviderFile
from bridgepool.gateway.providers._file_reading import read_provider_file
from tests.gateway.providers.provider_files import (
    text,
    write,
)


def _read(path: Path, max_bytes: int, shown: str) -> ProviderFile | ProviderFileError:
    return read_provider_file(path, max_bytes, shown).result


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"# \xff\n", "line 1: is not UTF-8"),
        (b"x = 1\n\n# \xc3(\n", "line 3: is not UTF-8"),
        (text("one").encode("utf-16"), "line 1: is not UTF-8"),
        (b"\x00" * 100, "is not TOML"),
        (b"# long\n" * 1000, "is larger than 4096 bytes"),
    ],
)
def test_bytes_that_are_no_text_of_a_file_are_refused(
    file: Path, data: bytes, problem: str
) -> None:
    file.write_bytes(data)
    result = _read(file, 4096, "shown.toml")
    assert isinstance(result, ProviderFileError)
    assert problem in str(result)
    assert str(result).startswith("shown.toml: ")
    assert result.__context__ is None or "hunter2" not in repr(result.__context__)


def test_a_byte_order_mark_is_read_over(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + text("one").encode())
    assert not isinstance(_read(file, 4096, "x"), ProviderFileError)


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for path, problem in [
        (tmp_path, "is not a regular file"),
        (tmp_path / "pipe", "is not a regular file"),
        (tmp_path / "loop", "cannot be read: Too many levels of symbolic links"),
        (tmp_path / "none", "does not exist"),
        (Path("/proc/self/mem"), "cannot be read: Input/output error"),
        (Path("a\0b"), "cannot be read: no file can have that name"),
        (Path("a\ud800b"), "cannot be read: no file can have that name"),
    ]:
        result = _read(path, 4096, "x")
        assert isinstance(result, ProviderFileError)
        assert result.problems == (problem,)


def test_a_file_that_may_not_be_read_is_refused(file: Path) -> None:
    file.chmod(0)
    privileged = os.geteuid() == 0
    if privileged:
        os.seteuid(65534)  # whoever that is, it is not the owner
    try:
        result = _read(file, 4096, "x")
    finally:
        if privileged:
            os.seteuid(0)
    assert isinstance(result, ProviderFileError)
    assert result.problems == ("cannot be read: Permission denied",)


def test_a_file_that_is_written_to_while_it_is_read_is_not_taken(file: Path) -> None:
    """Half of one version and half of the next can be a good file that nobody wrote."""
    write(file, text("one") + "# padding\n" * 300_000)
    stop = threading.Event()

    def touch() -> None:
        moment = 0
        while not stop.is_set():
            moment += 1_000_000
            os.utime(file, ns=(moment, moment))

    thread = threading.Thread(target=touch)
    thread.start()
    try:
        for _ in range(1000):
            result = _read(file, 1 << 24, "x")
            if isinstance(result, ProviderFileError):
                break
    finally:
        stop.set()
        thread.join()
    assert isinstance(result, ProviderFileError)
    assert result.problems == ("was written to while it was read",)
