from __future__ import annotations

import io
import subprocess
import sys
import tomllib

import pytest

from bridgepool import __version__
from bridgepool.gateway.providers import Client, Clients, new_client_key
from tests.gateway.commands.commands import run_program


def test_the_version_is_told() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bridgepool", "--version"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0
    assert done.stdout.strip() == __version__


def test_help_does_not_load_what_only_the_commands_need() -> None:
    program = (
        "import sys\n"
        "from bridgepool.gateway.commands import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'structlog', 'watchfiles', 'truststore'}\n"
        "heavy |= {'bridgepool.gateway.control', 'bridgepool.gateway.providers'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_hash_key_makes_a_key_whose_row_lets_the_client_in(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run_program(capsys, monkeypatch, "hash-key", "ada")
    assert done.status == 0
    row = tomllib.loads(done.out)["clients"][0]
    key = done.err.strip().rpartition(" ")[2]
    assert key not in done.out
    clients = Clients((Client(id=row["id"], key_hashes=(row["key_hash"],)),))
    caller = clients.authenticate(key.encode())
    assert caller is not None
    assert caller.client_id == "ada"


def test_hash_key_takes_a_key_from_standard_input_and_does_not_repeat_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = new_client_key().reveal()
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{key}\n"))
    done = run_program(capsys, monkeypatch, "hash-key", "ada", "--stdin")
    assert done.status == 0
    assert key not in done.out + done.err
    row = tomllib.loads(done.out)["clients"][0]
    clients = Clients((Client(id="ada", key_hashes=(row["key_hash"],)),))
    assert clients.authenticate(key.encode()) is not None


def test_hash_key_refuses_what_it_cannot_use_without_repeating_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments, stdin in (
        (("hash-key", "ada", "--stdin"), "my-guessable-password"),
        (("hash-key", "ada", "--stdin"), ""),
        (("hash-key", "not an id"), ""),
    ):
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        done = run_program(capsys, monkeypatch, *arguments)
        assert (done.status, done.out) == (2, "")
        assert "guessable" not in done.err
        assert "Traceback" not in done.err


def test_the_demo_holds_what_it_claims(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run_program(capsys, monkeypatch, "demo", "--pace", "0.02")
    assert done.status == 0, done.out + done.err
    assert "✗" not in done.out
    assert done.out.count("✓") >= 9
