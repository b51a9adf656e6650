"""What the documentation states about names, defaults and messages is what the code has."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from bridgepool import PoolStatistics, ReloadStatus, open_bridge_pool, watch_providers
from bridgepool.gateway.commands import app as command_app
from bridgepool.gateway.proxy._refusals import _INVALID_CODES
from tests.examples.support import EXAMPLES, ROOT
from tests.test_layers import LEVELS
from tools.planted_bugs import BUGS

DOCS = ROOT / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def invariants_in(text: str) -> set[int]:
    """Find the numbers in phrases such as "invariants 6 to 11, 13 and 14"."""
    found: set[int] = set()
    for phrase in re.findall(r"invariants? (\d+(?:(?:, | and | to |\s)+\d+)*)", text, re.I):
        for first, last in re.findall(r"(\d+)(?: to (\d+))?", phrase):
            found |= set(range(int(first), int(last or first) + 1))
    return found


def defaults(function: Callable[..., object]) -> dict[str, object]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def test_every_option_stands_on_its_page_with_its_default() -> None:
    shown = dict(re.findall(r"\*\*`(\w+)`\*\* \(`?([\w.]+)`?\)", page("howto/options.md")))
    real = defaults(open_bridge_pool) | defaults(watch_providers)
    assert real.keys() - shown.keys() == {"status", "task_status"}
    for name, text in shown.items():
        assert float(text.removeprefix("math.")) == real[name], name


@pytest.mark.parametrize("kind", [PoolStatistics, ReloadStatus])
def test_every_count_of_the_pool_and_what_to_watch_of_reloads_stands_on_the_page(
    kind: type[attrs.AttrsInstance],
) -> None:
    text = page("howto/statistics.md")
    missing = {a.name for a in attrs.fields(kind) if not re.search(rf"`{a.name}[`\[]", text)}
    assert kind is ReloadStatus or not missing
    assert not {"failures_in_a_row", "last_error", "revision", "following"} & missing


def test_every_log_message_on_the_page_is_one_that_is_logged() -> None:
    sources = " ".join(file.read_text() for file in (ROOT / "src").rglob("*.py"))
    rows = re.findall(r"^\|[^|]*\| (?:\w+) \| `([^`]+)` \|", page("howto/statistics.md"), re.M)
    assert len(rows) >= 11
    for message in rows:
        pattern = r"%\w+".join(re.escape(part) for part in message.split("…"))
        assert re.search(pattern, sources), message


@pytest.mark.parametrize("package", LEVELS)
def test_the_table_of_layers_has_the_order_that_imports_keep(package: str) -> None:
    after = page("design.md").partition(f"| level | part of `{package}` |")[2]
    table = after.partition("\n\n")[0]
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", table, re.MULTILINE)
    shown = {part: int(n) for n, parts in rows for part in re.findall(r"`(\w+)/?`", parts)}
    helpers = (
        {"", "_alarm", "_lazy", "_options", "_services", "_version"}
        if package == "bridgepool"
        else {""}
    )
    real = {part: level for level, parts in enumerate(LEVELS[package]) for part in parts}
    assert shown == {part: level for part, level in real.items() if part not in helpers}


def test_the_tests_that_the_table_of_invariants_names_do_name_them() -> None:
    rows = re.findall(r"^\| (\d+) \|.*\| ([^|]*) \|$", page("invariants.md"), re.M)
    assert len(rows) == 43
    for number, names in rows:
        for name in re.findall(r"\b[a-z]\w+\b", names.replace("**kit**", "")):
            folder = "properties" if name.endswith("_machine") else "core"
            text = (ROOT / "tests" / folder / f"test_{name}.py").read_text()
            assert int(number) in invariants_in(text), (number, name)


def test_every_planted_bug_stands_on_the_page() -> None:
    text = " ".join(page("invariants.md").lower().split())
    assert [bug.name for bug in BUGS if bug.name not in text] == []


def test_every_example_is_shown_somewhere() -> None:
    text = " ".join(file.read_text() for file in (ROOT / "README.md", *DOCS.rglob("*.md")))
    assert [f.name for f in EXAMPLES.iterdir() if f.is_file() and f.name not in text] == []


@pytest.mark.parametrize("source", sorted((DOCS / "drawings").glob("*.dot")), ids=lambda p: p.stem)
def test_every_drawing_was_made_from_its_source_and_is_shown(source: Path) -> None:
    drawing = source.with_suffix(".svg").read_text(encoding="utf-8")
    assert hashlib.sha256(source.read_bytes()).hexdigest() in drawing, "run `make drawings`"
    assert any(f"drawings/{source.stem}.svg" in file.read_text() for file in DOCS.rglob("*.md"))


def test_every_path_that_the_contributors_page_names_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w.-]+/[\w./-]*)`", text) + re.findall(r"`(_\w+\.py)`", text)
    assert len(named) > 20
    places = (ROOT, ROOT / "src" / "bridgepool")
    assert [n for n in named if not any((place / n).exists() for place in places)] == []


def test_the_page_of_clients_names_the_versions_that_the_tests_run() -> None:
    text = page("howto/clients.md")
    package = json.loads((ROOT / "tests/clients/node/package.json").read_text())
    lock = (ROOT / "requirements.lock").read_text()
    pins = dict(re.findall(r"^(openai|anthropic)==(\S+)", lock, re.M))
    names = {"@openai/codex": "Codex", "openai": "OpenAI SDK, Node"}
    names |= {"@anthropic-ai/sdk": "Anthropic SDK, Node"}
    rows = {names[name]: pin for name, pin in package["dependencies"].items() if name in names}
    rows |= {"OpenAI SDK, Python": pins["openai"], "Anthropic SDK, Python": pins["anthropic"]}
    assert len(rows) == 5
    for client, version in rows.items():
        assert f"| {client} | {version} |" in text, client
    for name in ("ai", "@ai-sdk/openai", "@ai-sdk/anthropic"):
        assert f"`{name}` {package['dependencies'][name]}" in text, name


def _refusals() -> Iterator[tuple[str, str, str]]:
    """Yield the code, the status and the retry of each refusal, as its source has them."""
    for file in (ROOT / "src" / "bridgepool" / "gateway" / "proxy").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(
                    func=ast.Name(id="Refusal"), args=[status, ast.Constant(value=code), *_]
                ):
                    retry = re.search(r"Retry\.(\w+)", ast.unparse(node))
                    yield str(code), ast.unparse(status), retry[1] if retry else "CLIENT_DECIDES"


def test_every_refusal_stands_in_a_table_with_its_status_and_whether_to_retry() -> None:
    """Codes stood on the pages; statuses and retries were compared by nobody."""
    rows: dict[str, list[tuple[str, str]]] = {}
    for name, status_at, code_at in (("clients", 1, 2), ("client-limits", 0, 1)):
        for line in page(f"howto/{name}.md").splitlines():
            cells = [cell.strip() for cell in line.split("|")[1:-1]]
            if len(cells) == 4 and re.match(r"\d{3}", cells[status_at]):
                for code in re.findall(r"`(\w+)`", cells[code_at]):
                    rows.setdefault(code, []).append((cells[status_at], cells[3]))
    advice = {
        "USELESS": "no",
        "SOON": r"after (?:a second|`Retry-After`)|yes",
        "CLIENT_DECIDES": "by their own rules",
    }
    found = list(_refusals())
    assert len(found) > 40
    for code, status, retry in found:
        for shown, retries in rows[code]:
            assert not status.isdigit() or status in shown, (code, status)
            assert re.match(advice[retry], retries), (code, retry)
    assert {"bad_request", *_INVALID_CODES.values()} <= rows.keys()


def test_every_field_of_the_status_of_a_gateway_stands_on_the_page() -> None:
    section = page("howto/observability.md").partition("## Status\n")[2].partition("\n## ")[0]
    keys: set[str] = set()
    for name in ("proxy/_status.py", "proxy/_budget_status.py", "sources/_control_source.py"):
        source = ROOT / "src" / "bridgepool" / "gateway" / name
        for function in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            named = isinstance(function, ast.FunctionDef) and function.name
            if named and re.search("document|connection", named):
                for node in ast.walk(function):
                    if isinstance(node, ast.Dict):
                        keys |= {str(k.value) for k in node.keys if isinstance(k, ast.Constant)}
    assert {"pool", "most_spent", "software", "bytes_received"} <= keys
    assert [key for key in sorted(keys) if f"`{key}`" not in section] == []


def test_one_page_tells_how_to_install_and_no_other_names_the_distribution() -> None:
    """`pip install 'bridgepool[gateway]'` found no such distribution."""
    named = re.compile(r"pip install [^`\n]*bridgepool(?:\[|\b)")
    pages = {path for path in DOCS.rglob("*.md") if named.search(path.read_text(encoding="utf-8"))}
    assert pages == {DOCS / "index.md"}
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = set(declared["project"]["optional-dependencies"]) - {"docs", "dev"}
    assert set(re.findall(r"^\| `([a-z]+)` \|", page("index.md"), re.MULTILINE)) == extras


def test_the_unit_for_systemd_runs_a_command_that_exists_and_gives_it_time_to_drain() -> None:
    text = (EXAMPLES / "bridgepool-gateway.service").read_text(encoding="utf-8")
    unit = text.replace("\\\n", " ")
    [command] = re.findall(r"^ExecStart=\S+/bridgepool (.*)$", unit, re.MULTILINE)
    options = command_app.parse_args(shlex.split(command))[1].arguments["options"]
    [stop] = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert int(stop) > options.shutdown_delay + options.drain_timeout
