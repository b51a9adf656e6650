"""`docs/operations.md` has every log line, status field and count of both programs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

import attrs
import pytest

from bridgepool.gateway import GatewayStatistics
from bridgepool.gateway.control._gateway_session import GatewaySession
from bridgepool.gateway.control._hub import HubStatus
from bridgepool.gateway.control.api._openapi import Readiness
from bridgepool.http import HttpCounters
from bridgepool.remote import RemoteStatus
from bridgepool.transports.websocket import WebSocketCounters
from tests.examples.support import ROOT

PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "src" / "bridgepool"
PACKAGES = ("remote", "transports", "gateway")
MODULES = ("_tcp.py", "http/_upstream_pool.py")  # of the library, whose lines stand on this page
LEVELS = {"exception": "error", "log": "warning"}
# class -> place of the argument -> level at which the class logs it
EVENTS_GIVEN = {"RefusedKeys": {1: "warning"}, "StoreAccess": {0: "error", 1: "warning"}}
METHODS = {"debug", "info", "warning", "error", "critical", *LEVELS}
# An attribute that is filled into an event -> what the programs call it
NAMES_GIVEN = {"owner": "control plane", "follower": "gateway"}


def _plain(text: str, values: Iterable[ast.expr] = ()) -> str:
    """Show a log event as the page does: without what is filled in, and without backquotes."""
    for value in values:
        if isinstance(value, ast.Attribute) and value.attr.strip("_") in NAMES_GIVEN:
            text = text.replace("%s", NAMES_GIVEN[value.attr.strip("_")], 1)
    return re.sub(r"`[^`]*`", "…", re.sub(r"%(\(\w+\))?[a-z]", "…", text))


def _logged() -> Iterator[tuple[str, str, str]]:
    for package in (*PACKAGES, *MODULES):
        folder = PACKAGE / package
        for file in sorted(folder.rglob("*.py")) if folder.is_dir() else [folder]:
            tree = ast.parse(file.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                match node:
                    case ast.Call(  # of a `RefusalLog`
                        func=ast.Attribute(attr="warning" | "info" as method),
                        args=[
                            ast.Call(func=ast.Attribute(attr="current_time")) | ast.Name(id="now"),
                            ast.Constant(value=str() as event),
                            *values,
                        ],
                    ):
                        yield file.relative_to(PACKAGE).as_posix(), _plain(event, values), method
                    case ast.Call(
                        func=ast.Attribute(
                            value=ast.Name(id="logger" | "_log" | "log"), attr=method
                        )
                    ) if method in METHODS:
                        text, *values = node.args[1 if method == "log" else 0 :]
                        if isinstance(text, ast.Name):
                            text = _constant(tree, text.id)
                        if isinstance(text, ast.Attribute):
                            continue  # an event that its class was given, see EVENTS_GIVEN
                        assert isinstance(text, ast.Constant), f"{file.name}:{node.lineno}"
                        assert isinstance(text.value, str)
                        event = _plain(text.value, values)
                        yield file.relative_to(PACKAGE).as_posix(), event, method
                    case ast.Call(func=ast.Name(id=name), args=given) if name in EVENTS_GIVEN:
                        for place, method in EVENTS_GIVEN[name].items() if given else ():
                            text = given[place]
                            assert isinstance(text, ast.Constant), f"{file.name}:{node.lineno}"
                            assert isinstance(text.value, str)
                            yield file.relative_to(PACKAGE).as_posix(), text.value, method


def _constant(tree: ast.Module, name: str) -> ast.expr:
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=found)], value=value) if found == name:
                return value
            case ast.AnnAssign(target=ast.Name(id=found), value=ast.expr() as value) if (
                found == name
            ):
                return value
    raise AssertionError(f"there is no constant {name}")


LOGGED = sorted(set(_logged()))


def test_the_log_lines_are_found() -> None:
    assert len(LOGGED) > 60


@pytest.mark.parametrize(("where", "event", "method"), LOGGED)
def test_every_log_line_stands_on_the_page(where: str, event: str, method: str) -> None:
    if event == "…":  # a text that was made before
        assert where == "remote/_owner_rows.py"
        event = "the rows are too large to be sent: … bytes, and … at most; make them "
        event += "fewer or smaller"
    rows = [line for line in PAGE.splitlines() if line.startswith(f"| `{event}` |")]
    assert rows, event
    level = LEVELS.get(method, method)
    assert any(row.split(" | ")[1].startswith(level) for row in rows), (event, level)
    loggers = re.findall(r'getLogger\("([\w.]+)"\)', (PACKAGE / where).read_text(encoding="utf-8"))
    places = "\n".join((*rows, *_headings_above(event)))  # a row may name another logger
    assert not loggers or any(f"`{logger}`" in places for logger in loggers), (event, loggers)


def _headings_above(event: str) -> Iterator[str]:
    heading = ""
    for line in PAGE.splitlines():
        heading = line if line.startswith("#") else heading
        if line.startswith(f"| `{event}` |"):
            yield heading


def test_every_line_of_the_page_is_one_that_is_logged() -> None:
    shown = re.findall(r"^\| `([^`]+)` \| (?:debug|info|warning|error)\b", PAGE, re.MULTILINE)
    logged = {event for _, event, _ in LOGGED}
    assert [e for e in shown if e not in logged and "too large to be sent" not in e] == []


@pytest.mark.parametrize(
    ("title", "kind"),
    [
        ("`GatewayStatistics`", GatewayStatistics),
        ("`HttpCounters`", HttpCounters),
        ("`RemoteStatus`", RemoteStatus),
        ("`HubStatus`", HubStatus),
        ("`WebSocketCounters`", WebSocketCounters),
    ],
)
def test_every_count_stands_in_its_table(title: str, kind: type[attrs.AttrsInstance]) -> None:
    shown = _fields(_section(f"### {title}"))
    assert shown == {field.name for field in attrs.fields(kind) if field.name[0] != "_"}


def test_every_field_of_readiness_and_of_gateways_stands_on_the_page() -> None:
    source = ast.parse(
        (PACKAGE / "gateway" / "proxy" / "_readiness.py").read_text(encoding="utf-8")
    )
    keys = {
        key.value
        for node in ast.walk(source)
        for key in (
            [node.slice]
            if isinstance(node, ast.Subscript)
            else node.keys
            if isinstance(node, ast.Dict)
            else []
        )
        if isinstance(key, ast.Constant)
    }
    assert "ready" in keys
    assert _fields(_section("## Status of a gateway")) == keys
    of_plane = _fields(_section("## Status of a control plane"))
    shown = (*attrs.fields(Readiness), *attrs.fields(GatewaySession))
    assert of_plane == {field.name for field in shown}


def _section(heading: str) -> str:
    begin = PAGE.index(heading)
    found = re.search(r"^##", PAGE[begin + 3 :], re.MULTILINE)
    return PAGE[begin : begin + 3 + found.start()] if found else PAGE[begin:]


def _fields(section: str) -> set[str]:
    """Return what stands in the column of names: the first, or the one of the heading `field`."""
    found: set[str] = set()
    column = 0
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if "field" in cells:
            column = cells.index("field")
        elif cells:
            found |= set(re.findall(r"`(\w+)`", cells[column]))
    return found
