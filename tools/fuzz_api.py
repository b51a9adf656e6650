"""Fuzz the control plane's API from its own OpenAPI description: `make fuzz`.

Starts a real control plane on a new store of each kind, with a few rows and an admin key, and runs
schemathesis, which sends valid and invalid requests. These are failures: a 5xx, a response that the
description lacks, a route that serves without a key, an invalid request that is accepted, an error
in the control plane's log. `--seconds` is the length of a run; `--seed` is its seed, 0 for a new
one.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.postgres import PostgresServer

_SEED: Final = """
[[providers]]
name = "openai"
type = "openai"
base_url = "https://api.openai.example/v1"
keys = ["sk-a-key-of-the-seed-0001", "sk-a-key-of-the-seed-0002"]

[[providers]]
name = "claude"
type = "anthropic"
base_url = "https://api.anthropic.example"
client_keys = true
enabled = false
headers = { x-team = "a header of the seed" }
"""
# The description does not contain the rules between fields, so 422 is a response to valid requests,
# too. An invalid body may be rejected because of its size: 413; a query because of its own: 414.
# A gateway that does not exist would be waited for for a minute.
_CONFIG: Final = """
[auth.openapi.adminKey]
bearer = "${BRIDGEPOOL_FUZZ_KEY}"

[[operations]]
include-path = "/api/v1/revisions/{revision}/applied"
parameters = { "query.wait" = 0.1 }

[checks.positive_data_acceptance]
expected-statuses = ["2xx", 401, 403, 404, 409, 414, 422]

[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 409, 413, 414, 415, 422, 431]
"""
_FAILED: Final = ("request failed", "HTTP connection failed", "handler failed", "Traceback")


def main() -> int:
    """Fuzz each kind of store; return the exit status."""
    parser = argparse.ArgumentParser(description="Fuzz the API of the control plane.")
    parser.add_argument("schemathesis", type=Path, help="the program")
    parser.add_argument("--seconds", type=int, default=20, help="for each kind of store")
    parser.add_argument("--seed", type=int, default=1, help="of the generated requests; 0: new")
    parser.add_argument("--stores", default="sqlite,postgres")
    options = parser.parse_args()
    good = True
    for kind in options.stores.split(","):
        with tempfile.TemporaryDirectory() as folder, _store(kind, Path(folder)) as store:
            seed = options.seed or int.from_bytes(os.urandom(4), "big")
            print(f"== {kind}: {options.seconds} s, seed {seed}", flush=True)
            good &= _fuzz(
                options.schemathesis.absolute(), store, Path(folder), options.seconds, seed
            )
    print("passed" if good else "FAILED")
    return 0 if good else 1


@contextmanager
def _store(kind: str, folder: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield str(folder / "store.db")
        return
    server = PostgresServer.make()
    try:
        yield server.create_database()
    finally:
        server.stop()


def _fuzz(schemathesis: Path, store: str, folder: Path, seconds: int, seed: int) -> bool:
    """Start a control plane, fuzz it, end it; return whether it passed."""
    key_file, log_file = folder / "admin.key", folder / "log"
    (folder / "seed.toml").write_text(_SEED)
    (folder / "schemathesis.toml").write_text(_CONFIG)
    with log_file.open("wb") as log:
        plane = subprocess.Popen(
            [
                sys.executable, "-m", "bridgepool", "control-plane",
                "--listen", "127.0.0.1:0", "--rpc-listen", "127.0.0.1:0",
                "--admin-key-file", key_file, "--seed", folder / "seed.toml",
                "--log-format", "json",
            ],
            env=os.environ | {"BRIDGEPOOL_STORE": store, "BRIDGEPOOL_ENCRYPTION_KEYS": _new_key()},
            stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    try:
        url = _url(plane, log_file)
        key = key_file.read_text().strip()
        command: list[str | Path] = [
            schemathesis, "--no-color", "--config-file", str(folder / "schemathesis.toml"),
            "run", f"{url}/openapi.json", "--max-time", str(seconds), "--seed", str(seed),
            "--checks", "all", "--warnings", "off", "--generation-database", "none",
            "--request-timeout", "10",
        ]  # fmt: skip
        environment = os.environ | {"BRIDGEPOOL_FUZZ_KEY": key}
        run = subprocess.run(command, cwd=folder, env=environment, check=False)
        good = run.returncode == 0 and _report_changes(url, key)
    finally:
        plane.send_signal(signal.SIGTERM)
        status = plane.wait(30)
    lines = log_file.read_text().splitlines()
    failures = [line[:2000] for line in lines if any(word in line for word in _FAILED)]
    for line in failures[:5]:
        print(line)
    if status != 0:
        print(f"the control plane ended with {status}")
    return good and not failures and status == 0


def _new_key() -> str:
    command = [sys.executable, "-m", "bridgepool", "encryption", "new-key"]
    return subprocess.check_output(command, text=True).strip()


def _url(plane: subprocess.Popen[str], log_file: Path) -> str:
    assert plane.stdout is not None
    for line in plane.stdout:
        if line.startswith("listening on "):
            return line.removeprefix("listening on ").strip()
    raise SystemExit(f"the control plane did not start:\n{log_file.read_text()}")


def _report_changes(url: str, key: str) -> bool:
    """Print what the requests changed; return whether they got far enough to be a test."""
    began = time.monotonic()
    actions: Counter[str] = Counter()
    before: int | None = None
    while True:
        query = "" if before is None else f"&before={before}"
        page = _ask(f"{url}/api/v1/audit?limit=1000{query}", key)
        actions.update(entry["action"] for entry in page["entries"])
        before = page["next"]
        if before is None:
            break
    print(f"changes that were made: {dict(actions)} ({time.monotonic() - began:.1f} s to read)")
    return actions["provider.add"] > 0 and actions["client.add"] > 0


def _ask(url: str, key: str) -> Any:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


if __name__ == "__main__":
    sys.exit(main())
