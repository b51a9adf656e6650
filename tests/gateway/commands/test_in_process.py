"""The parts of the command that need no process of their own."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
import trustme

from bridgepool.gateway import _process as process
from bridgepool.gateway._options import GatewayOptions
from bridgepool.gateway.commands import app
from bridgepool.gateway.commands._programs import client_row
from bridgepool.gateway.demo import _story as story
from bridgepool.gateway.demo._screen import Screen, wants_colour
from bridgepool.gateway.demo._upstream import SimulatedUpstream
from bridgepool.gateway.providers import InvalidProviderError
from bridgepool.gateway.serving._certificate import load_certificate
from bridgepool.gateway.serving._listening import (
    Address,
    StartError,
    listener_url,
    open_listeners,
)
from bridgepool.gateway.serving._logs import open_program_logs, set_up_logging, use_json
from bridgepool.http import open_upstream_client
from tests.e2e.files import provider, write


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:0", Address("127.0.0.1", 0)),
        ("localhost:8080", Address("localhost", 8080)),
        ("[::1]:65535", Address("::1", 65535)),
    ],
)
def test_addresses_are_read(text: str, address: Address) -> None:
    assert Address.parse(text) == address


@pytest.mark.parametrize("text", ["", "8080", ":8080", "a:", "a:b", "a:65536", "::1:80", "a:٣"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(StartError, match="is not HOST:PORT"):
        Address.parse(text)


async def test_listeners_tell_their_url(tmp_path: Path) -> None:
    certificate = trustme.CA().issue_cert("localhost")
    pem = tmp_path / "all.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(pem)
    loaded = load_certificate(pem, pem)
    assert loaded is not None
    assert load_certificate(None, None) is None
    for tls, host, start in (
        (None, "127.0.0.1", "http://127.0.0.1:"),
        (loaded.context, "127.0.0.1", "https://127.0.0.1:"),
        (None, "::1", "http://[::1]:"),
    ):
        [listener] = await open_listeners([Address(host, 0)], tls)
        assert listener_url(listener).startswith(start)
        await listener.aclose()


def test_the_log_is_json_with_the_facts_as_fields() -> None:
    out = io.StringIO()
    set_up_logging("json", out)
    logging.getLogger("bridgepool.x").warning("watch %s", "out", extra={"generation": 3})
    line = json.loads(out.getvalue())
    assert line["event"] == "watch out"
    assert (line["level"], line["generation"]) == ("warning", 3)
    assert line["logger"] == "bridgepool.x"


def test_whatever_a_log_line_holds_is_one_line_of_json() -> None:
    out = io.StringIO()
    set_up_logging("json", out)
    fields = {"text": "line\nü\ud800", "number": 1.5, "path": Path("a"), "none": None}
    logging.getLogger("bridgepool.x").error("an %s", "event\udcff", extra=fields)
    assert out.getvalue().isascii()
    assert out.getvalue().count("\n") == 1
    line = json.loads(out.getvalue())
    when = datetime.fromisoformat(line.pop("time"))
    assert abs(when - datetime.now(UTC)) < timedelta(seconds=60)
    assert line == {
        **fields, "event": "an event\udcff", "level": "error", "logger": "bridgepool.x",
        "path": repr(Path("a")),
    }  # fmt: skip


def test_lines_for_programs_are_rendered_without_what_takes_long_to_import() -> None:
    code = (
        "import logging, sys\n"
        "from bridgepool.gateway.serving._logs import set_up_logging\n"
        "set_up_logging('json', sys.stderr)\n"
        "logging.getLogger('x').warning('hello')\n"
        "print({'structlog', 'rich', 'asyncio'} & set(sys.modules))\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (ran.stdout, "hello" in ran.stderr) == ("set()\n", True)


def test_a_traceback_is_one_line_of_json() -> None:
    out = io.StringIO()
    set_up_logging("json", out)
    try:
        raise ValueError("no")
    except ValueError:
        logging.getLogger("bridgepool.x").exception("failed")
    assert out.getvalue().count("\n") == 1
    assert "ValueError: no" in json.loads(out.getvalue())["exception"]


def test_the_log_for_people_is_text() -> None:
    out = io.StringIO()
    assert use_json("auto", out)
    set_up_logging("console", out)
    logging.getLogger("bridgepool.x").info("hello")
    assert "hello" in out.getvalue()
    assert not out.getvalue().startswith("{")


def test_rows_are_made_of_good_ids_and_keys_only() -> None:
    row, key = client_row("ada")
    again, same = client_row("ada", f" {key.reveal()}\n")
    assert same == key
    assert again != row, "each hash has a salt of its own"
    with pytest.raises(ValueError, match="no key on standard input"):
        client_row("ada", " ")
    with pytest.raises(ValueError, match="not a bridgepool client key") as caught:
        client_row("ada", "guessable")
    assert "guessable" not in str(caught.value)
    with pytest.raises(InvalidProviderError):
        client_row("no id")


@pytest.mark.parametrize("access_log", ["-", "none", "file"])
async def test_the_process_serves_until_it_is_signalled(
    north: SimulatedUpstream,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    access_log: str,
) -> None:
    file, log = tmp_path / "providers.toml", tmp_path / "access.log"
    write(file, provider("ai", "openai", north.openai_url))
    lines: list[str] = []
    printed = trio.Event()

    def keep_line(text: str, *, flush: bool) -> None:
        assert flush
        lines.append(text)
        printed.set()

    monkeypatch.setattr(process, "print", keep_line, raising=False)
    options = GatewayOptions(
        providers=file,
        listen=("127.0.0.1:0",),
        log_format="json",
        access_log=str(log) if access_log == "file" else access_log,
    )
    statuses: list[int] = []

    async def run() -> None:
        with open_program_logs("json") as logs:
            statuses.append(await process._main(options, logs))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await printed.wait()
        async with (
            open_upstream_client(lines[0].removeprefix("listening on ")) as client,
            client.request(b"POST", b"/ai/v1/chat/completions", (), b"{}") as response,
        ):
            assert response.status == 200
        os.kill(os.getpid(), signal.SIGTERM)
    assert statuses == [0]
    assert log.exists() == (access_log == "file")


def test_the_command_fails_with_status_2_and_the_reason(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for arguments in (
        ["gateway", "--providers", str(tmp_path / "none.toml"), "--listen", "127.0.0.1:0"],
        ["hash-key", "no id"],
    ):
        with pytest.raises(SystemExit) as caught:
            app(arguments)
        assert caught.value.code == 2
        assert capsys.readouterr().err.startswith("bridgepool: ")


def test_a_key_is_shown_apart_from_its_row(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit) as caught:
        app(["hash-key", "ada"])
    assert caught.value.code in (0, None)
    shown = capsys.readouterr()
    assert shown.out.startswith("\n[[clients]]"), "the last line of a file may have no line break"
    key = shown.err.strip().rpartition(" ")[2]
    monkeypatch.setattr(sys, "stdin", io.StringIO(key))
    with pytest.raises(SystemExit):
        app(["hash-key", "ada", "--stdin"])
    again = capsys.readouterr()
    assert key not in again.out + again.err


def test_the_demo_fails_when_a_claim_is_not_true(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(story, "_whole", lambda *_: False)
    assert story.run_demo(0.01) == 1
    assert "✗" in capsys.readouterr().out


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


async def test_the_screen_is_coloured_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert wants_colour(Terminal())
    assert not wants_colour(io.StringIO())
    out = Terminal()
    screen = Screen(out)
    screen.section("A section", "one", "two")
    screen.event("two", "hello", "north")
    assert "\x1b[36mhello\x1b[0m" in out.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_colour(Terminal())
