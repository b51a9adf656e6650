"""`bridgepool providers show` where a gateway does not report its keys."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from bridgepool.gateway.control import find_encryption_keys, open_store
from tests.gateway.commands.commands import Shell


def test_a_gateway_that_reports_no_keys_is_marked_and_the_mark_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = Shell(capsys, monkeypatch, ("--store", str(tmp_path / "store.db"), "--create"))
    base = ("--type", "openai", "--base-url", "https://api.openai.com/v1", "--keys-stdin")
    shell.good("providers", "add", "openai", *base, stdin="sk-first-0123456789abcdef-wxyz\n")
    explained = "?: does not report its keys: offline, just started"
    assert explained not in shell.good("providers", "show", "openai").out

    async def register() -> None:
        path = tmp_path / "store.db"
        async with open_store(str(path), find_encryption_keys(str(path))) as store:
            await store.programs.register("gateway", "eu-1")

    trio.run(register)
    done = shell.good("providers", "show", "openai")
    assert "eu-1?" in done.out
    assert explained in done.out
