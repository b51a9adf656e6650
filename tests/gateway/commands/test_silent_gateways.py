"""The commands where gateways do not report their keys, or were stopped."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import attrs
import pytest
import trio

from bridgepool.gateway.control import find_encryption_keys, open_store
from tests.gateway.commands.commands import Shell
from tests.gateway.control.store.test_gateways import session


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


def test_a_key_that_two_running_gateways_have_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "store.db")
    shell = Shell(capsys, monkeypatch, ("--store", path, "--create"))
    shell.good("keys", "create", "client", "web")

    async def record(connected: bool) -> None:
        now = datetime.now(UTC)
        row = session(since=now, last_contact=now)
        other = attrs.evolve(row, session="s2", instance="i2", connected=connected)
        async with open_store(path, find_encryption_keys(path)) as store:
            await store.record_gateways([row, other])

    line = "gateway edge: 2 processes use its key k1; make a key for each of them\n"
    trio.run(record, False)
    assert line not in shell.good("gateways").out
    trio.run(record, True)
    assert line in shell.good("gateways").out


def test_a_stopped_gateway_is_shown_as_stopped_by_all_commands_and_can_be_forgotten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One command called it stopped, the other offline; and one printed no table."""
    path = str(tmp_path / "store.db")
    shell = Shell(capsys, monkeypatch, ("--store", path, "--create"))
    shell.good("keys", "create", "client", "web")

    async def record() -> None:
        now = datetime.now(UTC)
        row = session(connected=False, stopped=True, since=now, last_contact=now)
        async with open_store(path, find_encryption_keys(path)) as store:
            await store.record_gateways([row, attrs.evolve(row, instance="i2", stopped=False)])

    trio.run(record)
    made = shell.run("keys", "create", "client", "web", "--wait", "0")
    assert (made.status, len(made.out.splitlines())) == (1, 1)
    assert [line.split()[:3] for line in made.err.splitlines()[-2:]] == [
        ["edge", "i1", "stopped"],
        ["edge", "i2", "offline"],
    ]
    assert "stopped" in shell.good("gateways").out
    assert shell.good("gateways", "forget", "i1").out == "forgot i1: 1 process\n"
    assert shell.good("gateways", "forget", "edge").out == "forgot edge: 1 process\n"
    assert shell.good("gateways", "--json").json()["gateways"] == []
    assert shell.run("gateways", "forget", "edge").status == 2
