from __future__ import annotations

import subprocess
import sys
import tomllib

from bridgepool import __version__
from bridgepool.gateway.providers import Client, Clients, new_client_key


def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bridgepool", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_version_is_told() -> None:
    done = run("--version")
    assert done.returncode == 0
    assert done.stdout.strip() == __version__


def test_help_does_not_load_what_only_the_commands_need() -> None:
    program = (
        "import sys\n"
        "from bridgepool.gateway.commands import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'structlog', 'watchfiles', 'truststore'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_hash_key_makes_a_key_whose_row_lets_the_client_in() -> None:
    done = run("hash-key", "ada")
    assert done.returncode == 0
    row = tomllib.loads(done.stdout)["clients"][0]
    key = done.stderr.strip().rpartition(" ")[2]
    assert key not in done.stdout
    clients = Clients((Client(id=row["id"], key_hashes=(row["key_hash"],)),))
    caller = clients.authenticate(key.encode())
    assert caller is not None
    assert caller.client_id == "ada"


def test_hash_key_takes_a_key_from_standard_input_and_does_not_repeat_it() -> None:
    key = new_client_key().reveal()
    done = run("hash-key", "ada", "--stdin", stdin=f"{key}\n")
    assert done.returncode == 0
    assert key not in done.stdout + done.stderr
    row = tomllib.loads(done.stdout)["clients"][0]
    clients = Clients((Client(id="ada", key_hashes=(row["key_hash"],)),))
    assert clients.authenticate(key.encode()) is not None


def test_hash_key_refuses_what_it_cannot_use_without_repeating_it() -> None:
    for arguments, stdin in (
        (("hash-key", "ada", "--stdin"), "my-guessable-password"),
        (("hash-key", "ada", "--stdin"), ""),
        (("hash-key", "not an id"), ""),
    ):
        done = run(*arguments, stdin=stdin)
        assert done.returncode == 2
        assert not done.stdout
        assert "guessable" not in done.stderr
        assert "Traceback" not in done.stderr


def test_the_demo_holds_what_it_claims() -> None:
    done = run("demo", "--pace", "0.02")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✗" not in done.stdout
    assert done.stdout.count("✓") >= 9
