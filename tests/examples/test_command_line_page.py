"""The pages name options that exist, and the reference has every one of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import App

from bridgepool.gateway.commands import app
from bridgepool.gateway.commands._connecting import KEY_VARIABLE, URL_VARIABLE
from bridgepool.gateway.commands._root import STORE_VARIABLE
from bridgepool.gateway.control._encryption import KEYS_VARIABLE
from tests.examples.support import ROOT
from tools.option_tables import with_tables

DOCS = ROOT / "docs"
REFERENCE = (DOCS / "reference" / "command-line.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
# Of other programs that pages run.
FOREIGN = {"--auth-type", "--fail", "--worker-class", "--help", "--version"}
FOREIGN |= {
    "--clean",
    "--dbname",
    "--format",
    "--if-exists",
    "--single-transaction",
}  # of pg_dump and pg_restore


def _commands(group: App, path: tuple[str, ...] = ()) -> Iterator[tuple[str, App]]:
    for name in group:
        if not name.startswith("-"):
            command = group[name]
            if command.default_command is not None:
                yield " ".join((*path, name)), command
            yield from _commands(command, (*path, name))


def _options(command: App) -> set[str]:
    found = set()
    for argument in command.assemble_argument_collection():
        kind = argument.field_info.kind
        names = [name for name in argument.names if name.startswith("--")]  # negatives come later
        if names and kind is kind.KEYWORD_ONLY and argument.parameter.show is not False:
            found.add(names[0])
    return found


COMMANDS = {name: _options(command) for name, command in _commands(app)}
ALL = {option for options in COMMANDS.values() for option in options}


def _section(command: str) -> str:
    """Return what the reference has on a command, with the part that several share."""
    begin = REFERENCE.index(f"## `bridgepool {command.split()[0]}")
    own = REFERENCE[begin : REFERENCE.find("\n## ", begin) % (len(REFERENCE) + 1)]
    begin = REFERENCE.index("## Connecting to a control plane")
    return own + REFERENCE[begin : REFERENCE.index("\n## ", begin)]


def test_the_commands_are_found() -> None:
    assert len(COMMANDS) >= 20
    assert {"--wait", "--url", "--base-url"} <= COMMANDS["providers add"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_stands_in_the_section_of_its_command(command: str) -> None:
    section = _section(command)
    named = set(re.findall(r"--[a-z][a-z-]*[a-z]", section))
    assert COMMANDS[command] - named == set()
    assert re.search(rf"`(bridgepool )?{command}\b", section)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_option_that_a_page_names_exists(page: Path) -> None:
    named = set(re.findall(r"(?<![-\w])--[a-z][a-z-]*[a-z]", page.read_text(encoding="utf-8")))
    assert named - ALL - FOREIGN == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_a_page_runs_exists_and_takes_its_options(page: Path) -> None:
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    fenced = "".join(re.findall(r"^```(?:sh|text)\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    lines = re.findall(r"(?:^|[|;] )bridgepool ([a-z].*)$", fenced, re.MULTILINE)
    lines += re.findall(r"`bridgepool ([a-z][^`]*)`", text)
    for line in lines:
        call = re.split(r"[|;>`)]|  #", line)[0]
        words = call.split()
        command = next((name for n in (2, 1) if (name := " ".join(words[:n])) in COMMANDS), None)
        if command is None:  # prose such as "`bridgepool keys` makes…"
            assert any(name.startswith(words[0]) for name in COMMANDS), line
            continue
        used = set(re.findall(r"(?<!\S)--[a-z-]+", call))
        assert used - COMMANDS[command] - FOREIGN == set(), line


def test_every_variable_stands_on_the_page() -> None:
    for variable in (URL_VARIABLE, KEY_VARIABLE, STORE_VARIABLE, KEYS_VARIABLE):
        assert f"`{variable}`" in REFERENCE


def test_the_tables_of_the_two_programs_are_those_of_their_options() -> None:
    assert with_tables(REFERENCE) == REFERENCE, "run python -m tools.option_tables"
    assert REFERENCE.count("<!-- options: ") == 2
