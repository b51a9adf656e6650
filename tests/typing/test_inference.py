"""A type checker finds out by itself what a pool is made of."""

import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parent.parent.parent


def test_keys_providers_and_bridges_are_inferred_without_hints() -> None:
    """mypy agrees with every `assert_type` of `inference.py`, and finds every mistake in it."""
    command = [sys.executable, "-m", "mypy", "--cache-dir=.mypy_cache/typing", "--no-error-summary"]
    ran = subprocess.run(
        [*command, "tests/typing/inference.py"], cwd=_ROOT, capture_output=True, text=True
    )
    assert (ran.stdout, ran.stderr, ran.returncode) == ("", "", 0)
