from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.commands.commands import Shell
from tests.simulated import north, south

__all__ = ["north", "south"]


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def shell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Shell:
    for name in ("BRIDGEPOOL_URL", "BRIDGEPOOL_STORE", "BRIDGEPOOL_ENCRYPTION_KEYS"):
        monkeypatch.delenv(name, raising=False)
    return Shell(capsys, monkeypatch, ("--store", str(tmp_path / "store.db"), "--create"))
