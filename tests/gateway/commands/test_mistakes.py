"""Mistakes on the command line end with a sentence that says what to do, not with a traceback."""

from __future__ import annotations

import io
import os
import re
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import App

from bridgepool.__main__ import _extra_of
from bridgepool.gateway.commands import app
from bridgepool.gateway.commands._output import print_table
from tests.examples.support import ROOT
from tests.gateway.commands.commands import run_program

COMMAND = [sys.executable, "-m", "bridgepool"]
CONSOLE = ("--log-format", "console")
NEW = ("--type", "openai", "--base-url", "https://api.openai.com/v1")


def run(
    folder: Path, *arguments: str, stdin: str = "", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder; it has no other environment."""
    return subprocess.run(
        [*COMMAND, *arguments],
        input=stdin,
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "200", **(env or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("hash-key",), "bridgepool hash-key: the argument CLIENT is missing."),
        (("keys", "create", "client"), "bridgepool keys create: the argument NAME is missing."),
        (("demo", "x"), "bridgepool demo: takes no argument 'x'. See `bridgepool demo --help`."),
        (("demo", "--pace", "-1"), "bridgepool demo: "),
        (("gateway", "--drain-timeout", "x"), "bridgepool gateway: "),
        (("gateway", "--nope"), "Unknown option"),
        (("nope",), 'bridgepool: Unknown command "nope".'),
        (("gateway", "--providers", "p", "--drain-timeout", "-1"), "--drain-timeout must be 0"),
        (("gateway", "--providers", "p", "--drain-timeout", "nan"), "--drain-timeout must be 0"),
        (("gateway", "--providers", "p", "--max-body-bytes", "-1"), "--max-body-bytes must be 0"),
        (("audit", "--limit", "-1", "--store", "x.db"), 'Invalid value "-1" for --limit'),
        (("audit", "--before", "0", "--store", "x.db"), 'Invalid value "0" for --before'),
        (("gateways", "--revision", "-1", "--store", "x.db"), 'Invalid value "-1" for --revision'),
        (("providers", "list", "--store", "mysql://u@h/x"), "a store is a path"),
        (
            ("gateway", "--store", "mysql://u@h/x", "--listen", "127.0.0.1:0"),
            "a store is a path",
        ),
        (("encryption", "rotate", "--store", "mysql://u@h/x"), "a store is a path"),
        (("providers", "list", "--url", "ws://u:hidden@h:1"), "ws:// is what gateways connect to"),
        (("providers", "list", "--url", "h:hidden"), "--url: must begin with http:// or https://"),
        (("providers", "list", "--url", "http://"), "--url: names no host"),
        (("providers", "list", "--url", "http://127.0.0.1:1"), "not answer (Connection refused)"),
        (("providers", "add", "a"), "the option --type is missing."),
        (("gateways", "--wait"), "the option --wait has no value."),
        (("audit", "--before", "x"), 'Invalid value "x" for --before: is not an integer.'),
        (("gateways", "--wait", "x"), 'Invalid value "x" for --wait: is not a number.'),
        (("gateways", "--wait", "-1"), "Must be a number of seconds, 0 or more."),
        (("gateways", "--wait", "1", "--store", "x.db"), "--wait requires --revision"),
        (("keys", "create", "client", "a", "--role", "read"), "a client key has no role"),
    ],
)
def test_a_mistake_is_answered_with_a_sentence(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("BRIDGEPOOL_ADMIN_KEY", "bpa_x_y")
    done = run_program(capsys, monkeypatch, *arguments)
    assert done.status == 2
    assert message in done.err
    assert "Traceback" not in done.err
    assert "hidden" not in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("providers", "list", "--store", "other"), "other cannot be used: it is not an SQLite"),
        (("providers", "list", "--store", "."), "it is not an SQLite file; name another"),
        (
            ("providers", "list", "--url", "http://127.0.0.1:1", "--admin-key-file", "bpg"),
            "--admin-key-file bpg: holds a key of kind gateway; the API takes one of kind admin",
        ),
        (
            ("gateway", "--control", "ws://127.0.0.1:1", "--key-file", "bpa"),
            "--key-file bpa: holds a key of kind admin; a control plane takes one of kind gateway",
        ),
        (
            (
                *("gateway", "--control", "ws://127.0.0.1:1", "--key-file", "bpg"),
                *("--snapshot-file", "other"),
            ),
            "--snapshot-file other: is not a snapshot file, and would be overwritten",
        ),
        (("gateway", "--config", "latin"), "--config latin: is not UTF-8"),
        (
            ("gateway", "--providers", "p", "--tls-cert", "other", "--tls-key", "other"),
            "--tls-cert other, --tls-key other: cannot be used: one of them is not of the form PEM",
        ),
    ],
)
def test_a_file_of_something_else_is_named_and_left_alone(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BRIDGEPOOL_ENCRYPTION_KEYS", raising=False)
    files = {"other": b"mine\n", "latin": b"\xe9"}
    files |= {kind: f"{kind}_{'a' * 12}_{'a' * 43}".encode() for kind in ("bpa", "bpg")}
    for name, data in files.items():
        Path(name).write_bytes(data)
        Path(name).chmod(0o600)
    if arguments[0] == "gateway":
        arguments += ("--listen", "127.0.0.1:0")
    done = run_program(capsys, monkeypatch, *arguments)
    assert (done.status, done.out) == (2, "")
    assert message in done.err
    assert "aaaaaaaaaaaaa" not in done.err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


def _paths(at: App, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    names = [name for name in at if not name.startswith("-")]
    for name in names:
        yield from _paths(at[name], (*path, name))
    if path and (not names or at.default_command is not None):
        yield path


def test_the_help_of_each_command_names_what_a_value_is_and_not_its_type(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    paths = list(_paths(app))
    assert len(paths) > 20
    assert {("gateway",), ("gateways",), ("providers", "add")} <= set(paths)
    for path in paths:
        shown = run_program(capsys, monkeypatch, *path, "--help")
        assert (shown.status, shown.err) == (0, ""), path
        assert not re.search(r"--\S+ (STR|INT|FLOAT|N)\b", shown.out), path


@pytest.mark.parametrize("arguments", [("providers", "list"), ("demo", "--pace", "0.01")])
def test_a_reader_that_leaves_ends_the_command_quietly(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: tuple[str, ...],
) -> None:
    env = {"PATH": "/usr/bin:/bin", "BRIDGEPOOL_STORE": str(tmp_path / "store.db")}
    if arguments[0] == "providers":
        at = ("--store", env["BRIDGEPOOL_STORE"])
        add = ("providers", "add", "openai", *NEW, "--create", *at)
        assert run_program(capsys, monkeypatch, *add).status == 0
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(60) == 141
    assert errors == b""


def test_an_interrupt_ends_a_command_quietly(tmp_path: Path) -> None:
    """The command waits for a control plane that accepts its connection and says nothing."""
    env = {"PATH": "/usr/bin:/bin", "BRIDGEPOOL_ADMIN_KEY": "bpa_x_y"}
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with subprocess.Popen(
            [*COMMAND, "providers", "list", "--url", url],
            cwd=tmp_path,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            server.settimeout(30)
            connection, _ = server.accept()
            with connection:
                assert connection.recv(1)
                process.send_signal(signal.SIGINT)
                out, errors = process.communicate(timeout=60)
    assert (process.returncode, out, errors) == (130, b"", b"")


def test_a_gateway_whose_port_is_taken_leaves_its_store_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    env = {"BRIDGEPOOL_STORE": str(tmp_path / "store.db")}
    create = ("keys", "create", "client", "a", "--create", "--store", env["BRIDGEPOOL_STORE"])
    assert run_program(capsys, monkeypatch, *create).status == 0
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    with socket.create_server(("127.0.0.1", 0)) as server:
        listen = f"127.0.0.1:{server.getsockname()[1]}"
        done = run(tmp_path, "gateway", "--listen", listen, env=env)
    assert done.returncode == 2
    assert f"cannot listen on {listen}: Address already in use" in done.stderr
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_keys_that_are_piped_without_the_option_are_not_ignored(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    env = {"BRIDGEPOOL_STORE": str(tmp_path / "store.db")}
    add = ("providers", "add", "openai", *NEW, "--create")
    done = run(tmp_path, *add, stdin="sk-hidden\n", env=env)
    assert done.returncode == 2
    assert "--keys-stdin" in done.stderr
    assert "sk-hidden" not in done.stderr
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("sys.stdin", io.StringIO("sk-hidden\n"))
    at = ("--store", env["BRIDGEPOOL_STORE"])
    assert run_program(capsys, monkeypatch, *add, "--keys-stdin", *at).status == 0
    run(tmp_path, "providers", "add", "local", *NEW, env=env).check_returncode()


def test_a_long_reason_is_readable_on_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    reason = "openai: the variable OPENAI_API_KEY, which holds its key, is not set here"
    row = ("front-gateway-1", "0123456789abcdef", "rejected", 12345, reason)
    heads = ("GATEWAY", "INSTANCE", "STATE", "REVISION", "REASON")
    monkeypatch.setenv("COLUMNS", "70")
    print_table(heads, [row])
    assert reason in capsys.readouterr().out, "the terminal wraps the row"
    monkeypatch.setenv("COLUMNS", "100")
    print_table(heads, [row])
    first, *rest = capsys.readouterr().out.splitlines()[1:]
    assert first.startswith("front-gateway-1  0123456789abcdef  rejected  12345     openai: the")
    assert rest
    assert all(line.startswith(" " * 55) for line in rest)


def test_a_value_is_shown_as_people_write_it(capsys: pytest.CaptureFixture[str]) -> None:
    values = [10.0, 0.2, ("a", "b"), (), "", None, True, "a\nb"]
    print_table(("VALUE",), [(value,) for value in values])
    assert capsys.readouterr().out.split("\n")[1:-1] == [
        *("10", "0.2", "a, b", "-", "-", "-", "yes", "a\\nb"),
    ]


EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.mark.parametrize(
    ("extra", "module"),
    [
        (extra, re.split(r"[\[<>=]", requirement)[0].replace("-", "_"))
        for extra in ("gateway", "control", "postgres")
        for requirement in EXTRAS[extra]
        if not requirement.startswith("bridgepool")
    ],
)
def test_the_extra_of_a_module_is_the_one_that_declares_it(extra: str, module: str) -> None:
    assert _extra_of(module) == extra


@pytest.mark.parametrize("module", ["h11", "trio_websocket", "not_heard_of"])
def test_what_no_command_extra_declares_comes_with_the_gateway(module: str) -> None:
    assert _extra_of(module) == "gateway"


@pytest.mark.parametrize(
    ("missing", "arguments", "extra"),
    [
        ("cyclopts", ("--help",), "gateway"),
        ("rich", ("providers", "list", "--store", "s.db"), "gateway"),
        ("structlog", ("gateway", "--providers", "p.toml", *CONSOLE), "gateway"),
        ("h11", ("gateway", "--providers", "p.toml"), "gateway"),
        ("h11", ("demo",), "gateway"),
        ("watchfiles", ("gateway", "--providers", "p.toml"), "gateway"),
        ("structlog", ("control-plane", "--store", "s.db", *CONSOLE), "gateway"),
        ("cryptography", ("control-plane", "--store", "s.db"), "control"),
        ("cryptography", ("gateway", "--store", "s.db"), "control"),
        ("cryptography", ("encryption", "new-key"), "control"),
        ("cryptography", ("keys", "create", "client", "a", "--store", "n.db"), "control"),
        ("httpx2", ("providers", "list", "--url", "http://127.0.0.1:1"), "control"),
        ("tomli_w", ("providers", "export", "--store", "s.db"), "control"),
        ("psycopg", ("providers", "list", "--store", "postgresql://h/x"), "postgres"),
        ("psycopg", ("control-plane", "--store", "postgresql://h/x"), "postgres"),
        ("psycopg", ("gateway", "--store", "postgresql://h/x"), "postgres"),
    ],
)
def test_a_missing_extra_is_named(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    missing: str,
    arguments: tuple[str, ...],
    extra: str,
) -> None:
    key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
    env = {
        "PATH": "/usr/bin:/bin",
        "BRIDGEPOOL_ADMIN_KEY": "bpa_x_y",
        "BRIDGEPOOL_ENCRYPTION_KEYS": key,
    }
    env |= {name: value for name, value in os.environ.items() if name.startswith("COVERAGE")}
    (tmp_path / "p.toml").write_text("providers = []")
    if "s.db" in arguments and arguments[0] in ("providers", "gateway"):
        monkeypatch.setenv("BRIDGEPOOL_ENCRYPTION_KEYS", key)
        create = ("keys", "create", "client", "a", "--create", "--store", str(tmp_path / "s.db"))
        assert run_program(capsys, monkeypatch, *create).status == 0
    listen: tuple[str, ...] = (
        ("--listen", "127.0.0.1:0") if arguments[0] in ("gateway", "control-plane") else ()
    )
    listen += ("--rpc-listen", "127.0.0.1:0") if arguments[0] == "control-plane" else ()
    program = (
        f"import sys\nsys.modules[{missing!r}] = None\nsys.argv = ['bridgepool', *sys.argv[1:]]\n"
        "from bridgepool.__main__ import main\nmain()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments, *listen],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=env,
        timeout=60,
    )
    assert f"pip install 'bridgepool[{extra}]'" in done.stderr
    assert missing in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 2
