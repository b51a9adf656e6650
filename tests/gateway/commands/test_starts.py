"""Why a program does not start: in one sentence, with status 2, and nothing is made before."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.e2e.files import provider, write
from tests.gateway.commands.commands import run_program
from tests.gateway.control.test_process import ANY, ENCRYPTION_KEY, KEYS

GATEWAY = [
    (("--listen", "{taken}"), "cannot listen on"),
    (("--listen", "8080"), "is not HOST:PORT"),
    (("--listen", "0.0.0.0:0"), "has no [[clients]]"),
    (("--trusted-proxy", "127.0.0.1"), "has no [[clients]]"),
    (("--tls-cert", "nowhere.pem"), "--tls-cert requires --tls-key"),
    (("--tls-cert", "nowhere.pem", "--tls-key", "nowhere.key"), "cannot be used"),
    (("--access-log", "no/file"), "No such file"),
    (("--usage-log", "no/file"), "No such file"),
    (("--body-log", "no/file", "--body-log-client", "a"), "--body-log no/file: No such file"),
    (("--body-log", "no/file", "--body-log-client", "-"), "--body-log no/file: No such file"),
    (("--body-log", "f"), "requires --body-log-client or --body-log-provider"),
    (("--body-log-provider", "ai"), "require --body-log"),
    (("--body-log-bytes", "0"), "--body-log-bytes must be from 1"),
    (("--otel-endpoint", "collector:4318"), "--otel-endpoint: is not a URL such as"),
    (("--otel-endpoint", "http://c:4318/v1/traces"), "--otel-endpoint: leave out its last part"),
    (("--otel-endpoint", "http://c:99999"), "--otel-endpoint: is not a URL such as"),
    (("--otel-endpoint", "http://"), "--otel-endpoint: is not a URL such as"),
    (("--name", ""), "--name must not be empty"),
]
CONTROL_PLANE = [
    (("--listen", "0.0.0.0:0"), "--listen 0.0.0.0:0: keys would cross the network"),
    (("--rpc-listen", "[::]:0"), "--rpc-listen [::]:0: keys would cross the network"),
    (("--rpc-listen", "x"), "--rpc-listen x: is not HOST:PORT"),
    (("--access-log", "--insecure"), "--access-log --insecure: is an option"),
    (("--tls-cert", "x.pem"), "--tls-cert requires --tls-key"),
    (("--seed", "none.toml"), "none.toml: cannot be read"),
    (("--encryption-key-file", "none.key"), "none.key cannot be read"),
    (("--admin-key-file", "/dev/null"), "does not hold a good admin key of this store"),
    (("--admin-key-file", "/none/a.key"), "/none/a.key: cannot be written"),
    (("--store", "mysql://a/b"), "--store: a store is a path"),
    (("--store", "/none/store.db"), "--store: "),
    (("--store", "postgresql://a:pw-of-mine@127.0.0.1:1/x"), "--store: holds a password"),
    (("--listen", "{taken}", "--rpc-listen", "127.0.0.1:0"), "Address already in use"),
    (("--listen", "127.0.0.1:0", "--rpc-listen", "{taken}"), "Address already in use"),
    (("--seed", "missing.toml"), "missing.toml: cannot be read"),
    (("--access-log", "/none/log"), "--access-log /none/log"),
    (("--drain-timeout", "-1"), "--drain-timeout must be 0 or more seconds"),
    (("--shutdown-delay", "nan"), "--shutdown-delay must be 0 or more seconds"),
]


@pytest.mark.parametrize(
    ("program", "options", "reason"),
    [
        *(("gateway", *each) for each in GATEWAY),
        *(("control-plane", *each) for each in CONTROL_PLANE),
    ],
)
def test_why_a_program_does_not_start(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    program: str,
    options: tuple[str, ...],
    reason: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(KEYS, ENCRYPTION_KEY)
    if program == "gateway":
        write(Path("providers.toml"), provider("ai", "openai", "https://a.example/v1"))
        if "--listen" not in options:
            options = ("--listen", "127.0.0.1:0", *options)
        options = ("--providers", "providers.toml", *options)
    else:
        store = () if "--store" in options else ("--store", "store.db")
        listen = () if {"--listen", "--rpc-listen"} & set(options) else ANY
        options = (*listen, *store, *options)
    before = os.listdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = f"127.0.0.1:{server.getsockname()[1]}"
        given = [option.format(taken=taken) for option in options]
        done = run_program(capsys, monkeypatch, program, *given)
    assert (done.status, done.out) == (2, "")
    assert reason in done.err
    assert "Traceback" not in done.err
    assert "pw-of-mine" not in done.err
    if "--admin-key-file" not in options:  # whose key is compared with those of the store
        assert os.listdir() == before


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "does not exist"),
        ("providers = \n", "line 1"),
        ('[[providers]]\nname = "a"\n', "type: is missing"),
    ],
)
def test_a_provider_file_that_cannot_be_used_ends_the_start_with_the_reason(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    text: str | None,
    why: str,
) -> None:
    file = tmp_path / "providers.toml"
    if text is not None:
        file.write_text(text)
    start = ("gateway", "--providers", str(file), "--listen", "127.0.0.1:0")
    done = run_program(capsys, monkeypatch, *start)
    assert (done.status, done.out) == (2, "")
    assert done.err.splitlines()[-1].startswith(f"bridgepool: {file}: ")
    assert why in done.err
    assert "Traceback" not in done.err


def test_a_store_that_is_no_database_ends_the_start_of_a_gateway(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "bridgepool.db"
    path.write_text("no database")
    start = ("gateway", "--store", str(path), "--listen", "127.0.0.1:0")
    for message in (f"the store {path} cannot be used: it is not an SQLite file", "--store: "):
        done = run_program(capsys, monkeypatch, *start)
        assert (done.status, done.out) == (2, "")
        assert done.err.splitlines()[-1].startswith(f"bridgepool: {message}")
        assert "Traceback" not in done.err
        (tmp_path / "bridgepool.db.key").write_text(ENCRYPTION_KEY)


@pytest.mark.parametrize("program", ["control-plane", "gateway", "providers list"])
def test_a_malformed_encryption_key_is_reported_with_its_variable_or_file(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    program: str,
) -> None:
    store, keys = tmp_path / "store.db", tmp_path / "keys"
    store.touch()
    keys.write_text("garbage\n")
    listen = {"control-plane": ANY, "gateway": ("--listen", "127.0.0.1:0")}.get(program, ())
    for options, variable, where in (
        ((), "garbage", KEYS),
        (("--encryption-key-file", str(keys)), ENCRYPTION_KEY, str(keys)),
    ):
        monkeypatch.setenv(KEYS, variable)
        start = (*program.split(), *listen, "--store", str(store), *options)
        done = run_program(capsys, monkeypatch, *start)
        assert done.status == 2
        message = done.err.splitlines()[-1]
        assert f"{where}: encryption key 1 is not 32 bytes" in message
        assert "--store" not in message
        assert "bridgepool encryption new-key" in message
        assert "garbage" not in message
