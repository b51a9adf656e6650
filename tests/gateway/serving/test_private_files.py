"""Files that hold secrets: written in one step, readable by their owner only."""

import os
import stat
from pathlib import Path

import pytest

from bridgepool.gateway.serving._private_files import remove_drafts, write_private_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "the.key"


@pytest.mark.parametrize("replace", [True, False])
def test_a_new_file_is_for_its_owner_only(path: Path, replace: bool) -> None:
    write_private_file(path, b"secret", replace=replace)
    assert path.read_bytes() == b"secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == [path.name]


def test_a_replacement_is_one_step_and_makes_the_file_private(path: Path) -> None:
    path.write_bytes(b"old")
    path.chmod(0o644)
    with path.open("rb") as reader:
        write_private_file(path, b"new")
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_exists_is_kept_unless_it_is_to_be_replaced(path: Path) -> None:
    path.write_bytes(b"old")
    with pytest.raises(FileExistsError):
        write_private_file(path, b"new", replace=False)
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == [path.name]


def test_a_file_that_cannot_be_written_leaves_no_draft(path: Path) -> None:
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        write_private_file(path, b"secret")
    assert os.listdir(path.parent) == [path.name]


def test_what_a_crash_left_is_removed_and_nothing_else(path: Path) -> None:
    for name in (".the.key.0123456789abcdef.draft", ".other.key.0123456789abcdef.draft"):
        path.with_name(name).write_bytes(b"half")
    write_private_file(path, b"secret")
    remove_drafts(path)
    assert sorted(os.listdir(path.parent)) == [".other.key.0123456789abcdef.draft", "the.key"]
