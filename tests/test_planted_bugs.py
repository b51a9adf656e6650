"""Every planted bug fits the code of today, and names tests that exist."""

import os
import shutil
import time
from pathlib import Path

import pytest

from tools.mutants import KNOWN, run_group
from tools.planted_bugs import Bug, Edit

_ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("bug", KNOWN, ids=lambda bug: bug.name)
def test_a_planted_bug_fits_the_code(bug: Bug, tmp_path: Path) -> None:
    package = tmp_path / "bridgepool"
    for edit in bug.edits:
        file = edit.where.partition(":")[0]
        (package / file).parent.mkdir(parents=True, exist_ok=True)
        if not (package / file).exists():
            shutil.copy(_ROOT / "src" / "bridgepool" / file, package / file)
        before = (package / file).read_text()
        edit.apply(package)
        assert (package / file).read_text() != before
    assert [test for test in bug.tests if not (_ROOT / test).exists()] == []


def test_no_two_planted_bugs_have_one_name() -> None:
    assert len({bug.name for bug in KNOWN}) == len(KNOWN)


@pytest.mark.parametrize(
    ("where", "old", "says"),
    [
        ("a.py:f", "2", "a.py:f has 0 times '2'"),
        ("a.py:f", "1", "a.py:f has 2 times '1'"),
        ("a.py:A.g", "2", "there is no one definition of A.g"),
    ],
)
def test_an_edit_that_does_not_fit_says_where(
    tmp_path: Path, where: str, old: str, says: str
) -> None:
    (tmp_path / "a.py").write_text("x = 2\n\ndef f():\n    return 1 + 1\n\nclass A:\n    y = 2\n")
    with pytest.raises(ValueError, match=says):
        Edit(where, old, "3").apply(tmp_path)


def test_a_run_that_does_not_end_is_killed_with_all_that_it_has_started() -> None:
    """Its output ends only when nothing is left that holds it open, here `sleep`."""
    begun = time.monotonic()
    assert run_group(["sh", "-c", "sleep 60 & wait"], dict(os.environ), 0.5) == (None, "")
    assert time.monotonic() - begun < 30


def test_a_run_that_ends_returns_its_code_and_what_it_printed() -> None:
    script = "echo first; echo second >&2; exit 3"
    assert run_group(["sh", "-c", script], dict(os.environ), 60) == (3, "first\nsecond\n")
