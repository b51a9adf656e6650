"""The example's tests pass, and fail when the bridge that they test is broken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.examples.support import EXAMPLES

WHOLE = (EXAMPLES / "property_test_your_bridge.py").read_text()
# The first failure is enough here: making it short takes longer than finding it.
CONFTEST = """
from hypothesis import Phase, settings

settings.register_profile("first", phases=[Phase.generate], derandomize=True, database=None)
settings.load_profile("first")
"""


def run_tests(folder: Path, text: str, only: str = "") -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_bridge.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", only]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder)


def planted(before: str, after: str) -> str:
    assert WHOLE.count(before) == 1
    return WHOLE.replace(before, after)


def test_the_example_passes_as_it_stands(tmp_path: Path) -> None:
    result = run_tests(tmp_path, WHOLE)
    assert result.returncode == 0, result.stdout
    assert "2 passed" in result.stdout


def test_a_session_that_a_cancelled_build_leaves_behind_is_found(tmp_path: Path) -> None:
    """The bug: what was opened first is closed at the end, but not when the second fails."""
    text = planted(
        """\
        try:
            models = await self.sessions.open(f"models of {key}")
            try:
                yield [tools, models]
            finally:
                self.sessions.close(models)
        finally:
            self.sessions.close(tools)
""",
        """\
        models = await self.sessions.open(f"models of {key}")
        try:
            yield [tools, models]
        finally:
            self.sessions.close(models)
            self.sessions.close(tools)
""",
    )
    result = run_tests(tmp_path, text, "no_script")
    assert result.returncode == 1
    assert "AssertionError: assert ['tools of " in result.stdout


def test_a_goodbye_that_nothing_can_end_is_found(tmp_path: Path) -> None:
    """The bug: closing is shielded, and has no deadline."""
    text = planted(
        """\
            finally:
                self.sessions.close(models)
""",
        """\
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(60)
                self.sessions.close(models)
""",
    )
    result = run_tests(tmp_path, text, "promises")
    assert result.returncode == 1
    assert "PoolPromiseBrokenError: your bridge took longer than" in result.stdout


def test_the_example_of_testing_code_that_uses_a_pool_passes(tmp_path: Path) -> None:
    result = run_tests(tmp_path, (EXAMPLES / "test_your_proxy.py").read_text())
    assert result.returncode == 0, result.stdout
    assert "1 passed" in result.stdout
